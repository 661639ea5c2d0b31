#include "server/archive/restore_plan.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compressor/replay_codec.h"
#include "server/archive/block_coder.h"
#include "server/archive/restore_costs.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

bool Within(const storage::v1::Encoding& encoding, const RestorePreference& preference) {
  if (!encoding.has_fidelity()) return false;
  const storage::v1::Fidelity& fidelity = encoding.fidelity();
  return (!preference.max_kl || fidelity.mean_kl() <= *preference.max_kl) &&
         (!preference.min_top1 || fidelity.top1_agreement() >= *preference.min_top1);
}

// Completes a source with what its latents need. False when a profile is missing.
bool AddReplay(int layers, const LatentProfiles& profiles, RestoreSource& source) {
  std::set<int> splits;
  for (const storage::BlockRef* ref : source.blocks) {
    const std::optional<LatentKey> key = ParseLatentKey(ref->codec());
    if (!key) continue;
    if (key->kind == LatentKey::Kind::kReplay) {
      splits.insert(layers - 1);
    } else {
      const LatentProfileEntry* entry = profiles.Find(key->profile_id);
      if (entry == nullptr) return false;
      splits.insert(entry->profile->split);
    }
    source.replay_end = static_cast<int>(ref->first_token() + ref->token_count());
  }
  source.splits.assign(splits.begin(), splits.end());
  return true;
}

template <typename Refs>
RestoreSource SourceOf(const Refs& blocks, int tokens) {
  RestoreSource source;
  for (const storage::BlockRef& ref : blocks) {
    if (ref.first_token() >= static_cast<uint32_t>(tokens)) break;
    source.blocks.push_back(&ref);
    source.residuals.push_back(nullptr);
  }
  return source;
}

void AddResiduals(const storage::v1::Encoding& encoding, RestoreSource& source) {
  size_t next = 0;
  for (const storage::BlockRef& residual : encoding.residuals()) {
    while (next < source.blocks.size() && source.blocks[next]->first_token() != residual.first_token()) ++next;
    if (next == source.blocks.size()) return;
    source.residuals[next] = &residual;
  }
}

}  // namespace

absl::StatusOr<RestoreSource> ChooseSource(const storage::NodeRecord& record, int tokens, int layers,
                                           const RestorePreference& preference, const LatentProfiles& profiles,
                                           const RestoreCosts& costs) {
  std::vector<RestoreSource> exact;
  std::vector<RestoreSource> lossy;
  std::vector<std::string> missing;
  std::vector<std::string> refused;
  const auto consider = [&](RestoreSource source, bool allowed) {
    if (!AddReplay(layers, profiles, source)) {
      missing.push_back(source.encoding == nullptr ? "as saved" : source.encoding->profile_id());
      return;
    }
    source.estimate = costs.Estimate(source, tokens, source.layers_share(layers));
    if (!allowed) {
      refused.push_back(absl::StrCat(storage::EncodingName(storage::EncodingKeyOf(*source.encoding)), " with KL ",
                                     source.encoding->fidelity().mean_kl()));
      return;
    }
    (source.exact ? exact : lossy).push_back(std::move(source));
  };
  if (!record.no_saved_blocks()) consider(SourceOf(record.contents().blocks(), tokens), true);
  for (const storage::v1::Encoding& encoding : record.contents().encodings()) {
    if (encoding.residuals_size() > 0) {
      RestoreSource layered = SourceOf(encoding.blocks(), tokens);
      layered.encoding = &encoding;
      AddResiduals(encoding, layered);
      consider(std::move(layered), true);
    }
    RestoreSource latent = SourceOf(encoding.blocks(), tokens);
    latent.encoding = &encoding;
    if (encoding.codec() == compressor::kReplayCodec) {
      consider(std::move(latent), true);
      continue;
    }
    latent.exact = false;
    consider(std::move(latent), !preference.exact_only && (!preference.takes_lossy() || Within(encoding, preference)));
  }
  std::vector<RestoreSource>& all = exact;
  // Without bounds, lossy ones are for want of exact ones, the most faithful first.
  if (preference.takes_lossy()) {
    std::move(lossy.begin(), lossy.end(), std::back_inserter(all));
  } else if (exact.empty() && !lossy.empty()) {
    const auto best = std::min_element(lossy.begin(), lossy.end(), [](const RestoreSource& a, const RestoreSource& b) {
      return a.encoding->fidelity().mean_kl() < b.encoding->fidelity().mean_kl();
    });
    return std::move(*best);
  }
  if (all.empty()) {
    const std::string what = missing.empty()
                                 ? absl::StrCat("it has only ", absl::StrJoin(refused, ", "))
                                 : absl::StrCat("latent profiles are missing: ", absl::StrJoin(missing, ", "));
    return storage::WithReason("NO_SUITABLE_ENCODING",
                               absl::FailedPreconditionError(absl::StrCat(
                                   "nodes/", record.node_id(), " has no encoding that the request allows: ", what,
                                   "; allow a larger divergence, or go on from its token ids")));
  }
  return std::move(*std::min_element(
      all.begin(), all.end(), [](const RestoreSource& a, const RestoreSource& b) { return a.estimate < b.estimate; }));
}

}  // namespace quicksave::server
