#include "compressor/latent/prediction_columns.h"

#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "compressor/latent/panel_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/prediction_columns.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// to[rows, places.size()] = from[rows, count], each row at `places`. A lookup in each vector of a row is several times
// as fast as gathering.
void SpreadImpl(const std::vector<float>& from, size_t count, absl::Span<const int32_t> places, float* to) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t lanes = hn::Lanes(d);
  for (const float* row = from.data(); row != from.data() + from.size(); row += count) {
    for (size_t t = 0; t < places.size(); t += lanes, to += lanes) {
      const auto place = hn::LoadU(di, places.data() + t);
      const auto index = hn::IndicesFromVec(d, hn::And(place, hn::Set(di, static_cast<int32_t>(lanes - 1))));
      auto values = hn::TableLookupLanes(hn::LoadU(d, row), index);
      for (size_t first = lanes; first < count; first += lanes) {
        const auto is_later = hn::RebindMask(d, hn::Gt(place, hn::Set(di, static_cast<int32_t>(first - 1))));
        values = hn::IfThenElse(is_later, hn::TableLookupLanes(hn::LoadU(d, row + first), index), values);
      }
      hn::StoreU(values, d, to);
    }
  }
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {

HWY_EXPORT(SpreadImpl);

PredictionColumns::PredictionColumns(absl::Span<const float> hidden_states, size_t width, int first, int tokens)
    : tokens_(tokens), count_(PaddedColumns(tokens)) {
  std::iota(tokens_.begin(), tokens_.end(), first);
  if (width == 0) return;
  std::map<std::string_view, int> columns;
  std::vector<int> distinct;
  std::vector<int32_t> of_token(count_);
  for (int t = 0; t < tokens; ++t) {
    const auto* const row = reinterpret_cast<const char*>(hidden_states.data() + tokens_[t] * width);
    const auto [column, is_new] = columns.emplace(std::string_view(row, width * sizeof(float)), distinct.size());
    if (is_new) distinct.push_back(tokens_[t]);
    of_token[t] = column->second;
  }
  const int needed = PaddedColumns(static_cast<int>(distinct.size()));
  if (needed == count_) return;
  tokens_ = std::move(distinct);
  of_token_ = std::move(of_token);
  count_ = needed;
}

std::vector<float> PredictionColumns::Features(const LatentProfile& profile,
                                               absl::Span<const float> hidden_states) const {
  const size_t width = profile.features;
  std::vector<float> features(width * count_);
  for (size_t c = 0; width > 0 && c < tokens_.size(); ++c) {
    const float* row = hidden_states.data() + tokens_[c] * width;
    for (size_t f = 0; f < width; ++f) {
      features[f * count_ + c] = (row[f] - profile.feature_mean[f]) * profile.feature_scale[f];
    }
  }
  return features;
}

void PredictionColumns::ForEachToken(const std::vector<float>& values, std::vector<float>& all) const {
  all.resize(values.size() / count_ * of_token_.size());
  HWY_DYNAMIC_DISPATCH(SpreadImpl)(values, count_, of_token_, all.data());
}

}  // namespace quicksave::compressor
#endif
