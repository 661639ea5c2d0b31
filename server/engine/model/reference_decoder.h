#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_REFERENCE_DECODER_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_REFERENCE_DECODER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/model/model_config.h"

namespace quicksave::engine {

// The models of ModelConfig written down in ordinary fp32 tensor operations of ATen, following the definitions in
// Hugging Face transformers: slow and plain, with no pages and no batch. The oracle of the engine's tests, and what
// calibration differentiates; not part of the server. It shares with the engine only the reading of config.json and of
// the weight files.
//
// Holds all weights as fp32. Immutable, so thread-safe.
class ReferenceDecoder {
 public:
  // Errors are those of LoadModelConfig and of SafetensorsModel. Weights may be bf16, fp16 or fp32.
  static absl::StatusOr<std::unique_ptr<ReferenceDecoder>> Load(const std::string& model_dir);
  ~ReferenceDecoder();

  const ModelConfig& config() const { return config_; }

  // What the model computes for a whole text.
  struct Output {
    std::vector<float> logits;  // [tokens, vocabulary]
    // One entry a layer: [tokens, kv_heads, head_dim], the keys after RoPE.
    std::vector<std::vector<float>> keys;
    std::vector<std::vector<float>> values;
    // Layers + 2 entries [tokens, hidden_size]: the embeddings, the residual stream after each layer but the last, what
    // follows the final norm (so far as transformers has it), and the residual stream after the last layer.
    std::vector<std::vector<float>> hidden_states;
  };

  // Logits, keys and values of all tokens, from position 0 on. Tokens are ids of the vocabulary, at least one and at
  // most context_length. Time and memory grow with the square of their number.
  Output Run(absl::Span<const int32_t> tokens) const;

  // Logits of a text, from position 0 on, of which one of Run's hidden states is known: [tokens, hidden_size], `layer`
  // its index there. Only what follows it is computed, so that a hidden state is used and not only looked at.
  std::vector<float> LogitsFrom(int layer, absl::Span<const float> hidden_states) const;

  // A prefix's keys before RoPE, and values: [tokens, layers, 2 (key, value), kv_heads, head_dim].
  struct Past {
    int tokens = 0;
    std::vector<float> key_values;
  };
  // A draw of a label for each token, and what the labels' negative log-likelihood, summed, has as gradient.
  struct LabelSample {
    std::vector<int32_t> labels;
    std::vector<float> gradients;  // in the shape of Past::key_values
  };
  // How a text's likelihood depends on the K and V of what came before it: `samples` draws of labels for `tokens`,
  // which follow `past`. Labels are drawn from the model's own distribution at each token, so that the gradients'
  // second moment is the Fisher information (Martens 2020, arXiv:1412.1193). The past's K and V of different layers
  // vary independently, as they do when they are restored. Equal seeds give equal labels.
  std::vector<LabelSample> LabelGradients(const Past& past, absl::Span<const int32_t> tokens, int samples,
                                          uint64_t seed) const;
  // Logits [tokens, vocabulary] of tokens that follow a past.
  std::vector<float> LogitsAfter(const Past& past, absl::Span<const int32_t> tokens) const;

  // Run's logits.
  std::vector<float> Logits(absl::Span<const int32_t> tokens) const { return Run(tokens).logits; }

 private:
  struct Weights;
  struct Pass;

  // The pass that begins with a past; its K and V are leaves of their own, with gradients where these are wanted.
  Pass PassAfter(const Past& past, bool gradients) const;
  // Runs the layers over `tokens`; `pass` says what came before them, and gets what was computed.
  void Forward(absl::Span<const int32_t> tokens, Pass& pass) const;
  // The same from layer `first` on; `pass` has the residual stream before it.
  void ForwardFrom(size_t first, Pass& pass) const;
  // Sets the pass's logits, by what follows its final norm.
  void ApplyHead(Pass& pass) const;

  ReferenceDecoder(ModelConfig config, std::unique_ptr<Weights> weights);

  const ModelConfig config_;
  const std::unique_ptr<Weights> weights_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_REFERENCE_DECODER_H_
