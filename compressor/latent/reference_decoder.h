// Decoders of `latent` and `latent-residual` written from docs/formats/latent_*.md alone, for tests: slow, and they
// share no code with those that are tested.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_REFERENCE_DECODER_H_
#define QUICKSAVE_COMPRESSOR_LATENT_REFERENCE_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace quicksave::compressor {

// What a decoder is given beside the container.
struct ReferenceContext {
  std::string profile;
  // The block, right where nothing is stored; for the residual its base.
  std::vector<uint16_t> values;
  int known = 0;
  // For each layer [tokens][2][head_dim / 2].
  std::vector<std::vector<float>> angles;
  // [tokens][features].
  std::vector<float> hidden;
};

// The decoded block; throw std::exception for containers that are not valid.
std::vector<uint16_t> ReferenceDecodeLatent(const std::string& container, const ReferenceContext& context);
std::vector<uint16_t> ReferenceDecodeResidual(const std::string& container, const ReferenceContext& context);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_REFERENCE_DECODER_H_
