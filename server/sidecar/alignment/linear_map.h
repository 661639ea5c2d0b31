#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LINEAR_MAP_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LINEAR_MAP_H_

#include <vector>

#include "server/sidecar/metrics/state_distance.h"

namespace quicksave::server {

// y = offset + W (x - mean), fitted by ridge regression (Hoerl and Kennard 1970).
class LinearMap {
 public:
  // Row i of `x` belongs to row i of `y`; at least one. `ridge` is the regularisation in units of the mean variance of
  // a column of x. Sums and the solution are in double.
  static LinearMap Fit(const metrics::Rows& x, const metrics::Rows& y, double ridge);

  int inputs() const { return static_cast<int>(mean_.size()); }
  int outputs() const { return static_cast<int>(offset_.size()); }
  // [rows of x, outputs()].
  std::vector<float> Apply(const metrics::Rows& x) const;

 private:
  std::vector<float> mean_;
  std::vector<float> offset_;
  std::vector<float> weights_;  // [inputs, outputs]
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LINEAR_MAP_H_
