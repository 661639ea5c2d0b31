#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_FORMAT_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_FORMAT_H_

#include <string>

namespace quicksave::engine {

// How the engine holds the weights of products, the head among them, and what it rounds the inputs of products to. K
// and V are bf16 in all of them, the embedding is what the checkpoint has. docs/engine.md compares them.
enum class WeightFormat {
  kBf16,  // weights and inputs
  kInt8,  // weights of 8 bits with a scale for each 32, made from any checkpoint; inputs of 16 bits
  kFp32,  // weights of any checkpoint without loss; inputs are not rounded
};

// "bf16", "int8" or "fp32".
std::string WeightFormatName(WeightFormat format);

// Version of the arithmetic with this format: states of different versions are never mixed. Begins with the name of the
// format and changes with cpu::kNumericsVersion.
std::string NumericsVersion(WeightFormat format);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_FORMAT_H_
