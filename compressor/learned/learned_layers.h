// The layers of learned sidecars, on panels [rows, columns] whose columns are a block's tokens, padded.
//
// Results have the same bits on every machine: products are PanelProduct's, everything else is IEEE arithmetic in the
// order of the source, without the mathematical library. The columns beyond the tokens hold anything.

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_LAYERS_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_LAYERS_H_

#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/panel_product.h"

namespace quicksave::compressor {

// y = weight^T x + bias.
struct LinearLayer {
  Bf16Matrix weight;        // [inputs, outputs]
  std::vector<float> bias;  // [outputs]

  int inputs() const { return weight.inputs; }
  int outputs() const { return weight.outputs; }
};

// Over the rows of each column: mean 0 and variance 1, then times gain, plus shift.
struct NormLayer {
  std::vector<float> gain;
  std::vector<float> shift;
};

// Self-attention between some vectors of one token: x + output(attend(queries, keys and values of norm(x))).
struct AttentionLayer {
  int heads = 0;  // divides the width
  NormLayer norm;
  LinearLayer query_key_value;  // [width, 3 * width]
  LinearLayer output;           // [width, width]
};

// e^x, to about 2e-7 of it; below -87 and above 88 as at these.
float Exponential(float x);

// [outputs, columns] of x [inputs, columns]; where x has fewer rows than the layer inputs, the others are 0.
std::vector<float> ApplyLinear(const LinearLayer& layer, const std::vector<float>& x, int columns);

// GELU in its form with tanh (Hendrycks and Gimpel 2016, arXiv:1606.08415).
void ApplyGelu(absl::Span<float> x);

// The variance is of all rows, with 1e-5 added to it.
void ApplyNorm(const NormLayer& layer, int columns, std::vector<float>& x);

// x [rows, columns] of each token, of the one before it and of the one after it: [3, rows, columns]; zeros before the
// first and after the last of `tokens`. What makes a linear layer a convolution over time with kernel 3.
std::vector<float> WithNeighbours(const std::vector<float>& x, int tokens, int columns);

// Every panel of x is one vector of each token, [width, columns]; each is replaced.
void ApplyAttention(const AttentionLayer& layer, int columns, std::vector<std::vector<float>>& x);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_LAYERS_H_
