#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_DIFFERENCE_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_DIFFERENCE_H_

// How far a decoder's numbers are from the reference's.

#include <vector>

#include "absl/types/span.h"
#include "server/engine/sequence.h"

namespace quicksave::engine {

struct Difference {
  double rms = 0;
  double largest = 0;  // NaN when an element is
};

// Element by element. Spans of different lengths differ infinitely.
Difference Compare(absl::Span<const float> a, absl::Span<const float> b);

// Root of the mean square difference, over that of `b`.
double RelativeRms(absl::Span<const float> a, absl::Span<const float> b);

// K or V of one layer as the reference gives them: [tokens, kv_heads, head_dim].
std::vector<float> LayerOf(const Sequence& sequence, const KvShape& shape, int layer, bool values);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_DIFFERENCE_H_
