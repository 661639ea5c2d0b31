#include "server/service/tap_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/crc32c.h"
#include "server/archive/node_record.h"
#include "server/service/convert.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<TapReader>> TapReader::Open(Core& core, const CallContext& call,
                                                           const v1::ReadTapsRequest& request) {
  std::unique_ptr<TapReader> reader(new TapReader(core, request));
  absl::Status status = absl::InvalidArgumentError("give a session or a node to read from");
  if (request.has_session()) status = reader->OpenSession(core, call);
  if (request.has_node()) status = reader->OpenNode();
  if (status.ok()) status = reader->Plan();
  if (!status.ok()) return status;
  return reader;
}

absl::Status TapReader::OpenSession(Core& core, const CallContext& call) {
  name_ = request_.session();
  const absl::StatusOr<std::string> id = ParseName(name_, "sessions");
  if (!id.ok()) return id.status();
  const absl::StatusOr<TakenSession> taken = core.sessions->Capture(*id, call, [](int) { return 0; });
  if (!taken.ok()) return taken.status();
  taps_ = taken->state.taps;
  extent_ = taps_.extent();
  model_fingerprint_ = core.identity.fingerprint;
  return absl::OkStatus();
}

absl::Status TapReader::OpenNode() {
  name_ = request_.node();
  const absl::StatusOr<std::string> id = ParseName(name_, "nodes");
  if (!id.ok()) return id.status();
  absl::StatusOr<storage::NodeRecord> record = core_.store->GetNode(Core::kTenant, *id);
  if (!record.ok()) return record.status();
  if (absl::Status status = CheckConsistent(*record); !status.ok()) return status;
  record_ = *std::move(record);
  extent_ = TapExtentOf(*record_);
  model_fingerprint_ = record_->model_fingerprint();
  return absl::OkStatus();
}

absl::Status TapReader::Plan() {
  // One that is to capture may have evaluated nothing since, or was rewound without its proof.
  if (extent_.token_count == 0) {
    return storage::WithReason("NOT_TAPPED", absl::FailedPreconditionError(absl::StrCat(
                                                 name_, " has no hidden states; capture them with Generate's `taps`")));
  }
  const auto& captured = extent_.spec.layers;
  std::vector<int> layers(request_.layers().begin(), request_.layers().end());
  std::sort(layers.begin(), layers.end());
  if (std::adjacent_find(layers.begin(), layers.end()) != layers.end()) {
    return absl::InvalidArgumentError("layers: one is named twice");
  }
  if (layers.empty()) layers = captured;
  if (!std::includes(captured.begin(), captured.end(), layers.begin(), layers.end())) {
    return absl::OutOfRangeError(absl::StrCat("layers: ", name_, " has those of ", absl::StrJoin(captured, ", ")));
  }
  const int end = extent_.first_token + extent_.token_count;
  const int first = request_.has_first_token() ? request_.first_token() : extent_.first_token;
  const int64_t last = request_.has_token_count() ? int64_t{first} + request_.token_count() : end;
  const bool asked = request_.has_first_token() || request_.has_token_count();
  if (asked && (first < extent_.first_token || last > end || first >= last)) {
    return absl::OutOfRangeError(absl::StrCat("tokens: ", name_, " has hidden states of ", extent_.token_count,
                                              " tokens from ", extent_.first_token, " on, not of ", first, " to ",
                                              last));
  }
  pieces_ = PlanTapPieces(extent_);
  const int64_t row_bytes = int64_t{extent_.hidden_size} * static_cast<int64_t>(sizeof(float));
  const int most = static_cast<int>(std::max<int64_t>(1, kChunkBytes / row_bytes));
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const TapPiece& piece = pieces_[i];
    if (!std::binary_search(layers.begin(), layers.end(), piece.layer)) continue;
    const int stop = std::min(piece.first_token + piece.token_count, static_cast<int>(last));
    for (int token = std::max(piece.first_token, first); token < stop; token += most) {
      chunks_.push_back(
          {.piece = static_cast<int>(i), .first_token = token, .token_count = std::min(most, stop - token)});
    }
  }
  header_.mutable_layers()->Assign(layers.begin(), layers.end());
  header_.set_first_token(first);
  header_.set_token_count(static_cast<int32_t>(last - first));
  header_.set_hidden_size(extent_.hidden_size);
  header_.set_dtype("F32");
  header_.set_model_fingerprint(model_fingerprint_);
  header_.set_total_bytes(row_bytes * (last - first) * static_cast<int64_t>(layers.size()));
  return absl::OkStatus();
}

absl::StatusOr<bool> TapReader::Next(v1::ReadTapsResponse& response) {
  response.Clear();
  if (!std::exchange(began_, true)) {
    *response.mutable_header() = header_;
    return true;
  }
  if (next_ == chunks_.size()) return false;
  if (absl::Status status = FillChunk(chunks_[next_++], *response.mutable_chunk()); !status.ok()) return status;
  return true;
}

absl::Status TapReader::FillChunk(const Chunk& chunk, v1::TapChunk& out) {
  const TapPiece& piece = pieces_[chunk.piece];
  std::string& data = *out.mutable_data();
  const size_t row_bytes = extent_.hidden_size * sizeof(float);
  if (record_ && loaded_ != chunk.piece) {
    absl::StatusOr<std::vector<float>> values = core_.archive->ReadTaps(*record_, chunk.piece);
    if (!values.ok()) return values.status();
    values_ = *std::move(values);
    loaded_ = chunk.piece;
  }
  for (int token = chunk.first_token; token < chunk.first_token + chunk.token_count; ++token) {
    const float* row = record_ ? &values_[size_t(token - piece.first_token) * extent_.hidden_size]
                               : taps_.Row(piece.layer_index, token).data();
    data.append(reinterpret_cast<const char*>(row), row_bytes);
  }
  out.set_layer(static_cast<uint32_t>(piece.layer));
  out.set_first_token(chunk.first_token);
  out.set_token_count(chunk.token_count);
  out.set_offset(offset_);
  out.set_crc32c(Crc32c(data));
  offset_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

}  // namespace quicksave::server
