#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MODEL_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MODEL_H_

// The sidecars of compressor/learned as Torch has them, to be differentiated. Included where Torch is.

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "compressor/learned/learned_profile.h"
#include "server/sidecar/training/training_options.h"

namespace quicksave::server {

// Some tokens of a training set: runs of consecutive ones for the architectures that look along time.
struct TrainingBatch {
  std::vector<at::Tensor> groups;  // for each group [tokens, components]
  at::Tensor positions;            // [tokens], where each stands in its text
  int64_t run_tokens = 1;          // tokens come in runs of so many
};

// A pass there and back.
struct SidecarPass {
  std::vector<at::Tensor> coded;     // before rounding, for each group [tokens, latent width]
  std::vector<at::Tensor> rounded;   // what the decoder was given
  std::vector<at::Tensor> restored;  // for each group [tokens, components]
};

// Parameters, and what is computed of them. One thread at a time.
class SidecarModel {
 public:
  // For a base with groups of so many components, of that root mean square: inputs are divided by a power of two near
  // it. Equal seeds give equal parameters.
  SidecarModel(const std::vector<int>& components, const std::vector<float>& magnitudes, const SidecarShape& shape,
               uint64_t seed);

  // Makes a group's networks linear, nearly: encoder and decoder by these directions [components, n], in units of
  // `step`, of which the first ones are taken, as many as fit. `deviations` [n] are those of the components along them.
  // Hidden units come in pairs, since GELU(x) - GELU(-x) = x; one that is constant and large keeps the layer norm from
  // scaling each token by another number.
  void StartFrom(size_t group, const at::Tensor& directions, const at::Tensor& deviations, double step);

  // All of them, leaves, in an order of their own.
  std::vector<at::Tensor> Parameters() const;
  int64_t CountParameters() const;

  // With a generator, rounding is relaxed: noise of a rounding's size, drawn from it, is added. Without, values are
  // rounded to integers.
  SidecarPass Pass(const TrainingBatch& batch, RateModel rate, const std::optional<at::Generator>& noise) const;

  // Bits of each group's coded values, estimated, summed over all tokens: scalars.
  std::vector<at::Tensor> Bits(const SidecarPass& pass, RateModel rate) const;

  // As a profile with this base, whose weights are rounded to bf16; deviations are those of the learned scales.
  compressor::LearnedProfile Export(compressor::LatentProfile base) const;

 private:
  struct Linear {
    at::Tensor weight;  // [inputs, outputs]
    at::Tensor bias;
  };
  struct Norm {
    at::Tensor gain;
    at::Tensor shift;
  };
  struct Network {
    Linear first;
    Norm norm;
    Linear second;
  };
  struct Attention {
    Norm norm;
    Linear query_key_value;
    Linear output;
  };

  Network NewNetwork(int64_t inputs, int64_t outputs, double spread);
  Attention NewAttention();
  std::vector<at::Tensor> Run(const std::vector<Network>& networks, const Attention& attention,
                              const std::vector<at::Tensor>& inputs, const TrainingBatch& batch) const;
  at::Tensor FirstInputs(const at::Tensor& x, const TrainingBatch& batch) const;
  void Attend(const Attention& attention, std::vector<at::Tensor>& hidden) const;
  void RunInTurn(size_t group, const at::Tensor& inputs, const TrainingBatch& batch, RateModel rate,
                 const std::optional<at::Generator>& noise, SidecarPass& pass) const;

  static at::Tensor Apply(const Linear& layer, const at::Tensor& x);
  static at::Tensor Normed(const Norm& norm, const at::Tensor& x);
  static at::Tensor Finish(const Network& network, const at::Tensor& hidden);

  const SidecarShape shape_;
  const std::vector<int> components_;
  std::vector<float> scales_;  // powers of two, for each group
  at::Generator random_;
  std::vector<Network> encoders_;
  std::vector<Network> decoders_;
  Attention encoder_attention_;
  Attention decoder_attention_;
  std::vector<at::Tensor> decay_;       // before tanh
  std::vector<at::Tensor> log_scales_;  // of the coded values' assumed distribution
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MODEL_H_
