#include "server/archive/rope_angles.h"

namespace quicksave::server {

RopeAngles::RopeAngles(const engine::ModelConfig& config) : head_dim_(config.head_dim) {
  for (const engine::RopeOptions& rope : config.ropes) {
    tables_.push_back(engine::RopeTable(rope, config.head_dim, config.context_length));
  }
  for (const engine::LayerOptions& layer : config.layer_options) rope_of_layer_.push_back(layer.rope);
}

std::vector<const float*> RopeAngles::From(int first_position) const {
  std::vector<const float*> angles;
  for (const int rope : rope_of_layer_) angles.push_back(tables_[rope].data() + first_position * head_dim_);
  return angles;
}

}  // namespace quicksave::server
