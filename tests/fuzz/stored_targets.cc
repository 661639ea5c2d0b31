#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "storage/frame.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "tests/fuzz/decoder_targets.h"
#include "tests/fuzz/sealed_input.h"

namespace quicksave::fuzz {
namespace {

constexpr char kKey[] = "fuzz-key";

bool DecodeStored(std::string_view bytes) {
  const google::protobuf::LogSilencer silencer;  // protobuf logs each text that is not UTF-8
  const absl::string_view stored(bytes.data(), bytes.size());
  const absl::string_view payload = stored.substr(std::min(stored.size(), storage::kFrameHeaderBytes));
  RequireDecoderStatus(storage::OpenFrame(kKey, stored, "a value").status());
  const auto header = storage::FrameHeader(kKey, payload);
  const std::string framed = absl::StrCat(absl::string_view(header.data(), header.size()), payload);
  const auto opened = storage::OpenFrame(kKey, framed, "a value");
  Require(opened.ok() && *opened == payload, "a frame was not opened");
  const auto head = storage::ParseHead(payload, "tenant", "node").status();
  RequireDecoderStatus(head);
  if (const auto key = storage::ParseReferenceKey(stored)) {
    Require(key->block_key.size() + key->node_id.size() <= bytes.size(), "a key is longer than its bytes");
  }
  return head.ok();
}

std::vector<std::string> StoredSeeds() {
  storage::NodeRecord record;
  record.set_tenant("tenant");
  record.set_node_id("node");
  const std::string payload = record.SerializeAsString();
  const auto header = storage::FrameHeader(kKey, payload);
  storage::BlockId id;
  const std::string block_key = storage::BlockKey("tenant", "fingerprint", id);
  return {std::string(header.data(), header.size()) + payload, storage::ReferenceKey(block_key, "node"), block_key};
}

}  // namespace

std::vector<DecoderTarget> StoredTargets() {
  return {
      {"stored_value", DecodeStored, StoredSeeds},
  };
}

}  // namespace quicksave::fuzz
