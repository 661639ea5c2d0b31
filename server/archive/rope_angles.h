#ifndef QUICKSAVE_SERVER_ARCHIVE_ROPE_ANGLES_H_
#define QUICKSAVE_SERVER_ARCHIVE_ROPE_ANGLES_H_

#include <cstddef>
#include <vector>

#include "server/engine/model/model_config.h"

namespace quicksave::server {

// RoPE's angles of all layers and positions of a model, as codecs want them. Immutable.
class RopeAngles {
 public:
  explicit RopeAngles(const engine::ModelConfig& config);

  // For each layer its cosines and sines [positions][2][head_dim / 2] from `first_position` on; valid as long as this.
  std::vector<const float*> From(int first_position) const;

 private:
  const size_t head_dim_;
  std::vector<int> rope_of_layer_;
  std::vector<std::vector<float>> tables_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_ROPE_ANGLES_H_
