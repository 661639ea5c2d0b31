#include "server/sidecar/alignment/retrieval.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <vector>

namespace quicksave::server {
namespace {

// Rows less `mean`, of length 1.
std::vector<float> Directions(const metrics::Rows& rows, const std::vector<double>& mean) {
  std::vector<float> directions(rows.values.size());
  for (size_t i = 0; i < rows.count(); ++i) {
    double square = 0;
    for (size_t k = 0; k < rows.width; ++k) {
      const double value = rows.values[i * rows.width + k] - mean[k];
      directions[i * rows.width + k] = static_cast<float>(value);
      square += value * value;
    }
    const auto scale = static_cast<float>(square > 0 ? 1 / std::sqrt(square) : 0);
    for (size_t k = 0; k < rows.width; ++k) directions[i * rows.width + k] *= scale;
  }
  return directions;
}

std::vector<double> MeanOf(const metrics::Rows& rows) {
  std::vector<double> mean(rows.width);
  for (size_t i = 0; i < rows.values.size(); ++i) mean[i % rows.width] += rows.values[i];
  for (double& value : mean) value /= static_cast<double>(std::max<size_t>(rows.count(), 1));
  return mean;
}

// The ranks of the queries `members` among the same candidates.
class Ranks {
 public:
  Ranks(const metrics::Rows& queries, const metrics::Rows& candidates)
      : width_(candidates.width),
        queries_(Directions(queries, MeanOf(candidates))),
        candidates_(Directions(candidates, MeanOf(candidates))) {}

  void Add(const std::vector<size_t>& members) {
    for (const size_t query : members) {
      const float own = Cosine(query, query);
      // Ties count against the query, so that rows that are all alike are not recognised.
      const auto nearer = std::count_if(members.begin(), members.end(),
                                        [&](size_t other) { return other != query && Cosine(query, other) >= own; });
      ranks_.push_back(static_cast<double>(nearer) + 1);
      among_ += static_cast<double>(members.size());
      chance_ += 1 / static_cast<double>(members.size());
      chance_10_ += std::min(1.0, 10 / static_cast<double>(members.size()));
    }
  }

  Retrieval Result() {
    Retrieval result{.queries = static_cast<int>(ranks_.size())};
    if (ranks_.empty()) return result;
    const auto count = static_cast<double>(ranks_.size());
    const auto share = [&](double most) {
      return static_cast<double>(std::count_if(ranks_.begin(), ranks_.end(), [&](double r) { return r <= most; })) /
             count;
    };
    result.candidates = among_ / count;
    result.chance = chance_ / count;
    result.chance_10 = chance_10_ / count;
    result.top_1 = share(1);
    result.top_10 = share(10);
    std::nth_element(ranks_.begin(), ranks_.begin() + ranks_.size() / 2, ranks_.end());
    result.median_rank = ranks_[ranks_.size() / 2];
    return result;
  }

 private:
  float Cosine(size_t query, size_t candidate) const {
    const float* q = queries_.data() + query * width_;
    const float* c = candidates_.data() + candidate * width_;
    // Sums of their own, which can be added at the same time.
    float sums[16] = {};
    size_t i = 0;
    for (; i + 16 <= width_; i += 16) {
      for (size_t k = 0; k < 16; ++k) sums[k] += q[i + k] * c[i + k];
    }
    for (; i < width_; ++i) sums[0] += q[i] * c[i];
    return std::accumulate(std::begin(sums), std::end(sums), 0.0F);
  }

  const size_t width_;
  const std::vector<float> queries_;
  const std::vector<float> candidates_;
  std::vector<double> ranks_;
  double among_ = 0;
  double chance_ = 0;
  double chance_10_ = 0;
};

}  // namespace

Retrieval Retrieve(const metrics::Rows& queries, const metrics::Rows& candidates) {
  Ranks ranks(queries, candidates);
  std::vector<size_t> all(candidates.count());
  std::iota(all.begin(), all.end(), 0);
  ranks.Add(all);
  return ranks.Result();
}

Retrieval RetrieveWithinLabels(const metrics::Rows& queries, const metrics::Rows& candidates,
                               absl::Span<const int32_t> labels, int least) {
  std::map<int32_t, std::vector<size_t>> members;
  for (size_t i = 0; i < labels.size(); ++i) members[labels[i]].push_back(i);
  Ranks ranks(queries, candidates);
  for (const auto& [label, rows] : members) {
    if (rows.size() >= static_cast<size_t>(least)) ranks.Add(rows);
  }
  return ranks.Result();
}

}  // namespace quicksave::server
