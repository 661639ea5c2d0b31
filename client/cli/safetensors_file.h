// Writes arrays for other programs: https://github.com/huggingface/safetensors, "Format".

#ifndef QUICKSAVE_CLIENT_CLI_SAFETENSORS_FILE_H_
#define QUICKSAVE_CLIENT_CLI_SAFETENSORS_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

// Writes a file with a tensor `hidden_states.LAYER` of F32 [tokens, hidden_size] for each layer. Its metadata has
// `source` (what they are of), `first_token` and `model_fingerprint`. UNKNOWN, naming the file, when it cannot be
// written.
absl::Status WriteSafetensors(const std::string& path, const client::HiddenStates& states, const std::string& source);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_SAFETENSORS_FILE_H_
