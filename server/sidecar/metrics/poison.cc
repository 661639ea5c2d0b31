#include "server/sidecar/metrics/poison.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace quicksave::metrics {
namespace {

// Quiet NaNs, so that they pass through arithmetic; widening the bf16 one does not give the other.
constexpr uint32_t kPoison = 0x7fd5a55au;
constexpr uint16_t kBfloat16Poison = 0x7fd5;

bool IsPoison(float value) { return std::bit_cast<uint32_t>(value) == kPoison; }

}  // namespace

void FillWithPoison(absl::Span<float> values) {
  std::fill(values.begin(), values.end(), std::bit_cast<float>(kPoison));
}

void FillWithPoison(absl::Span<uint16_t> bfloat16_bits) {
  std::fill(bfloat16_bits.begin(), bfloat16_bits.end(), kBfloat16Poison);
}

size_t CountPoison(absl::Span<const float> values) {
  return static_cast<size_t>(std::count_if(values.begin(), values.end(), IsPoison));
}

size_t CountPoison(absl::Span<const uint16_t> bfloat16_bits) {
  return static_cast<size_t>(std::count(bfloat16_bits.begin(), bfloat16_bits.end(), kBfloat16Poison));
}

absl::Status CheckNegativeControls(absl::Span<const NegativeControl> controls, double least_kl) {
  if (controls.empty()) return absl::FailedPreconditionError("no negative control was run");
  for (const NegativeControl& control : controls) {
    if (!std::isfinite(control.mean_kl)) {
      return absl::InvalidArgumentError(absl::StrCat("the negative control '", control.name, "' has no figure"));
    }
    if (control.mean_kl >= least_kl) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "the negative control '", control.name, "' has KL ", control.mean_kl, ", but a wrong state must have at least ",
        least_kl, ": what is measured does not depend on the restored state"));
  }
  return absl::OkStatus();
}

}  // namespace quicksave::metrics
