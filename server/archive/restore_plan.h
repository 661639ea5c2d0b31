#ifndef QUICKSAVE_SERVER_ARCHIVE_RESTORE_PLAN_H_
#define QUICKSAVE_SERVER_ARCHIVE_RESTORE_PLAN_H_

// Which of a node's encodings a restore reads.

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/archive/latent_profiles.h"
#include "storage/store.h"

namespace quicksave::server {

class RestoreCosts;

// What a caller takes. Without bounds only a node that has no exact encoding left is restored from a lossy one.
struct RestorePreference {
  bool exact_only = false;
  // Lossy encodings whose measured mean divergence (nats) and top-1 agreement are within these bounds will do, if they
  // are faster.
  std::optional<double> max_kl;
  std::optional<double> min_top1;

  bool takes_lossy() const { return !exact_only && (max_kl || min_top1); }
};

// One way to get the bits of a state, or nearly those.
struct RestoreSource {
  std::vector<const storage::BlockRef*> blocks;  // of the node's record
  // For each block, null where it has none.
  std::vector<const storage::BlockRef*> residuals;
  const storage::v1::Encoding* encoding = nullptr;  // null: as saved
  bool exact = true;                                // gives the bits that were saved
  // The splits of its latents, ascending, and the end of the last latent's tokens; 0 when there are none.
  std::vector<int> splits;
  int replay_end = 0;
  absl::Duration estimate;

  // Of a model's work on a token, what recomputing takes: the last layer only makes K and V.
  double layers_share(int layers) const { return splits.empty() ? 0 : (splits.back() + 0.2) / layers; }
};

// The fastest source of the first `tokens` tokens that the preference allows. The record is consistent, has its
// contents and outlives the result. FAILED_PRECONDITION when there is none, saying what there is, or when a profile is
// missing.
absl::StatusOr<RestoreSource> ChooseSource(const storage::NodeRecord& record, int tokens, int layers,
                                           const RestorePreference& preference, const LatentProfiles& profiles,
                                           const RestoreCosts& costs);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_RESTORE_PLAN_H_
