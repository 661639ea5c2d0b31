#include "server/archive/node_reader.h"

#include <atomic>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "server/archive/node_record.h"
#include "server/archive/stopwatch.h"

namespace quicksave::server {
namespace {

// Of bytes that cannot be decoded: are they at fault, and not what the record says about them?
bool AreAtFault(std::string_view bytes, const storage::BlockRef& ref) {
  const absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(bytes);
  if (!info.ok() || info->block_id.ToBytes() != ref.id()) return true;
  return info->shape.tokens == static_cast<int>(ref.token_count()) && info->shape.bytes() == ref.raw_bytes();
}

// The same of a block of rows, which is to have the shape that the record says.
bool AreAtFault(std::string_view bytes, const compressor::RowBlockShape& shape, const compressor::BlockId& id) {
  const absl::StatusOr<compressor::RowBlockInfo> info = compressor::PeekRowBlock(bytes);
  return !info.ok() || info->id != id || info->shape == shape;
}

absl::StatusOr<std::vector<float>> DecodeRows(std::string_view bytes, const compressor::RowBlockShape& shape,
                                              const compressor::BlockId& id) {
  const absl::StatusOr<compressor::RowBlockInfo> info = compressor::PeekRowBlock(bytes);
  if (!info.ok()) return info.status();
  // No memory on the word of a record that the block contradicts; decoding says how it does.
  std::vector<float> values(info->shape == shape ? shape.values() : 0);
  if (absl::Status status = DecodeRowBlock(bytes, shape, id, absl::MakeSpan(values)); !status.ok()) return status;
  return values;
}

}  // namespace

absl::StatusOr<RawBlock> NodeReader::ReadBlock(const storage::BlockRef& ref, ReadCost& cost) const {
  const auto name = [&ref] {
    return absl::StrCat("block ", absl::BytesToHexString(ref.id()), " of tokens ", ref.first_token(), " to ",
                        ref.first_token() + ref.token_count());
  };
  Stopwatch watch;
  absl::StatusOr<std::string> bytes =
      d_.store->ReadBlock(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), name());
  cost.bytes += static_cast<int64_t>(bytes->size());
  const compressor::BlockContext context{.model_fingerprint = record_.model_fingerprint(),
                                         .first_position = ref.first_token()};
  absl::StatusOr<RawBlock> block = coder_.Decode(ref, *bytes, context);
  cost.decode += watch.Lap();
  if (absl::IsDataLoss(block.status()) && AreAtFault(*bytes, ref)) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  if (!block.ok()) return Explain(block.status(), name());
  return block;
}

absl::StatusOr<std::shared_ptr<const engine::Logits>> NodeReader::ReadLogits(int vocab_size, ReadCost& cost) const {
  Stopwatch watch;
  absl::StatusOr<std::string> bytes = d_.store->GetState(record_.tenant(), record_.node_id(), kLogitsState);
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), "logits");
  cost.bytes += static_cast<int64_t>(bytes->size());
  const size_t count = bytes->size() / sizeof(float);
  const bool whole = !bytes->empty() && bytes->size() % sizeof(float) == 0;
  if (!whole || (vocab_size != 0 && count != static_cast<size_t>(vocab_size))) {
    return Explain(absl::DataLossError(absl::StrCat(bytes->size(), " bytes for a vocabulary of ", vocab_size)),
                   "logits");
  }
  return LogitsFromBytes(*bytes);
}

absl::StatusOr<std::vector<float>> NodeReader::ReadTaps(const TapPiece& piece, const storage::BlockRef& ref,
                                                        ReadCost& cost) const {
  const auto name = [&] {
    return absl::StrCat("hidden states of layer ", piece.layer, ", tokens ", piece.first_token, " to ",
                        piece.first_token + piece.token_count, " (block ", absl::BytesToHexString(ref.id()), ")");
  };
  Stopwatch watch;
  const absl::StatusOr<std::string> bytes =
      d_.store->ReadBlock(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), name());
  cost.bytes += static_cast<int64_t>(bytes->size());
  if (ref.codec() != compressor::kRowBlockCodec) {
    return Explain(absl::UnimplementedError(absl::StrCat("this program does not read ", ref.codec())), name());
  }
  const absl::StatusOr<compressor::BlockId> id = compressor::Digest128::FromBytes(ref.id());
  if (!id.ok()) return Explain(absl::DataLossError(id.status().message()), name());
  absl::StatusOr<std::vector<float>> values = DecodeRows(*bytes, piece.shape(), *id);
  cost.decode += watch.Lap();
  if (absl::IsDataLoss(values.status()) && AreAtFault(*bytes, piece.shape(), *id)) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  if (!values.ok()) return Explain(values.status(), name());
  return values;
}

absl::Status NodeReader::ForEach(int count, absl::FunctionRef<absl::Status(int, ReadCost&)> work,
                                 ReadCost& cost) const {
  std::vector<ReadCost> costs(count);
  std::vector<absl::Status> statuses(count);
  std::atomic<bool> failed = false;
  d_.workers->ParallelFor(count, [&](int i) {
    if (failed) return;
    statuses[i] = work(i, costs[i]);
    if (!statuses[i].ok()) failed = true;
  });
  for (int i = 0; i < count; ++i) {
    if (!statuses[i].ok()) return statuses[i];
    cost.bytes += costs[i].bytes;
    cost.read += costs[i].read;
    cost.decode += costs[i].decode;
  }
  return absl::OkStatus();
}

absl::Status NodeReader::Explain(const absl::Status& status, const std::string& part) const {
  const std::string name = absl::StrCat("nodes/", record_.node_id());
  if (!absl::IsNotFound(status)) {
    return absl::Status(status.code(), absl::StrCat(name, ": ", part, ": ", status.message()));
  }
  // The record names it, so it is either damage or a delete since the record was read.
  const auto nodes = d_.store->GetNodes(record_.tenant(), {record_.node_id()});
  if (nodes.ok() && !nodes->front().has_value()) {
    return absl::NotFoundError(absl::StrCat(name, " was deleted while it was read"));
  }
  return absl::DataLossError(absl::StrCat(name, ": ", part, " is missing: ", status.message()));
}

}  // namespace quicksave::server
