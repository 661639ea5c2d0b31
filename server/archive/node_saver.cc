#include "server/archive/node_saver.h"

#include <atomic>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "compressor/block.h"
#include "server/archive/block_pages.h"
#include "server/archive/node_record.h"
#include "server/archive/stopwatch.h"

namespace quicksave::server {
namespace {

constexpr int kNodeIdLength = 16;
// Two equal ids of 82 random bits mean that the source of randomness is broken.
constexpr int kNodeIdAttempts = 3;

std::string NewNodeId() {
  constexpr absl::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
  absl::BitGen random;
  std::string id(kNodeIdLength, ' ');
  for (char& c : id) c = kAlphabet[absl::Uniform<size_t>(random, 0, kAlphabet.size())];
  return id;
}

}  // namespace

absl::StatusOr<SavedNode> NodeSaver::Save() {
  Stopwatch total;
  if (absl::Status status = CheckState(); !status.ok()) return status;
  if (absl::Status status = Plan(); !status.ok()) return status;
  if (absl::Status status = CutBlocks(); !status.ok()) return status;
  if (absl::Status status = taps_.Cut(); !status.ok()) return status;
  storage::NodeCommit commit = MakeCommit();
  Stopwatch watch;
  absl::StatusOr<storage::NodeRecord> record = Commit(commit);
  if (!record.ok()) return record.status();
  SavedNode saved = Finish(*std::move(record), commit);
  saved.report.commit = watch.Lap();
  saved.report.total = total.Lap();
  return saved;
}

absl::Status NodeSaver::CheckState() const {
  const SessionState& state = request_.state;
  const int length = state.sequence.length();
  if (length == 0 || state.sequence.next_logits() == nullptr) {
    return absl::FailedPreconditionError(
        "the state has no next-token logits, so it cannot be saved; generate or score a token first");
  }
  if (static_cast<int>(state.sequence.next_logits()->size()) != d_.model.vocab_size) {
    return absl::InternalError(absl::StrCat("the state has ", state.sequence.next_logits()->size(),
                                            " logits, the model ", d_.model.vocab_size));
  }
  const int common_limit = state.origin == nullptr ? 0 : std::min(length, state.origin->node_token_count);
  if (state.origin_tokens < 0 || state.origin_tokens > common_limit) {
    return absl::InternalError(absl::StrCat("a state of ", length, " tokens cannot have ", state.origin_tokens,
                                            " in common with its origin's ", common_limit));
  }
  return absl::OkStatus();
}

absl::Status NodeSaver::Plan() {
  const SessionState& state = request_.state;
  std::vector<storage::BlockId> keys;
  if (state.origin != nullptr) {
    for (const StoredBlock& block : state.origin->blocks) {
      if (block.first_token + block.token_count > state.origin_tokens) break;
      keys.push_back({.content_id = block.content_id, .codec = block.codec});
    }
  }
  absl::StatusOr<storage::BlockPin> pin = d_.store->PinBlocks(request_.tenant, d_.model.fingerprint, keys);
  if (!pin.ok()) return pin.status();
  origin_pin_ = *std::move(pin);
  for (size_t i = 0; i < keys.size(); ++i) {
    // A block is gone when the origin was deleted; then it is stored again.
    if (origin_pin_.present()[i]) available_.push_back(state.origin->blocks[i]);
  }
  plan_ = PlanBlocks(available_, state.origin_tokens, state.sequence.length());
  return absl::OkStatus();
}

absl::Status NodeSaver::CutBlocks() {
  cuts_.resize(plan_.size());
  std::vector<size_t> to_cut;
  for (size_t i = 0; i < plan_.size(); ++i) {
    if (plan_[i].stored == nullptr) to_cut.push_back(i);
  }
  std::atomic<bool> failed = false;
  d_.workers->ParallelFor(static_cast<int>(to_cut.size()), [&](int i) {
    if (failed) return;
    Cut& cut = cuts_[to_cut[i]];
    cut.status = CutBlock(plan_[to_cut[i]], cut);
    if (!cut.status.ok()) failed = true;
  });
  for (const Cut& cut : cuts_) {
    if (!cut.status.ok()) return cut.status;
  }
  return absl::OkStatus();
}

absl::Status NodeSaver::CutBlock(const PlannedBlock& planned, Cut& cut) const {
  Stopwatch watch;
  const engine::Sequence& sequence = request_.state.sequence;
  RawBlock block(ShapeOfBlock(d_.pool->shape(), planned.token_count));
  GatherBlock(sequence.pages(), planned.first_token, block.mutable_view());
  const compressor::BlockId id = compressor::ComputeBlockId(block.view());
  cut.block.id = coder_.KeyOf(id);
  cut.gather = watch.Lap();
  absl::StatusOr<storage::BlockPin> pin = d_.store->PinBlocks(request_.tenant, d_.model.fingerprint, {cut.block.id});
  if (!pin.ok()) return pin.status();
  cut.pin = *std::move(pin);
  if (cut.pin.present()[0]) return absl::OkStatus();
  watch.Lap();
  const compressor::BlockContext context{
      .model_fingerprint = d_.model.fingerprint,
      .token_ids = absl::MakeConstSpan(sequence.tokens()).subspan(planned.first_token, planned.token_count),
      .first_position = planned.first_token};
  absl::StatusOr<storage::NewBlock> encoded = coder_.Encode(block.view(), id, context);
  if (!encoded.ok()) return encoded.status();
  cut.block = *std::move(encoded);
  cut.encoded_bytes = static_cast<int64_t>(cut.block.bytes.size());
  cut.encode = watch.Lap();
  return absl::OkStatus();
}

StoredBlock NodeSaver::Describe(size_t index) const {
  const PlannedBlock& planned = plan_[index];
  if (planned.stored != nullptr) return *planned.stored;
  const Cut& cut = cuts_[index];
  return {.content_id = cut.block.id.content_id,
          .codec = cut.block.id.codec,
          .first_token = planned.first_token,
          .token_count = planned.token_count,
          .raw_bytes = static_cast<int64_t>(ShapeOfBlock(d_.pool->shape(), planned.token_count).bytes()),
          .stored_bytes = cut.encoded_bytes};
}

storage::NodeCommit NodeSaver::MakeCommit() {
  storage::NodeCommit commit;
  commit.record = MakeRecord(request_, d_.model);
  const compressor::Digest128 profile = coder_.profile_id();
  if (!profile.IsNone()) commit.record.set_profile_id(profile.ToHex());
  bool latents = false;
  absl::flat_hash_set<storage::BlockId> given;
  for (size_t i = 0; i < plan_.size(); ++i) {
    const StoredBlock block = Describe(i);
    storage::BlockRef* ref = commit.record.mutable_contents()->add_blocks();
    ref->set_id(block.content_id);
    ref->set_codec(block.codec);
    ref->set_first_token(static_cast<uint32_t>(block.first_token));
    ref->set_token_count(static_cast<uint32_t>(block.token_count));
    ref->set_raw_bytes(static_cast<uint64_t>(block.raw_bytes));
    latents = latents || ParseLatentKey(block.codec).has_value();
  }
  // The beginning may be a latent's that the state was restored from: kept, not encoded anew.
  commit.record.set_codec(latents ? "mixed" : "exact");
  for (Cut& cut : cuts_) {
    // Equal content may stand at two places of one sequence.
    if (cut.encoded_bytes > 0 && given.insert(cut.block.id).second) {
      commit.blocks.push_back({.id = cut.block.id, .bytes = std::move(cut.block.bytes)});
    }
  }
  new_blocks_ = static_cast<int>(commit.blocks.size());
  taps_.AddTo(commit);
  commit.state.push_back({.name = kLogitsState, .bytes = LogitsToBytes(*request_.state.sequence.next_logits())});
  commit.request = request_.request;
  return commit;
}

absl::StatusOr<storage::NodeRecord> NodeSaver::Commit(storage::NodeCommit& commit) const {
  for (int attempt = 1;; ++attempt) {
    commit.record.set_node_id(NewNodeId());
    absl::StatusOr<storage::NodeRecord> record = d_.store->CommitNode(commit);
    if (absl::IsAlreadyExists(record.status()) && attempt < kNodeIdAttempts) continue;
    if (!absl::IsFailedPrecondition(record.status()) || commit.record.parents_size() == 0) return record;
    absl::StatusOr<bool> exists = OriginExists();
    if (!exists.ok()) return exists.status();
    if (*exists) return record;
    commit.record.clear_parents();
  }
}

absl::StatusOr<bool> NodeSaver::OriginExists() const {
  const auto nodes = d_.store->GetNodes(request_.tenant, {request_.state.origin->node_id});
  if (!nodes.ok()) return nodes.status();
  return nodes->front().has_value();
}

SavedNode NodeSaver::Finish(storage::NodeRecord record, const storage::NodeCommit& commit) const {
  SavedNode saved;
  auto origin = std::make_shared<Origin>();
  origin->node_id = record.node_id();
  origin->node_token_count = static_cast<int>(record.token_count());
  for (size_t i = 0; i < plan_.size(); ++i) {
    origin->blocks.push_back(Describe(i));
    saved.report.gather += cuts_[i].gather;
    saved.report.encode += cuts_[i].encode;
    if (cuts_[i].encoded_bytes > 0) saved.report.encoded_bytes += origin->blocks.back().raw_bytes;
  }
  saved.report.new_blocks = new_blocks_;
  saved.report.shared_blocks = static_cast<int>(plan_.size()) - new_blocks_;
  saved.report.written_bytes = static_cast<int64_t>(record.new_stored_bytes() + commit.state.front().bytes.size() +
                                                    commit.record.ByteSizeLong());
  saved.origin = std::move(origin);
  saved.record = std::move(record);
  return saved;
}

}  // namespace quicksave::server
