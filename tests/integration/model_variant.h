// Model directories made of the tests' model: with another configuration, with weights stored in another way, broken.

#ifndef QUICKSAVE_TESTS_INTEGRATION_MODEL_VARIANT_H_
#define QUICKSAVE_TESTS_INTEGRATION_MODEL_VARIANT_H_

#include <cstdint>
#include <filesystem>
#include <string>

#include "nlohmann/json.hpp"

namespace quicksave::integration {

// Makes a directory that links to all files of the tests' model.
void LinkModel(const std::filesystem::path& directory);

// Puts `changes` into config.json (null removes a key), as a copy.
void ChangeConfig(const std::filesystem::path& directory, const nlohmann::json& changes);

// Stores the weights in two files with an index instead of one.
void SplitWeights(const std::filesystem::path& directory);

// Gives a model with a tied head one of its own: lm_head.weight, a copy of the embedding.
void UntieHead(const std::filesystem::path& directory);

// Keeps the first `bytes` of the weights.
void TruncateWeights(const std::filesystem::path& directory, uintmax_t bytes);

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_MODEL_VARIANT_H_
