#include "server/archive/archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compressor/exact_profile.h"
#include "server/archive/block_coder.h"
#include "server/archive/block_pages.h"
#include "server/archive/block_plan.h"
#include "server/archive/node_reader.h"
#include "server/archive/node_record.h"
#include "server/archive/node_saver.h"
#include "server/archive/stopwatch.h"
#include "server/archive/tap_blocks.h"

namespace quicksave::server {
namespace {

// Reads those of a node's hidden states that are within an extent, which begins where they do.
class TapLoader {
 public:
  TapLoader(const NodeReader& reader, const storage::NodeRecord& record, const engine::TapExtent& extent)
      : reader_(reader), record_(record), extent_(extent) {
    if (!extent_.on()) return;
    taps_ = engine::Taps(extent_.spec, extent_.hidden_size);
    rows_ = taps_.Append(extent_.first_token, extent_.token_count);
    pieces_ = PlanTapPieces(TapExtentOf(record));
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].first_token < extent_.first_token + extent_.token_count) wanted_.push_back(static_cast<int>(i));
    }
  }

  int count() const { return static_cast<int>(wanted_.size()); }
  absl::Status Load(int i, ReadCost& cost) const {
    const TapPiece& piece = pieces_[wanted_[i]];
    const auto values = reader_.ReadTaps(piece, record_.contents().tap_blocks(wanted_[i]).block(), cost);
    if (!values.ok()) return values.status();
    ScatterPiece(piece, *values, absl::MakeConstSpan(rows_).subspan(piece.first_token - extent_.first_token));
    return absl::OkStatus();
  }
  engine::Taps taps() && { return std::move(taps_); }

 private:
  const NodeReader& reader_;
  const storage::NodeRecord& record_;
  const engine::TapExtent extent_;
  engine::Taps taps_;
  std::vector<float*> rows_;
  std::vector<TapPiece> pieces_;
  std::vector<int> wanted_;
};

// Pages for `tokens` tokens, content undefined.
std::vector<engine::PageRef> TakePages(engine::PageReservation& reservation, int tokens) {
  std::vector<engine::PageRef> pages(engine::PagesFor(tokens));
  for (engine::PageRef& page : pages) page = reservation.Take();
  return pages;
}

// Number of the node's blocks that hold any of its first `tokens` tokens.
int BlocksFor(const storage::NodeRecord& record, int tokens) {
  const auto& blocks = record.contents().blocks();
  const auto end = std::partition_point(blocks.begin(), blocks.end(), [tokens](const storage::BlockRef& ref) {
    return ref.first_token() < static_cast<uint32_t>(tokens);
  });
  return static_cast<int>(end - blocks.begin());
}

// A state that captures its last token gets its hidden states again, however it was rewound.
int64_t TapBytesToBe(const engine::TapExtent& taps) {
  return taps.spec.all_tokens ? taps.bytes() : taps.bytes_per_token();
}

absl::Status CheckReferences(const storage::Store& store, const storage::NodeRecord& record) {
  absl::StatusOr<storage::VerifyReport> report = store.VerifyNode(record.tenant(), record.node_id());
  if (!report.ok()) return report.status();
  if (report->problems.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("nodes/", record.node_id(), ": ", absl::StrJoin(report->problems, "; ")));
}

}  // namespace

Archive::Archive(const Dependencies& dependencies, std::unique_ptr<BlockCoder> coder)
    : d_(dependencies), coder_(std::move(coder)) {}

Archive::~Archive() = default;

absl::StatusOr<std::unique_ptr<Archive>> Archive::Create(const Dependencies& dependencies) {
  absl::StatusOr<std::unique_ptr<BlockCoder>> coder = BlockCoder::Create(
      dependencies.store, dependencies.codecs, dependencies.model.fingerprint, dependencies.pool->shape());
  if (!coder.ok()) return coder.status();
  return std::unique_ptr<Archive>(new Archive(dependencies, *std::move(coder)));
}

bool Archive::has_profile() const { return !coder_->profile_id().IsNone(); }

absl::Status Archive::Calibrate(const std::vector<engine::Sequence>& sequences) {
  compressor::ExactProfileBuilder builder(d_.model.fingerprint);
  for (const engine::Sequence& sequence : sequences) {
    for (const PlannedBlock& planned : PlanBlocks({}, 0, sequence.length())) {
      RawBlock block(ShapeOfBlock(d_.pool->shape(), planned.token_count));
      GatherBlock(sequence.pages(), planned.first_token, block.mutable_view());
      if (absl::Status status = builder.AddBlock(block.view()); !status.ok()) return status;
    }
  }
  absl::StatusOr<compressor::ExactProfile> profile = builder.Build();
  if (!profile.ok()) return profile.status();
  return coder_->AdoptProfile(*profile);
}

absl::StatusOr<SavedNode> Archive::Save(const SaveRequest& request) { return NodeSaver(d_, *coder_, request).Save(); }

absl::StatusOr<RestoredState> Archive::Restore(const std::string& tenant, const std::string& node_id,
                                               const RestoreOptions& options) {
  Stopwatch total;
  absl::StatusOr<storage::NodeRecord> record = d_.store->GetNode(tenant, node_id);
  if (!record.ok()) return record.status();
  if (absl::Status status = CheckRestorable(*record, d_.model); !status.ok()) return status;
  if (absl::Status status = CheckConsistent(*record); !status.ok()) return status;
  if (absl::Status status = CheckFitsModel(*record, d_.model, d_.pool->shape()); !status.ok()) return status;
  const int count = static_cast<int>(record->token_count());
  const int tokens = options.at_token.value_or(count);
  if (tokens < 1 || tokens > count) {
    return absl::OutOfRangeError(
        absl::StrCat("nodes/", node_id, " has ", count, " tokens; at_token must be 1 to ", count, ", not ", tokens));
  }
  const engine::TapExtent taps = options.without_taps ? engine::TapExtent() : TapExtentOf(*record, tokens);
  if (taps.on() && options.admit_taps) {
    if (absl::Status status = options.admit_taps(TapBytesToBe(taps)); !status.ok()) return status;
  }
  absl::StatusOr<engine::PageReservation> reservation =
      options.reserve ? options.reserve(tokens) : d_.pool->Reserve(engine::PagesFor(tokens));
  if (!reservation.ok()) return reservation.status();
  RestoredState restored{.record = *std::move(record)};
  if (absl::Status status = Load(tokens, taps, *std::move(reservation), restored); !status.ok()) return status;
  restored.report.codec = restored.record.codec();
  restored.report.total = total.Lap();
  return restored;
}

absl::Status Archive::Load(int tokens, const engine::TapExtent& extent, engine::PageReservation reservation,
                           RestoredState& restored) const {
  const storage::NodeRecord& record = restored.record;
  std::vector<engine::PageRef> pages = TakePages(reservation, tokens);
  const int blocks = BlocksFor(record, tokens);
  const bool whole = static_cast<uint32_t>(tokens) == record.token_count();
  const NodeReader reader(d_, *coder_, record);
  std::vector<absl::Duration> load(blocks);
  std::shared_ptr<const engine::Logits> logits;
  TapLoader taps(reader, record, extent);
  const auto work = [&](int i, ReadCost& cost) -> absl::Status {
    if (i < taps.count()) return taps.Load(i, cost);
    i -= taps.count();
    if (i == blocks) {
      auto read = reader.ReadLogits(d_.model.vocab_size, cost);
      if (!read.ok()) return read.status();
      logits = *std::move(read);
      return absl::OkStatus();
    }
    const storage::BlockRef& ref = record.contents().blocks(i);
    const int first = static_cast<int>(ref.first_token());
    absl::StatusOr<RawBlock> block = reader.ReadBlock(ref, cost);
    if (!block.ok()) return block.status();
    Stopwatch watch;
    ScatterBlock(block->view(), std::min(block->shape.tokens, tokens - first), first, pages);
    load[i] = watch.Lap();
    return absl::OkStatus();
  };
  ReadCost cost;
  if (absl::Status status = reader.ForEach(taps.count() + blocks + (whole ? 1 : 0), work, cost); !status.ok())
    return status;
  RestoreReport& report = restored.report;
  report.bytes_read = cost.bytes;
  report.bytes_restored = static_cast<int64_t>(ShapeOfBlock(d_.pool->shape(), 1).bytes()) * tokens +
                          (whole ? int64_t{4} * d_.model.vocab_size : 0);
  report.read = cost.read;
  report.decode = cost.decode;
  for (const absl::Duration& duration : load) report.load += duration;
  SessionState& state = restored.state;
  state.sequence = engine::Sequence(TokensOf(record, tokens), std::move(pages), std::move(logits));
  state.sampling = SamplingOf(record);
  state.text = TextStateOf(record, tokens);
  state.constraint = ConstraintOf(record, tokens);
  state.taps = std::move(taps).taps();
  state.origin = OriginOf(record);
  state.origin_tokens = tokens;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Archive::ReadTaps(const storage::NodeRecord& record, int index) const {
  ReadCost cost;
  return NodeReader(d_, *coder_, record)
      .ReadTaps(PlanTapPieces(TapExtentOf(record))[index], record.contents().tap_blocks(index).block(), cost);
}

absl::StatusOr<VerifiedNode> Archive::Verify(const std::string& tenant, const std::string& node_id) {
  absl::StatusOr<storage::NodeRecord> record = d_.store->GetNode(tenant, node_id);
  if (!record.ok()) return record.status();
  if (absl::Status status = CheckConsistent(*record); !status.ok()) return status;
  // A node of another model is read too; what only its model can tell is left out.
  const bool same_model = record->model_fingerprint() == d_.model.fingerprint;
  if (same_model) {
    if (absl::Status status = CheckFitsModel(*record, d_.model, d_.pool->shape()); !status.ok()) return status;
  }
  const NodeReader reader(d_, *coder_, *record);
  const int blocks = record->contents().blocks_size();
  const std::vector<TapPiece> taps = PlanTapPieces(TapExtentOf(*record));
  const auto work = [&](int i, ReadCost& cost) -> absl::Status {
    if (i > blocks) {
      const int tap = i - blocks - 1;
      return reader.ReadTaps(taps[tap], record->contents().tap_blocks(tap).block(), cost).status();
    }
    if (i == blocks) return reader.ReadLogits(same_model ? d_.model.vocab_size : 0, cost).status();
    return reader.ReadBlock(record->contents().blocks(i), cost).status();
  };
  ReadCost cost;
  const int tap_blocks = static_cast<int>(taps.size());
  if (absl::Status status = reader.ForEach(blocks + 1 + tap_blocks, work, cost); !status.ok()) return status;
  if (absl::Status status = CheckReferences(*d_.store, *record); !status.ok()) return status;
  return VerifiedNode{.blocks = blocks + tap_blocks, .bytes_read = cost.bytes};
}

}  // namespace quicksave::server
