// Encodings of a saved state, how faithful they are, and what to ask for, as plain values.
//
// A node keeps its K and V as saved, bit for bit, and may have other encodings beside them or in their place. Each is
// made with a profile of its codec, and was measured when it was made:
//   client.EncodeNode({.name = node, .budget = {.max_kl = 0.005}});

#ifndef QUICKSAVE_ENCODING_H_
#define QUICKSAVE_ENCODING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace quicksave::client {

// How far a decoded state is from the saved one: the model goes over the state's last tokens with either, and its
// next-token distributions are compared.
struct Fidelity {
  // Tokens that were compared.
  int32_t probe_tokens = 0;
  // Mean Kullback-Leibler divergence of the decoded state's distributions from the saved one's, in nats.
  double mean_kl = 0;
  // The largest of them.
  double max_kl = 0;
  // Share of the tokens at which the most likely next token is the same, 0 to 1.
  double top1_agreement = 0;
  // Divergence of the distribution after the last token; a restore checks that it finds the same.
  double next_token_kl = 0;
  // Squared error of the keys and of the values over their squares, for each layer.
  std::vector<float> key_relative_mse;
  std::vector<float> value_relative_mse;
  // Cosine of the decoded and the saved keys and values, for each layer.
  std::vector<float> key_cosine;
  std::vector<float> value_cosine;
  // Time that the measurement took.
  absl::Duration cost;

  bool operator==(const Fidelity&) const = default;
};

// Another encoding of a node's K and V. Codec, profile, split and step together name it within its node.
struct Encoding {
  // Codec, `latent`.
  std::string codec;
  // Profile of the codec, by its id.
  std::string profile;
  // Layers that are recomputed from the token ids at restore, and not stored; neither is the next one.
  int32_t split = 0;
  // Step of the quantizer: the dial. Larger is coarser.
  float step = 0;
  // It has residuals: with them it gives the bits that were saved.
  bool has_residual = false;
  // Bytes of K and V as the engine holds them.
  int64_t raw_bytes = 0;
  // Stored bytes, without residuals.
  int64_t stored_bytes = 0;
  // Stored bytes of the residuals.
  int64_t residual_bytes = 0;
  // raw_bytes / stored_bytes.
  double ratio = 0;
  // What was measured of it, without its residuals. Lists of nodes have the divergences and the agreement only.
  std::optional<Fidelity> fidelity;

  bool operator==(const Encoding&) const = default;
};

// How to encode a state. The dial, how coarse it becomes, is `point` or `step`, not both; with neither it is the point
// `default` or, under a budget, the coarsest that is found to keep to it.
struct EncodingSpec {
  // Profile, by its id; empty takes the newest one with the split.
  std::string profile;
  // Layers to recompute at restore: more make it smaller, and the restore slower. Unset is 0, or the profile's.
  std::optional<int32_t> split;
  // A point of the profile: `fine`, `default` or `small`.
  std::string point;
  // Any step above 0.
  std::optional<float> step;
  // Also store the residual to the exact bits. Latent and residual together are smaller than the blocks as saved.
  bool residual = false;
  // `latent`, which empty means, or `replay`: the token ids alone, from which a restore computes everything again.
  std::string codec;

  bool operator==(const EncodingSpec&) const = default;
};

// What a lossy encoding must keep to; unset is no bound.
struct FidelityBudget {
  // Largest mean divergence of next-token distributions, in nats. About 0.002 is what bf16 in place of fp32 arithmetic
  // does.
  std::optional<double> max_kl;
  // Smallest share of tokens whose most likely next token is the same, 0 to 1.
  std::optional<double> min_top1;

  bool operator==(const FidelityBudget&) const = default;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_ENCODING_H_
