#include "client/cli/safetensors_file.h"

#include <bit>
#include <cstdint>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

static_assert(std::endian::native == std::endian::little, "the format is little endian");

namespace quicksave::cli {

absl::Status WriteSafetensors(const std::string& path, const client::HiddenStates& states, const std::string& source) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"source", source},
                            {"first_token", absl::StrCat(states.first_token)},
                            {"model_fingerprint", states.model_fingerprint}};
  const int64_t layer_bytes = int64_t{states.token_count} * states.hidden_size * static_cast<int64_t>(sizeof(float));
  int64_t offset = 0;
  for (const uint32_t layer : states.layers) {
    header[absl::StrCat("hidden_states.", layer)] = {{"dtype", "F32"},
                                                     {"shape", {states.token_count, states.hidden_size}},
                                                     {"data_offsets", {offset, offset + layer_bytes}}};
    offset += layer_bytes;
  }
  std::string text = header.dump();
  // Tensors begin at a multiple of 8.
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << text;
  file.write(reinterpret_cast<const char*>(states.values.data()),
             static_cast<std::streamsize>(states.values.size() * sizeof(float)));
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("'", path, "' could not be written; is the disk full, the folder there?"));
}

}  // namespace quicksave::cli
