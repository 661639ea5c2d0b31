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
#include "server/archive/state_encoder.h"
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

// A restore that finds the node changed under it begins again.
constexpr int kAttempts = 3;

storage::v1::EncodingSummary SummaryOf(const storage::NodeRecord& record, const storage::v1::Encoding& encoding) {
  for (const storage::v1::EncodingSummary& summary : record.encodings()) {
    if (storage::EncodingKeyOf(summary) == storage::EncodingKeyOf(encoding)) return summary;
  }
  return {};
}

// A state that captures its last token gets its hidden states again, however it was rewound.
int64_t TapBytesToBe(const engine::TapExtent& taps) {
  return taps.spec.all_tokens ? taps.bytes() : taps.bytes_per_token();
}

// Tokens all of whose K and V are recomputed.
int RecomputedTokens(const RestoreSource& source, int tokens) {
  int recomputed = 0;
  for (const storage::BlockRef* ref : source.blocks) {
    const std::optional<LatentKey> key = ParseLatentKey(ref->codec());
    const int first = static_cast<int>(ref->first_token());
    const int end = std::min(first + static_cast<int>(ref->token_count()), tokens);
    if (!key || end <= first) continue;
    const bool whole = key->kind == LatentKey::Kind::kReplay;
    recomputed += whole ? end - first : std::max(0, std::min(end, kRecomputedTokens) - first);
  }
  return recomputed;
}

// Tokens for which restoring `tokens` of them takes pages.
int RoomFor(const RestoreSource& source, int tokens) {
  // A latent is decoded as a whole, also where only a part of it is wanted.
  // Replaying in two parts may take a page more.
  return std::max(tokens, source.replay_end == 0 ? 0 : source.replay_end + engine::cpu::kPageTokens);
}

// What a restore read, and how good that is.
void Describe(const RestoreSource& source, const storage::NodeRecord& record, RestoreReport& report) {
  report.estimate = source.estimate;
  report.exact = source.exact;
  report.codec = source.encoding == nullptr ? record.codec() : source.encoding->codec();
  if (source.encoding == nullptr) return;
  report.encoding = SummaryOf(record, *source.encoding);
  if (!source.exact && source.encoding->has_fidelity()) report.fidelity = source.encoding->fidelity();
}

absl::Status CheckReferences(const storage::Store& store, const storage::NodeRecord& record) {
  absl::StatusOr<storage::VerifyReport> report = store.VerifyNode(record.tenant(), record.node_id());
  if (!report.ok()) return report.status();
  if (report->problems.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("nodes/", record.node_id(), ": ", absl::StrJoin(report->problems, "; ")));
}

}  // namespace

Archive::Archive(const Dependencies& dependencies, std::unique_ptr<BlockCoder> coder)
    : d_(dependencies), coder_(std::move(coder)), costs_(dependencies.attention_parity) {}

Archive::~Archive() = default;

absl::StatusOr<std::unique_ptr<Archive>> Archive::Create(const Dependencies& dependencies) {
  absl::StatusOr<std::unique_ptr<BlockCoder>> coder =
      BlockCoder::Create(dependencies.store, dependencies.codecs, dependencies.model.fingerprint,
                         dependencies.pool->shape(), dependencies.model.hidden_size);
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

LatentProfiles& Archive::latents() { return coder_->latents(); }

absl::StatusOr<RestoredState> Archive::Restore(const std::string& tenant, const std::string& node_id,
                                               const RestoreOptions& options) {
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<storage::NodeRecord> record = d_.store->GetNode(tenant, node_id);
    if (!record.ok()) return record.status();
    absl::StatusOr<RestoredState> restored = RestoreOnce(*record, options);
    // Blocks go when the node's encodings are changed meanwhile.
    if (!absl::IsDataLoss(restored.status()) || attempt == kAttempts || !HasChanged(*record)) return restored;
  }
}

absl::Status Archive::Check(const storage::NodeRecord& record) const {
  if (absl::Status status = CheckRestorable(record, d_.model); !status.ok()) return status;
  if (absl::Status status = CheckConsistent(record); !status.ok()) return status;
  return CheckFitsModel(record, d_.model, d_.pool->shape());
}

absl::StatusOr<StoredPrefix> Archive::FindPrefix(const std::string& tenant, absl::Span<const int32_t> tokens) const {
  const absl::StatusOr<storage::NodeBeginning> found = d_.store->FindBeginning(tenant, d_.model.fingerprint, tokens);
  if (!found.ok()) return found.status();
  const storage::NodeRecord& record = found->node;
  if (absl::Status status = Check(record); !status.ok()) return absl::NotFoundError(status.message());
  const int in_common = static_cast<int>(found->in_common);
  const absl::StatusOr<RestoreSource> source =
      ChooseSource(record, in_common, d_.pool->shape().layers, {.exact_only = true}, coder_->latents(), costs_);
  if (!source.ok()) return absl::NotFoundError(source.status().message());
  if (RecomputedTokens(*source, in_common) == in_common) return absl::NotFoundError("it would be computed again");
  return StoredPrefix{.tenant = tenant,
                      .node_id = record.node_id(),
                      .tokens = in_common,
                      .room = RoomFor(*source, in_common),
                      .estimate = source->estimate};
}

absl::StatusOr<RestoredState> Archive::RestoreOnce(storage::NodeRecord record, const RestoreOptions& options) {
  Stopwatch total;
  if (absl::Status status = Check(record); !status.ok()) return status;
  const int count = static_cast<int>(record.token_count());
  const int tokens = options.at_token.value_or(count);
  if (tokens < 1 || tokens > count) {
    return absl::OutOfRangeError(absl::StrCat("nodes/", record.node_id(), " has ", count,
                                              " tokens; at_token must be 1 to ", count, ", not ", tokens));
  }
  RestoredState restored{.record = std::move(record)};
  absl::StatusOr<RestoreSource> source =
      ChooseSource(restored.record, tokens, d_.pool->shape().layers, options.preference, coder_->latents(), costs_);
  if (!source.ok()) return source.status();
  if (source->replay_end > 0 && (options.replayer == nullptr || d_.angles == nullptr)) {
    return absl::FailedPreconditionError(
        absl::StrCat("nodes/", restored.record.node_id(), " has latents, which cannot be decoded here"));
  }
  const engine::TapExtent taps = options.without_taps ? engine::TapExtent() : TapExtentOf(restored.record, tokens);
  if (taps.on() && options.admit_taps) {
    if (absl::Status status = options.admit_taps(TapBytesToBe(taps)); !status.ok()) return status;
  }
  const int room = RoomFor(*source, tokens);
  absl::StatusOr<engine::PageReservation> reservation =
      options.reserve ? options.reserve(tokens, room) : d_.pool->Reserve(engine::PagesFor(room));
  if (!reservation.ok()) return reservation.status();
  absl::Status loaded = Load(*source, tokens, taps, options.replayer, *std::move(reservation), restored);
  if (!loaded.ok()) return loaded;
  restored.report.total = total.Lap();
  return restored;
}

absl::Status Archive::Load(const RestoreSource& source, int tokens, const engine::TapExtent& extent, Replayer* replayer,
                           engine::PageReservation reservation, RestoredState& restored) {
  const storage::NodeRecord& record = restored.record;
  RestoreReport& report = restored.report;
  const std::vector<int32_t> ids = TokensOf(record, std::max(tokens, source.replay_end));
  engine::Sequence sequence;
  std::optional<StateReplay> replay;
  Stopwatch watch;
  if (source.replay_end > 0) {
    absl::StatusOr<StateReplay> run = StateReplay::Run(*replayer, absl::MakeConstSpan(ids).first(source.replay_end),
                                                       source.splits, sequence, reservation);
    if (!run.ok()) return run.status();
    replay = *std::move(run);
    report.replay = watch.Lap();
    report.replayed_layers = source.splits.back() + 1;
    report.recomputed_tokens = RecomputedTokens(source, tokens);
    costs_.NoteReplay(source.replay_end, source.layers_share(d_.pool->shape().layers), report.replay);
  }
  if (sequence.length() < tokens) {
    sequence.Append(absl::MakeConstSpan(ids).subspan(sequence.length(), tokens - sequence.length()), reservation);
  }
  const absl::Span<const engine::PageRef> pages = sequence.pages();
  const int blocks = static_cast<int>(source.blocks.size());
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
    const storage::BlockRef& ref = *source.blocks[i];
    const int first = static_cast<int>(ref.first_token());
    absl::StatusOr<RawBlock> block =
        replay ? reader.ReadBlock(ref, source.residuals[i], {&*replay, pages, d_.angles}, cost)
               : reader.ReadBlock(ref, cost);
    if (!block.ok()) return block.status();
    Stopwatch scatter;
    ScatterBlock(block->view(), std::min(block->shape.tokens, tokens - first), first, pages);
    load[i] = scatter.Lap();
    return absl::OkStatus();
  };
  ReadCost cost;
  if (absl::Status status = reader.ForEach(taps.count() + blocks + (whole ? 1 : 0), work, cost); !status.ok())
    return status;
  costs_.NoteRead(source, tokens, watch.Lap());
  report.bytes_read = cost.bytes;
  report.bytes_restored = static_cast<int64_t>(ShapeOfBlock(d_.pool->shape(), 1).bytes()) * tokens +
                          (whole ? int64_t{4} * d_.model.vocab_size : 0);
  report.read = cost.read;
  report.decode = cost.decode;
  for (const absl::Duration& duration : load) report.load += duration;
  Describe(source, record, report);
  SessionState& state = restored.state;
  sequence.Truncate(tokens);
  sequence.set_lossy_tokens(source.exact ? std::min(static_cast<int>(record.lossy_tokens()), tokens) : tokens);
  sequence.set_next_logits(std::move(logits));
  state.sequence = std::move(sequence);
  state.sampling = SamplingOf(record);
  state.text = TextStateOf(record, tokens);
  state.constraint = ConstraintOf(record, tokens);
  state.taps = std::move(taps).taps();
  state.origin = OriginOf(record, source);
  state.origin_tokens = tokens;
  return absl::OkStatus();
}

absl::StatusOr<EncodedState> Archive::EncodeState(const storage::NodeRecord& record, const engine::Sequence& saved,
                                                  const StateReplay& replay, const engine::Sequence& replayed,
                                                  const EncodingChoice& choice) {
  return StateEncoder(d_, *coder_, {record, saved, replay, replayed, choice}).Encode();
}

absl::StatusOr<std::vector<float>> Archive::ReadTaps(const storage::NodeRecord& record, int index) const {
  ReadCost cost;
  return NodeReader(d_, *coder_, record)
      .ReadTaps(PlanTapPieces(TapExtentOf(record))[index], record.contents().tap_blocks(index).block(), cost);
}

absl::StatusOr<VerifiedNode> Archive::Verify(const std::string& tenant, const std::string& node_id) {
  for (int attempt = 1;; ++attempt) {
    const absl::StatusOr<storage::NodeRecord> record = d_.store->GetNode(tenant, node_id);
    if (!record.ok()) return record.status();
    absl::StatusOr<VerifiedNode> verified = VerifyOnce(*record);
    if (!absl::IsDataLoss(verified.status()) || attempt == kAttempts || !HasChanged(*record)) return verified;
  }
}

bool Archive::HasChanged(const storage::NodeRecord& record) const {
  const absl::StatusOr<storage::NodeRecord> now = d_.store->GetNode(record.tenant(), record.node_id());
  return now.ok() && now->revision() != record.revision();
}

absl::StatusOr<VerifiedNode> Archive::VerifyOnce(const storage::NodeRecord& record) const {
  if (absl::Status status = CheckConsistent(record); !status.ok()) return status;
  // A node of another model is read too; what only its model can tell is left out.
  const bool same_model = record.model_fingerprint() == d_.model.fingerprint;
  if (same_model) {
    if (absl::Status status = CheckFitsModel(record, d_.model, d_.pool->shape()); !status.ok()) return status;
  }
  const NodeReader reader(d_, *coder_, record);
  std::vector<const storage::BlockRef*> refs;
  for (const storage::BlockRef& ref : record.contents().blocks()) refs.push_back(&ref);
  for (const storage::v1::Encoding& encoding : record.contents().encodings()) {
    for (const storage::BlockRef& ref : encoding.blocks()) refs.push_back(&ref);
    for (const storage::BlockRef& ref : encoding.residuals()) refs.push_back(&ref);
  }
  const int blocks = static_cast<int>(refs.size());
  const std::vector<TapPiece> taps = PlanTapPieces(TapExtentOf(record));
  const auto work = [&](int i, ReadCost& cost) -> absl::Status {
    if (i > blocks) {
      const int tap = i - blocks - 1;
      return reader.ReadTaps(taps[tap], record.contents().tap_blocks(tap).block(), cost).status();
    }
    if (i == blocks) return reader.ReadLogits(same_model ? d_.model.vocab_size : 0, cost).status();
    // What a latent decodes to is known only beside what the model recomputes.
    if (ParseLatentKey(refs[i]->codec())) return reader.CheckLatent(*refs[i], cost);
    return reader.ReadBlock(*refs[i], cost).status();
  };
  ReadCost cost;
  const int tap_blocks = static_cast<int>(taps.size());
  if (absl::Status status = reader.ForEach(blocks + 1 + tap_blocks, work, cost); !status.ok()) return status;
  if (absl::Status status = CheckReferences(*d_.store, record); !status.ok()) return status;
  return VerifiedNode{.blocks = blocks + tap_blocks, .bytes_read = cost.bytes};
}

}  // namespace quicksave::server
