#include "server/engine/testing/recorded_family.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "server/engine/kernels/cpu_kernels.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

constexpr char kRecords[] = QUICKSAVE_SOURCE_DIR "/tests/reference/families";

// FNV-1a, 64 bits.
uint64_t NameSeed(const std::string& name) {
  uint64_t seed = 0xcbf29ce484222325;
  for (const unsigned char byte : name) seed = (seed ^ byte) * 0x100000001b3;
  return seed;
}

// The output function of SplitMix64 (Steele, Lea and Flood 2014).
uint64_t SplitMix(uint64_t state) {
  state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
  state = (state ^ (state >> 27)) * 0x94d049bb133111eb;
  return state ^ (state >> 31);
}

// What tensor_values of record_families.py computes.
TestTensor Tensor(const std::string& name, const Json& entry) {
  TestTensor tensor{.shape = entry["shape"].get<std::vector<int64_t>>()};
  const double mean = entry["mean"];
  const double deviation = entry["deviation"];
  uint64_t count = 1;
  for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
  for (uint64_t i = 1; i <= count; ++i) {
    const uint64_t random = SplitMix(NameSeed(name) + i * 0x9e3779b97f4a7c15);
    const double unit = static_cast<double>(random >> 40) * 0x1p-24;
    const uint16_t bits = cpu::Bf16Bits(static_cast<float>(mean + deviation * 1.75 * (2 * unit - 1)));
    tensor.data.push_back(static_cast<char>(bits & 0xff));
    tensor.data.push_back(static_cast<char>(bits >> 8));
  }
  return tensor;
}

}  // namespace

RecordedFamily::RecordedFamily(const std::string& name, const Json& changes) {
  std::ifstream file(std::string(kRecords) + "/" + name + ".json");
  record_ = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!record_.is_object()) std::abort();
  Json config = record_["config"];
  config.merge_patch(changes);
  folder_.Write("config.json", config.dump());
  std::map<std::string, TestTensor> weights;
  for (const auto& [tensor, entry] : record_["tensors"].items()) weights[tensor] = Tensor(tensor, entry);
  folder_.Write("model.safetensors", SafetensorsBytes(weights));
  WriteTinyText(folder_, vocab_size());
}

std::vector<std::string> RecordedFamily::Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kRecords)) names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace quicksave::engine
