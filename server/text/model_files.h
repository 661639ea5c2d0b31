// Reading the small text files of a model directory.
#ifndef QUICKSAVE_SERVER_TEXT_MODEL_FILES_H_
#define QUICKSAVE_SERVER_TEXT_MODEL_FILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace quicksave::text {

// The bytes of `model_dir`/`name`. NOT_FOUND when there is no such file, UNAVAILABLE when it cannot be read.
absl::StatusOr<std::string> ReadModelFile(const std::string& model_dir, const std::string& name);

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_MODEL_FILES_H_
