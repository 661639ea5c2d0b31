#ifndef QUICKSAVE_SERVER_ENCODING_KEEPER_H_
#define QUICKSAVE_SERVER_ENCODING_KEEPER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/service/core.h"

namespace quicksave::server {

// Which nodes are encoded as latents by themselves, and how.
struct EncodingPolicy {
  // What stays of the bits that were saved.
  enum class Keep { kSaved, kResidual, kNothing };

  // Nodes that were saved so long ago; infinite: none.
  absl::Duration after = absl::InfiniteDuration();
  // Only while the store's blocks take more than this.
  uint64_t above_bytes = 0;
  int split = 0;
  // A point of the profile; empty: the coarsest setting that keeps to max_kl, or the point `default` without one.
  std::string point;
  // Nodes whose encoding diverges more are left as they are. Nats.
  std::optional<double> max_kl;
  Keep keep = Keep::kSaved;
};

// Nodes with this label and value are left as they are.
inline constexpr char kEncodeLabel[] = "quicksave.encode";
inline constexpr char kEncodeNever[] = "never";

// A thread that encodes old nodes by the policy, one at a time, the oldest first. Nodes that cannot be encoded, or find
// no memory for it several times, are passed over until the server starts anew. `core` must outlive it.
class EncodingKeeper {
 public:
  EncodingKeeper(Core* core, EncodingPolicy policy);
  ~EncodingKeeper();
  EncodingKeeper(const EncodingKeeper&) = delete;
  EncodingKeeper& operator=(const EncodingKeeper&) = delete;

 private:
  void Run();
  // Encodes what is due, until there is nothing more or it is to stop.
  void RunRound();
  // False when it is to be tried again later.
  bool Encode(const storage::NodeRecord& record);
  bool IsDue(const storage::NodeRecord& record) const;

  Core* const core_;
  const EncodingPolicy policy_;
  // Nodes that were saved before are done with.
  absl::Time done_before_ = absl::UnixEpoch();
  // Of the node that comes next.
  int attempts_ = 0;
  absl::Notification stopping_;
  std::thread thread_;  // none without a policy
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ENCODING_KEEPER_H_
