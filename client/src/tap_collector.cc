#include "client/src/tap_collector.h"

#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/crc32c.h"

static_assert(std::endian::native == std::endian::little, "elements are taken as they come");

namespace quicksave::client {
namespace {

// What a header's sizes come to; nothing when they cannot be.
std::optional<int64_t> TotalBytes(const v1::TapHeader& header) {
  if (header.token_count() < 0 || header.hidden_size() < 0) return std::nullopt;
  int64_t total = sizeof(float);
  for (const int64_t size :
       {int64_t{header.hidden_size()}, int64_t{header.token_count()}, int64_t{header.layers_size()}}) {
    if (size != 0 && total > std::numeric_limits<int64_t>::max() / size) return std::nullopt;
    total *= size;
  }
  return total;
}

}  // namespace

bool TapCollector::Add(const v1::ReadTapsResponse& response) {
  if (response.has_header()) status_ = AddHeader(response.header());
  // A part that this library does not know is of no use to it.
  if (response.has_chunk()) status_ = AddChunk(response.chunk());
  return status_.ok();
}

absl::Status TapCollector::AddHeader(const v1::TapHeader& header) {
  if (has_header_) return absl::DataLossError("hidden states: a second header");
  has_header_ = true;
  if (header.dtype() != "F32") {
    return absl::UnimplementedError(absl::StrCat("hidden states of type ", header.dtype(), ", not F32"));
  }
  if (header.total_bytes() != TotalBytes(header)) {
    return absl::DataLossError("hidden states: the header contradicts itself");
  }
  states_.layers = {header.layers().begin(), header.layers().end()};
  states_.first_token = header.first_token();
  states_.token_count = header.token_count();
  states_.hidden_size = header.hidden_size();
  states_.model_fingerprint = header.model_fingerprint();
  total_bytes_ = header.total_bytes();
  return absl::OkStatus();
}

absl::Status TapCollector::AddChunk(const v1::TapChunk& chunk) {
  if (!has_header_) return absl::DataLossError("hidden states: a chunk before the header");
  const std::string& data = chunk.data();
  const auto size = static_cast<int64_t>(data.size());
  if (chunk.offset() != received_bytes_ || size > total_bytes_ - received_bytes_ || data.size() % sizeof(float) != 0) {
    return absl::DataLossError(absl::StrCat("hidden states: a chunk of ", size, " bytes at ", chunk.offset(), " after ",
                                            received_bytes_, " of ", total_bytes_));
  }
  if (Crc32c(data) != chunk.crc32c()) {
    return absl::DataLossError(absl::StrCat("hidden states: the chunk at ", chunk.offset(), " was damaged on its way"));
  }
  // Grows with what came, not with what a header promises.
  states_.values.resize((received_bytes_ + size) / sizeof(float));
  std::memcpy(reinterpret_cast<char*>(states_.values.data()) + received_bytes_, data.data(), data.size());
  received_bytes_ += size;
  return absl::OkStatus();
}

absl::StatusOr<HiddenStates> TapCollector::Finish() && {
  if (!has_header_) return absl::DataLossError("hidden states: the server sent no header");
  if (received_bytes_ == total_bytes_) return std::move(states_);
  return absl::DataLossError(
      absl::StrCat("hidden states: the server sent ", received_bytes_, " of ", total_bytes_, " bytes"));
}

}  // namespace quicksave::client
