// Evaluation hygiene: proof that a figure was measured on the state that was restored, and not on one that was still
// lying about. See docs/metrics.md, "Before a figure is believed".
//
//   FillWithPoison(pages);                                  // before the decoder writes to them
//   ... restore ...
//   if (CountPoison(pages) > 0) ...                         // values that the decoder did not write
//   absl::Status status = CheckNegativeControls({{"zeroed", 4.46}, {"another node's", 0.84}});

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_POISON_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_POISON_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quicksave::metrics {

// Fills with a NaN that no computation makes (its low bits say whose it is). What is computed from it is NaN, which all
// metrics refuse. The second form fills bf16 values, given as their bits.
void FillWithPoison(absl::Span<float> values);
void FillWithPoison(absl::Span<uint16_t> bfloat16_bits);

// How many values still are the poison, bit for bit; other NaNs do not count.
size_t CountPoison(absl::Span<const float> values);
size_t CountPoison(absl::Span<const uint16_t> bfloat16_bits);

// What a state that must fail measured: zeroed K and V, or those of another node.
struct NegativeControl {
  std::string name;
  double mean_kl = 0;  // nats, against the live state

  friend bool operator==(const NegativeControl&, const NegativeControl&) = default;
};

// Below it a control has not failed. Preliminary experiments (docs/metrics.md) had 0.84 nats for K and V of another
// node with related text, and 0.002 for those of the right node under another schedule of arithmetic.
inline constexpr double kLeastControlKl = 0.1;

// FAILED_PRECONDITION, with the first control's name and figure, if one is below `least_kl`: then the state under test
// does not reach the distribution that is measured, and no figure of the run means anything. The same if there is no
// control. INVALID_ARGUMENT for a figure that is no number.
absl::Status CheckNegativeControls(absl::Span<const NegativeControl> controls, double least_kl = kLeastControlKl);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_POISON_H_
