#include "server/engine/model/device_check.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/kernels/cpu_device.h"
#include "server/engine/page_pool.h"

namespace quicksave::engine {
namespace {

// Tokens that fill several pages, the last of them in part.
constexpr int kTokens = 40;

struct Outcome {
  std::vector<float> logits;  // of all tokens
  std::vector<float>
      hidden_states;  // the residual stream after the last layer, which no rounding to bf16 has evened out
  DeviceBuffer<std::byte> pages;
};

Outcome Evaluate(Decoder& decoder) {
  const ModelConfig& config = decoder.config();
  std::vector<int32_t> tokens(std::min(kTokens, config.context_length));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(7919 * (i + 1) % config.vocab_size);
  const int page_count = PagesFor(static_cast<int>(tokens.size()));
  const size_t page_bytes = decoder.kv_shape().page_bytes();
  Outcome outcome{{},
                  std::vector<float>(tokens.size() * config.hidden_size),
                  DeviceBuffer<std::byte>(page_count * page_bytes, decoder.device().memory())};
  std::vector<std::byte*> pages;
  for (int i = 0; i < page_count; ++i) pages.push_back(outcome.pages.data() + i * page_bytes);
  std::vector<float*> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back(outcome.hidden_states.data() + i * config.hidden_size);
  const int after_last_layer[] = {config.layers + 1};
  const Slice slice{.tokens = tokens, .pages = pages, .logits = LogitsWanted::kAll, .taps = {after_last_layer, rows}};
  const absl::Span<const float> logits = decoder.Forward({&slice, 1});
  outcome.logits.assign(logits.begin(), logits.end());
  return outcome;
}

uint32_t BitsOf(float value) { return std::bit_cast<uint32_t>(value); }
uint16_t BitsOf(uint16_t value) { return value; }

// "3 of 10 things", for the elements whose bits are not the same; empty when there are none.
template <class Value>
std::string Different(const Value* a, const Value* b, size_t count, const char* things) {
  size_t different = 0;
  for (size_t i = 0; i < count; ++i) different += BitsOf(a[i]) == BitsOf(b[i]) ? 0 : 1;
  return different == 0 ? "" : absl::StrCat(different, " of ", count, " ", things);
}

}  // namespace

absl::Status CheckDevice(Decoder& decoder, ThreadPool* threads) {
  const std::string name = decoder.device().name();
  // Whatever the host can do with the device's memory, the CPU's kernels can. They go first, since the weights are in
  // the host's memory yet.
  std::unique_ptr<Device> device =
      decoder.ExchangeDevice(std::make_unique<CpuDevice>(threads, decoder.device().memory()));
  const Outcome on_cpu = Evaluate(decoder);
  decoder.ExchangeDevice(std::move(device));
  const Outcome here = Evaluate(decoder);
  std::vector<std::string> differences = {
      Different(reinterpret_cast<const uint16_t*>(here.pages.data()),
                reinterpret_cast<const uint16_t*>(on_cpu.pages.data()), here.pages.size() / sizeof(uint16_t),
                "keys and values"),
      Different(here.hidden_states.data(), on_cpu.hidden_states.data(), here.hidden_states.size(), "hidden states"),
      Different(here.logits.data(), on_cpu.logits.data(), here.logits.size(), "logits")};
  differences.erase(std::remove(differences.begin(), differences.end(), ""), differences.end());
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(name, " does not compute the bits that the CPU does: ", absl::StrJoin(differences, ", "),
                   " differ; start with --device cpu"));
}

}  // namespace quicksave::engine
