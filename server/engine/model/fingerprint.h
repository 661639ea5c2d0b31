#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_FINGERPRINT_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_FINGERPRINT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::engine {

// Identifies a model whose states may be exchanged: the first 32 hexadecimal digits of SHA-256 over the numerics
// version and name, size and bytes of config.json, tokenizer.json and the weight files in the order of their names.
// Reads all of the weights (about a second for each gigabyte). NOT_FOUND, naming the file, when one is missing;
// UNAVAILABLE when it cannot be read; the errors of ListWeightFiles.
absl::StatusOr<std::string> ModelFingerprint(const std::string& model_dir, absl::string_view numerics_version);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_FINGERPRINT_H_
