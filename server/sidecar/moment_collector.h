#ifndef QUICKSAVE_SERVER_SIDECAR_MOMENT_COLLECTOR_H_
#define QUICKSAVE_SERVER_SIDECAR_MOMENT_COLLECTOR_H_

// Runs a model over texts and gives what it sees to profile fitters: the states, then gradients.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/model/reference_decoder.h"
#include "server/sidecar/calibration_work.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/model_runner.h"
#include "server/sidecar/profile_fitter.h"

namespace quicksave::server {

struct GradientOptions {
  // Tokens before and after the point from which gradients are taken.
  int context = 512;
  int labels = 128;
  int pieces = 48;
  int samples = 2;  // draws of labels for each piece
  uint64_t seed = 1;
};

// Goes over pieces one by one, so that it can stop and go on between them. One thread at a time.
class MomentCollector {
 public:
  // One fitter for each split; all outlive the collector.
  MomentCollector(ModelRunner& runner, std::vector<const TextPiece*> pieces, GradientOptions gradients,
                  std::vector<ProfileFitter*> fitters);

  int states_done() const { return states_done_; }
  int gradients_done() const { return gradients_done_; }
  int states_wanted() const { return static_cast<int>(pieces_.size()); }
  int gradients_wanted() const { return std::min(gradients_.pieces, states_wanted()); }
  bool done() const { return states_done_ == states_wanted() && gradients_done_ == gradients_wanted(); }

  // Adds the next piece's states, or when all have them the next piece's gradients; not when it is done.
  absl::Status AddNext();

  // Writes how far it is and the fitters' moments; reads them back, bit for bit. DATA_LOSS for anything else.
  void Save(std::ostream& stream) const;
  absl::Status Load(std::istream& stream);

 private:
  absl::Status AddStates(const TextPiece& piece);
  absl::Status AddGradients(const TextPiece& piece, uint64_t seed);
  // All channels of all tokens, token by token.
  engine::ReferenceDecoder::Past PastOf(const RunText& text) const;

  ModelRunner& runner_;
  const std::vector<const TextPiece*> pieces_;
  const GradientOptions gradients_;
  const std::vector<ProfileFitter*> fitters_;
  std::vector<int> splits_;
  std::unique_ptr<engine::ReferenceDecoder> reference_;  // loaded when gradients are needed
  int states_done_ = 0;
  int gradients_done_ = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_MOMENT_COLLECTOR_H_
