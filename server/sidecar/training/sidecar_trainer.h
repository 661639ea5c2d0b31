#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_TRAINER_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_TRAINER_H_

// Trains a sidecar on a base profile's components.

#include <functional>
#include <istream>
#include <memory>
#include <ostream>
#include <vector>

#include "absl/status/status.h"
#include "compressor/learned/learned_profile.h"
#include "server/sidecar/training/training_options.h"
#include "server/sidecar/training/training_set.h"

namespace quicksave::server {

// Adam on the options' loss. Equal sets, options and number of threads give equal bytes on the same kind of CPU,
// interrupted or not. One thread at a time.
class SidecarTrainer {
 public:
  // Trains on one set and watches the loss on the other; both outlive it, and are of the same base.
  SidecarTrainer(const TrainingSet& train, const TrainingSet& watch, const TrainingOptions& options);
  ~SidecarTrainer();

  int64_t steps_done() const;
  int64_t steps_wanted() const;
  int64_t parameters() const;
  // All steps are done, or the loss on the watched set got no better for as long as the options allow.
  bool done() const;

  // One step, and an evaluation if it is time for one; not when it is done. FAILED_PRECONDITION when the loss is no
  // number any more: choose a lower learning rate.
  absl::Status Step();

  // The evaluations so far.
  const std::vector<TrainingRow>& history() const;

  // The parameters of the best evaluation as a profile of this base, without tables.
  compressor::LearnedProfile Best(compressor::LatentProfile base) const;

  // Writes all that the next step depends on, and reads it back, bit for bit, into a trainer of the same sets and
  // options. DATA_LOSS for a stream that is damaged or another trainer's; it should not be used after that.
  void Save(std::ostream& stream) const;
  absl::Status Load(std::istream& stream);

 private:
  struct State;

  absl::Status Evaluate();

  const TrainingSet& train_;
  const TrainingSet& watch_;
  const TrainingOptions options_;
  std::unique_ptr<State> state_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_TRAINER_H_
