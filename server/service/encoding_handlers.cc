// EncodeNode and DropEncoding, apart from the other handlers of GraphService: they need the archive and the engine.

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/learned/learned_codec.h"
#include "compressor/replay_codec.h"
#include "server/service/convert.h"
#include "server/service/fidelity_probe.h"
#include "server/service/graph_handlers.h"
#include "server/service/restore.h"
#include "server/service/scheduler_replayer.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

constexpr char kDefaultPoint[] = "default";

absl::StatusOr<const LatentProfileEntry*> ChooseProfile(const Core& core, const v1::EncodingSpec& spec) {
  if (spec.split() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("encoding.split is ", spec.split(), "; it must be 0 or more"));
  }
  const LatentProfiles& profiles = core.archive->latents();
  const LatentProfileEntry* entry = nullptr;
  const std::string codec = spec.codec().empty() ? compressor::kLatentCodec : spec.codec();
  if (!spec.profile().empty()) {
    entry = profiles.Find(spec.profile());
    if (entry != nullptr && codec != entry->latent->name()) {
      return absl::InvalidArgumentError(absl::StrCat("encoding.codec is ", codec, ", but profile ", spec.profile(),
                                                     " is of ", std::string(entry->latent->name())));
    }
    if (entry != nullptr && spec.has_split() && spec.split() != entry->profile->split) {
      return absl::InvalidArgumentError(absl::StrCat("encoding.split is ", spec.split(), ", but profile ",
                                                     spec.profile(), " has split ", entry->profile->split));
    }
  } else {
    entry = profiles.ForSplit(codec, spec.split());
  }
  if (entry != nullptr && spec.residual() && entry->residual == nullptr) {
    return absl::InvalidArgumentError(
        "encoding.residual: a learned latent has none; take a profile of the codec latent");
  }
  if (entry != nullptr) return entry;
  std::vector<std::string> names;
  for (const LatentProfileEntry* one : profiles.All()) {
    names.push_back(
        absl::StrCat(one->id, " (", std::string(one->latent->name()), ", split ", one->profile->split, ")"));
  }
  return storage::WithReason(
      "NO_PROFILE",
      absl::FailedPreconditionError(absl::StrCat(
          "there is no profile of the codec ", codec, " ",
          spec.profile().empty() ? absl::StrCat("with split ", spec.split()) : spec.profile(), "; ",
          names.empty()
              ? "none is loaded: make one with quicksave-calibrate or quicksave-train and give it as --profile"
              : absl::StrCat("loaded are ", absl::StrJoin(names, ", ")))));
}

// The steps to try, the coarsest first.
absl::StatusOr<std::vector<float>> ChooseSteps(const compressor::LatentProfile& profile, const v1::EncodingSpec& spec,
                                               const v1::FidelityBudget& budget) {
  if (spec.has_step()) {
    if (!std::isfinite(spec.step()) || spec.step() <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("encoding.step is ", spec.step(), "; it must be above 0"));
    }
    return std::vector<float>{spec.step()};
  }
  std::vector<float> steps;
  std::vector<std::string> names;
  const bool search = !spec.has_point() && (budget.has_max_kl() || budget.has_min_top1());
  const std::string wanted = spec.has_point() ? spec.point() : kDefaultPoint;
  for (const compressor::DialPoint& point : profile.points) {
    if (search || point.name == wanted) steps.push_back(point.step);
    names.push_back(point.name);
  }
  if (steps.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the profile has no point '", wanted, "' but ", absl::StrJoin(names, ", "), "; or give a step"));
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  // Finer than any point, where much is asked for.
  if (search) steps.push_back(steps.back() / 3);
  return steps;
}

bool Keeps(const storage::v1::Fidelity& fidelity, const v1::FidelityBudget& budget) {
  return (!budget.has_max_kl() || fidelity.mean_kl() <= budget.max_kl()) &&
         (!budget.has_min_top1() || fidelity.top1_agreement() >= budget.min_top1());
}

// Sizes, as the store will say them: blocks that stand at two places count twice.
void SetSizes(EncodedState& encoded) {
  uint64_t raw = 0;
  uint64_t stored = 0;
  uint64_t residual = 0;
  const auto size_of = [&](const storage::BlockRef& ref) -> uint64_t {
    for (const storage::NewBlock& block : encoded.blocks) {
      if (block.id == storage::IdOf(ref)) return block.bytes.size();
    }
    // Kept as it was saved.
    return ref.stored_bytes();
  };
  for (const storage::BlockRef& ref : encoded.encoding.blocks()) {
    raw += ref.raw_bytes();
    stored += size_of(ref);
  }
  for (const storage::BlockRef& ref : encoded.encoding.residuals()) residual += size_of(ref);
  encoded.encoding.set_raw_bytes(raw);
  encoded.encoding.set_stored_bytes(stored);
  encoded.encoding.set_residual_bytes(residual);
}

// One call of EncodeNode.
class NodeEncoding {
 public:
  // With an identity the answer is remembered, once an encoding is stored.
  NodeEncoding(Core& core, const CallContext& call, const v1::EncodeNodeRequest& request,
               const std::optional<storage::RequestIdentity>& identity)
      : core_(core), call_(call), request_(request), identity_(identity) {}

  absl::Status Run(v1::EncodeNodeResponse& response) {
    const absl::StatusOr<std::string> id = ParseName(request_.name(), "nodes");
    if (!id.ok()) return id.status();
    if (absl::Status status = CheckBudget(request_.budget()); !status.ok()) return status;
    const absl::StatusOr<std::vector<float>> steps = ChooseCodec();
    if (!steps.ok()) return steps.status();
    if (absl::Status status = Prepare(*id); !status.ok()) return status;
    std::optional<EncodedState> best;
    for (size_t i = 0; i < steps->size() && !best; ++i) {
      if (absl::Status status = Try((*steps)[i], response, best); !status.ok()) return status;
      if (!best || i == 0) continue;
      // Between the one that would not do and the one that does there may be a coarser one that does.
      const float between = std::sqrt((*steps)[i - 1] * (*steps)[i]);
      std::optional<EncodedState> coarser;
      if (absl::Status status = Try(between, response, coarser); !status.ok()) return status;
      if (coarser) best = std::move(coarser);
    }
    return Commit(*id, std::move(best), response);
  }

 private:
  // Chooses the profile, if the codec has one; returns the steps to try.
  absl::StatusOr<std::vector<float>> ChooseCodec() {
    const v1::EncodingSpec& spec = request_.encoding();
    if (spec.codec() == compressor::kReplayCodec) {
      if (spec.residual() || spec.has_split() || !spec.profile().empty() || spec.dial_case() != 0) {
        return absl::InvalidArgumentError("encoding: the codec replay has no profile, split, dial or residual");
      }
      return std::vector<float>{0};
    }
    if (!spec.codec().empty() && spec.codec() != compressor::kLatentCodec &&
        spec.codec() != compressor::kLearnedCodec) {
      return absl::InvalidArgumentError(
          absl::StrCat("encoding.codec is '", spec.codec(), "'; it must be latent, learned or replay"));
    }
    const absl::StatusOr<const LatentProfileEntry*> profile = ChooseProfile(core_, spec);
    if (!profile.ok()) return profile.status();
    profile_ = *profile;
    return ChooseSteps(*profile_->profile, spec, request_.budget());
  }

  // Has the saved state, what is recomputed of it, and the probe.
  absl::Status Prepare(const std::string& id) {
    absl::StatusOr<storage::NodeRecord> record = core_.store->GetNode(Core::kTenant, id);
    if (!record.ok()) return record.status();
    if (record->no_saved_blocks()) {
      return storage::WithReason(
          "SAVED_BLOCKS_DROPPED",
          absl::FailedPreconditionError(absl::StrCat(
              request_.name(), " has no blocks as saved any more, and nothing that was decoded is encoded anew")));
    }
    if (!request_.etag().empty() && request_.etag() != storage::EtagOf(*record)) {
      return storage::WithReason(
          "ETAG_MISMATCH", absl::AbortedError(absl::StrCat(request_.name(), " has the etag ", storage::EtagOf(*record),
                                                           ", not ", request_.etag(), "; read it again")));
    }
    record_ = *std::move(record);
    const auto growth = [](int tokens) { return engine::PagesFor(tokens) + 1; };
    StartUse use{.growth = growth, .taps = false};
    use.preference.exact_only = true;
    absl::StatusOr<ProvenState> saved =
        RestoreWithProof(core_, request_.name(), std::nullopt, /*skip_check=*/true, call_, use);
    if (!saved.ok()) return saved.status();
    saved_ = *std::move(saved);
    const int split = profile_ == nullptr ? core_.decoder->config().layers - 1 : profile_->profile->split;
    SchedulerReplayer replayer(core_.scheduler.get(), core_.decoder->config(), call_);
    absl::StatusOr<StateReplay> replay =
        StateReplay::Run(replayer, saved_.state.sequence.tokens(), {split}, replayed_, saved_.pages);
    if (!replay.ok()) return replay.status();
    replay_ = *std::move(replay);
    absl::StatusOr<FidelityProbe> probe = FidelityProbe::Create(core_, saved_.state.sequence, call_);
    if (!probe.ok()) return probe.status();
    probe_.emplace(*std::move(probe));
    return absl::OkStatus();
  }

  // Encodes at a step; sets `kept` when that keeps to the budget.
  absl::Status Try(float step, v1::EncodeNodeResponse& response, std::optional<EncodedState>& kept) {
    if (absl::Status status = StillWanted(); !status.ok()) return status;
    absl::StatusOr<EncodedState> encoded =
        core_.archive->EncodeState(record_, saved_.state.sequence, *replay_, replayed_,
                                   {.profile = profile_, .step = step, .residual = request_.encoding().residual()});
    if (!encoded.ok()) return encoded.status();
    storage::v1::Fidelity& fidelity = *encoded->encoding.mutable_fidelity();
    if (absl::Status status = probe_->Measure(replayed_, fidelity); !status.ok()) return status;
    SetSizes(*encoded);
    v1::EncodingTrial* trial = response.add_trials();
    ToProto(encoded->encoding, v1::NODE_VIEW_FULL, trial->mutable_encoding());
    trial->set_within_budget(Keeps(fidelity, request_.budget()));
    ToProto(encoded->encode, trial->mutable_encode());
    if (trial->within_budget()) kept = *std::move(encoded);
    return absl::OkStatus();
  }

  absl::Status Commit(const std::string& id, std::optional<EncodedState> encoded, v1::EncodeNodeResponse& response) {
    if (!encoded) {
      Complete(record_, response);
      return absl::OkStatus();
    }
    // From here on the call may be answered or not, but the node is changed.
    if (absl::Status status = StillWanted(); !status.ok()) return status;
    ToProto(encoded->encoding, v1::NODE_VIEW_FULL, response.mutable_encoding());
    storage::EncodingChange change;
    change.blocks = std::move(encoded->blocks);
    change.add = {std::move(encoded->encoding)};
    change.remove_saved = request_.drop_saved();
    // Whatever else is changed meanwhile, the state that was encoded is the node's for good.
    change.etag = request_.etag();
    if (identity_) {
      change.request = {*identity_, [&](const storage::NodeRecord& record) {
                          Complete(record, response);
                          return response.SerializeAsString();
                        }};
    }
    const absl::StatusOr<storage::NodeRecord> record = core_.store->ChangeEncodings(Core::kTenant, id, change);
    if (!record.ok()) return record.status();
    if (!identity_) Complete(*record, response);
    return absl::OkStatus();
  }

  // Encoding runs without asking; the engine's jobs ask themselves.
  absl::Status StillWanted() const {
    if (call_.cancelled()) return absl::CancelledError("the caller cancelled the call");
    if (absl::Now() > call_.deadline) return absl::DeadlineExceededError("the call's deadline passed");
    return absl::OkStatus();
  }

  void Complete(const storage::NodeRecord& record, v1::EncodeNodeResponse& response) const {
    ToProto(record, core_, v1::NODE_VIEW_BASIC, response.mutable_node());
    ToProto(absl::Now() - start_, response.mutable_total());
  }

  Core& core_;
  const CallContext& call_;
  const v1::EncodeNodeRequest& request_;
  const std::optional<storage::RequestIdentity>& identity_;
  const absl::Time start_ = absl::Now();
  const LatentProfileEntry* profile_ = nullptr;
  storage::NodeRecord record_;
  ProvenState saved_;
  // Recomputed, and then as decoded at the step that was tried last.
  engine::Sequence replayed_;
  std::optional<StateReplay> replay_;
  std::optional<FidelityProbe> probe_;
};

storage::EncodingKey KeyOf(const v1::Encoding& encoding) {
  return {encoding.codec(), encoding.profile(), static_cast<uint32_t>(encoding.split()), encoding.step()};
}

absl::Status Drop(Core& core, const v1::DropEncodingRequest& request,
                  const std::optional<storage::RequestIdentity>& identity, v1::DropEncodingResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "nodes");
  if (!id.ok()) return id.status();
  storage::EncodingChange change{.etag = request.etag()};
  switch (request.what_case()) {
    case v1::DropEncodingRequest::kSaved:
      change.remove_saved = request.saved();
      break;
    case v1::DropEncodingRequest::kEncoding:
      change.remove = {KeyOf(request.encoding())};
      break;
    case v1::DropEncodingRequest::kResidualOf:
      change.remove_residuals = {KeyOf(request.residual_of())};
      break;
    default:
      break;
  }
  if (!change.remove_saved && change.remove.empty() && change.remove_residuals.empty()) {
    return absl::InvalidArgumentError("say what to drop: saved, encoding or residual_of");
  }
  const v1::Encoding& named = request.has_encoding() ? request.encoding() : request.residual_of();
  if (named.split() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("split is ", named.split(), "; it must be 0 or more"));
  }
  const auto answer = [&core](const storage::NodeRecord& record) {
    v1::DropEncodingResponse dropped;
    ToProto(record, core, v1::NODE_VIEW_BASIC, dropped.mutable_node());
    return dropped;
  };
  if (identity) {
    change.request = {*identity, [&](const storage::NodeRecord& record) { return answer(record).SerializeAsString(); }};
  }
  const absl::StatusOr<storage::NodeRecord> record = core.store->ChangeEncodings(Core::kTenant, *id, change);
  if (!record.ok()) return record.status();
  response = answer(*record);
  return absl::OkStatus();
}

}  // namespace

absl::Status EncodeNode(Core& core, const CallContext& call, const v1::EncodeNodeRequest& request,
                        v1::EncodeNodeResponse& response) {
  const auto encode = [&](const std::optional<storage::RequestIdentity>& identity) {
    return NodeEncoding(core, call, request, identity).Run(response);
  };
  return core.requests.RunOnNodes("EncodeNode", request.request_id(), request, &response, encode);
}

absl::Status DropEncoding(Core& core, const CallContext& call, const v1::DropEncodingRequest& request,
                          v1::DropEncodingResponse& response) {
  const auto drop = [&](const std::optional<storage::RequestIdentity>& identity) {
    return Drop(core, request, identity, response);
  };
  return core.requests.RunOnNodes("DropEncoding", request.request_id(), request, &response, drop);
}

}  // namespace quicksave::server
