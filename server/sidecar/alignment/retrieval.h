#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_RETRIEVAL_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_RETRIEVAL_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/sidecar/metrics/state_distance.h"

namespace quicksave::server {

// How well rows are recognised among others.
struct Retrieval {
  int queries = 0;
  double candidates = 0;   // mean number of rows that a query's row was to be found among, itself included
  double top_1 = 0;        // share of the queries whose own row is the nearest
  double top_10 = 0;       // ... is among the ten nearest
  double chance = 0;       // top_1 of guessing
  double chance_10 = 0;    // top_10 of guessing
  double median_rank = 0;  // 1 is the nearest
};

// Looks for the row of `candidates` that belongs to each row of `queries`, by the cosine after the candidates' mean was
// subtracted from both. Row i of one belongs to row i of the other; the widths are equal. Cost: quadratic in the rows.
Retrieval Retrieve(const metrics::Rows& queries, const metrics::Rows& candidates);

// The same among the rows of the same label only, for labels of at least `least` rows: so that what all rows of a label
// have in common does not help.
Retrieval RetrieveWithinLabels(const metrics::Rows& queries, const metrics::Rows& candidates,
                               absl::Span<const int32_t> labels, int least);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_RETRIEVAL_H_
