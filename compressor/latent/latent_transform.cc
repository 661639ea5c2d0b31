#include "compressor/latent/latent_transform.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quicksave::compressor {
namespace {

std::vector<int> AllOf(int count) {
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Nothing where no predictor needs them.
std::vector<FixedPointGroup> FixedFeatures(const LatentProfile& profile, const std::vector<float>& features,
                                           int columns) {
  const bool needed = std::any_of(profile.groups.begin(), profile.groups.end(),
                                  [](const LayerGroup& group) { return group.predictor.int8() != nullptr; });
  if (!needed) return {};
  return ToFixedPoint(AllOf(profile.features), features.data(), columns, kFinestExponent);
}

// Appends, once more, those components that have a second row.
void AddRefinements(const LayerGroup& group, int columns, SparseLatent& latent) {
  const size_t components = latent.used.size();
  const size_t refined =
      std::lower_bound(latent.used.begin(), latent.used.end(), group.refined()) - latent.used.begin();
  latent.values.resize(std::max(latent.values.size(), (components + refined) * columns));
  for (size_t i = 0; i < refined; ++i) latent.used.push_back(group.components() + latent.used[i]);
  std::transform(latent.values.begin(), latent.values.begin() + refined * columns,
                 latent.values.begin() + components * columns,
                 [](float value) { return value * (1.0f / Int8Matrix::kRefinement); });
}

}  // namespace

LatentTransform::LatentTransform(const LatentProfile& profile, const BlockShape& shape, const BlockContext& context)
    : profile_(profile),
      panels_(shape, context),
      prediction_columns_(context.hidden_states, profile.features, shape.tokens - panels_.tokens(), panels_.tokens()),
      features_(prediction_columns_.Features(profile, context.hidden_states)),
      fixed_features_(FixedFeatures(profile, features_, prediction_columns_.count())) {}

absl::Status LatentTransform::CheckContext(const LatentProfile& profile, const BlockShape& shape,
                                           const BlockContext& context) {
  if (!context.model_fingerprint.empty() && context.model_fingerprint != profile.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat("the latent profile is for model ", profile.model_fingerprint,
                                                      ", the block is of model ",
                                                      std::string(context.model_fingerprint)));
  }
  if (shape.layers != profile.layers || shape.kv_heads != profile.kv_heads || shape.head_dim != profile.head_dim) {
    return absl::FailedPreconditionError(absl::StrCat("the latent profile is for ", profile.layers, " layers x ",
                                                      profile.kv_heads, " heads x ", profile.head_dim, " dims, not ",
                                                      shape.DebugString()));
  }
  if (context.angles.size() != static_cast<size_t>(shape.layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the latent codec needs the angles of ", shape.layers, " layers, not ", context.angles.size()));
  }
  const size_t wanted = static_cast<size_t>(profile.features) * shape.tokens;
  const bool predicts = profile.features > 0 && context.known_tokens < shape.tokens;
  if (predicts && context.hidden_states.size() != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("the latent codec needs ", shape.tokens, " x ", profile.features,
                                                   " hidden states after layer ", profile.split, ", not ",
                                                   context.hidden_states.size()));
  }
  if (predicts && !std::all_of(context.hidden_states.begin(), context.hidden_states.end(),
                               [](float value) { return std::isfinite(value); })) {
    return absl::InvalidArgumentError("the latent codec predicts from finite hidden states only");
  }
  if (context.known_tokens < 0) return absl::InvalidArgumentError("known_tokens must not be negative");
  return absl::OkStatus();
}

std::vector<float> LatentTransform::Predict(const LayerGroup& group, std::vector<float> memory) const {
  const int channels = profile_.channels(group);
  const int count = prediction_columns_.count();
  // Where tokens share columns, the memory is for what each token gets of them.
  std::vector<float> predicted = count == columns() ? std::move(memory) : std::vector<float>();
  predicted.clear();
  predicted.reserve(static_cast<size_t>(channels) * count);
  for (int c = 0; c < channels; ++c) predicted.insert(predicted.end(), count, group.mean[c]);
  if (group.predictor.int8() != nullptr) {
    AddProduct(*group.predictor.int8(), fixed_features_, 1, predicted.data());
  } else if (!group.predictor.empty()) {
    AddProduct(*group.predictor.bf16(), AllOf(profile_.features), features_.data(), count, predicted.data());
  }
  if (count == columns()) return predicted;
  prediction_columns_.ForEachToken(predicted, memory);
  return memory;
}

std::vector<float> LatentTransform::Analyse(const LayerGroup& group, BlockView block,
                                            absl::Span<const float> predicted) const {
  const int channels = profile_.channels(group);
  std::vector<float> values = panels_.Read(block, group.first_layer, group.layers);
  for (int c = 0; c < channels; ++c) {
    float* row = values.data() + static_cast<size_t>(c) * columns();
    const float* guess = predicted.data() + static_cast<size_t>(c) * columns();
    const float scale = group.encode.empty() ? group.scale[c] : 1.0f;
    for (int t = 0; t < tokens(); ++t) row[t] = (row[t] - guess[t]) / scale;
    std::fill(row + tokens(), row + columns(), 0.0f);
  }
  if (group.encode.empty()) return values;
  std::vector<float> latent(static_cast<size_t>(group.components()) * columns());
  AddProduct(group.encode, AllOf(channels), values.data(), columns(), latent.data());
  return latent;
}

void LatentTransform::Synthesise(const LayerGroup& group, SparseLatent& latent, std::vector<float>& predicted,
                                 MutableBlockView block) const {
  std::vector<float>& values = predicted;
  if (!group.decode.empty()) {
    AddRefinements(group, columns(), latent);
    group.decode.AddProduct(latent.used, latent.values.data(), columns(), latent.unit, values.data());
  } else {
    for (size_t i = 0; i < latent.used.size(); ++i) {
      float* row = values.data() + static_cast<size_t>(latent.used[i]) * columns();
      const float* from = latent.values.data() + i * columns();
      const float scale = group.scale[latent.used[i]];
      for (int t = 0; t < tokens(); ++t) row[t] += scale * (from[t] * latent.unit);
    }
  }
  panels_.Write(values, group.first_layer, group.layers, block);
}

}  // namespace quicksave::compressor
