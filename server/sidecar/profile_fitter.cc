#include "server/sidecar/profile_fitter.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "compressor/block.h"

namespace quicksave::server {
namespace {

using compressor::Bf16Matrix;
using compressor::Int8Matrix;
using compressor::LayerGroup;

at::Tensor View(const float* data, int64_t rows, int64_t columns) {
  // from_blob takes a mutable pointer, but the tensor is only read.
  return at::from_blob(const_cast<float*>(data), {rows, columns}, at::kFloat);
}

std::vector<float> ToVector(const at::Tensor& x) {
  const at::Tensor flat = x.to(at::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

// A symmetric positive matrix F in double, F^(1/2) and F^(-1/2). Directions in which it is zero count a little.
struct Metric {
  explicit Metric(const at::Tensor& f) {
    const auto [values, vectors] = at::linalg_eigh(f);
    largest = values.max().item<double>();
    const at::Tensor floored = values.maximum(values.max().mul(1e-9));
    const at::Tensor roots = floored.sqrt();
    matrix = vectors.mul(floored).matmul(vectors.t());
    root = vectors.mul(roots).matmul(vectors.t());
    inverse_root = vectors.div(roots).matmul(vectors.t());
  }
  // Else it is no metric.
  bool IsPositive() const { return largest > 0 && std::isfinite(largest); }

  double largest;
  at::Tensor matrix;
  at::Tensor root;
  at::Tensor inverse_root;
};

// Components that have a second row. They have more than nine tenths of the variance.
constexpr int kRefined = 64;

// Rows [inputs, outputs] in bytes, the first `refined` of them in two, so rounded that an error matters little in the
// metric: what rounding an output leaves is made up for by the outputs after it, as in GPTQ (Frantar et al. 2022,
// arXiv:2210.17323).
Int8Matrix RoundedInMetric(const at::Tensor& rows, const Metric& metric, int refined) {
  const int inputs = static_cast<int>(rows.size(0));
  const int outputs = static_cast<int>(rows.size(1));
  const at::Tensor factor = at::linalg_cholesky(metric.inverse_root.matmul(metric.inverse_root), /*upper=*/true);
  const std::vector<float> scales = Int8Matrix::Nearest(inputs, outputs, ToVector(rows)).scales();
  at::Tensor parts = at::ones({inputs}, at::kDouble);  // of an integer
  parts.narrow(0, 0, refined).fill_(Int8Matrix::kRefinement);
  const at::Tensor largest = parts.mul(Int8Matrix::kLargest);
  // Output by output is row by row here.
  const at::Tensor rest = rows.to(at::kDouble).t().clone(at::MemoryFormat::Contiguous);
  at::Tensor rounded = at::empty_like(rest);
  for (int64_t o = 0; o < outputs; ++o) {
    const double scale = scales[o];
    rounded[o].copy_(rest[o].div(scale).mul(parts).round().clamp(largest.neg(), largest).div(parts));
    const at::Tensor error = rest[o].sub(rounded[o], scale).div(factor[o][o]);
    const int64_t after = outputs - o - 1;
    if (after > 0) rest.narrow(0, o + 1, after).addr_(factor[o].narrow(0, o + 1, after), error, 1, -1);
  }
  const at::Tensor integers = rounded.round();
  const at::Tensor second = rounded.sub(integers).mul(Int8Matrix::kRefinement).narrow(1, 0, refined);
  const at::Tensor bytes = at::cat({integers, second}, 1).t().to(at::kChar).contiguous();
  return {inputs + refined, outputs,
          absl::MakeConstSpan(bytes.const_data_ptr<int8_t>(), static_cast<size_t>(bytes.numel())), scales};
}

// What such a matrix stands for, in double.
at::Tensor ValuesOf(const Int8Matrix& matrix) {
  const std::vector<int8_t> integers = matrix.RowMajor();
  const std::vector<float>& scales = matrix.scales();
  at::Tensor rows = at::empty({matrix.inputs(), matrix.outputs()}, at::kDouble);
  auto* to = rows.mutable_data_ptr<double>();
  for (size_t i = 0; i < integers.size(); ++i) to[i] = static_cast<double>(scales[i % scales.size()]) * integers[i];
  return rows;
}

// [inputs, outputs].
Bf16Matrix ToBf16(const at::Tensor& x) {
  const std::vector<float> values = ToVector(x);
  Bf16Matrix matrix{.inputs = static_cast<int>(x.size(0)), .outputs = static_cast<int>(x.size(1))};
  matrix.values.resize(values.size());
  std::transform(values.begin(), values.end(), matrix.values.begin(), compressor::NarrowToBf16);
  return matrix;
}

// Writes the values of contiguous tensors with a digest of each, and reads them into tensors of the same size.
void Save(std::ostream& stream, const at::Tensor& x) {
  const std::string_view bytes(static_cast<const char*>(x.const_data_ptr()), x.nbytes());
  stream << bytes << compressor::ComputeDigest(bytes).ToBytes();
}
bool Load(std::istream& stream, const at::Tensor& x) {
  auto* data = static_cast<char*>(x.mutable_data_ptr());
  std::string digest(compressor::Digest128().ToBytes().size(), '\0');
  stream.read(data, static_cast<std::streamsize>(x.nbytes()));
  stream.read(digest.data(), static_cast<std::streamsize>(digest.size()));
  return stream.good() && compressor::ComputeDigest({data, x.nbytes()}).ToBytes() == digest;
}

// The metric in which each channel has a variance of 1.
at::Tensor InverseDiagonal(const at::Tensor& covariance) {
  const at::Tensor variances = covariance.diagonal();
  return at::diag_embed(variances.maximum(variances.max().mul(1e-9)).reciprocal());
}

// The latents whose decoded channels are nearest in the metric: channels -> components, so that what rounding did to
// `decode` [components, channels] costs nothing but what it does to the latents' own rounding.
at::Tensor BestEncoder(const at::Tensor& decode, const at::Tensor& metric) {
  const at::Tensor weighted = metric.matmul(decode.t());
  // The identity, but for what was rounded.
  const at::Tensor gram = decode.matmul(weighted);
  const at::Tensor steadied = gram.add(at::eye(gram.size(0), at::kDouble).mul(1e-6));
  return at::linalg_solve(steadied, weighted.t()).t();
}

// Components are the channels, in steps by the metric's diagonal.
void SetScales(const at::Tensor& metric, const at::Tensor& covariance, LayerGroup& group) {
  const at::Tensor root = metric.diagonal().maximum(metric.diagonal().max().mul(1e-9)).sqrt();
  group.scale = ToVector(root.reciprocal());
  group.sigma = ToVector(covariance.diagonal().clamp_min(1e-12).sqrt().mul(root));
}

}  // namespace

struct ProfileFitter::Moments {
  struct Group {
    at::Tensor offset;     // [channels, 1], about the mean: keeps the sums exact
    at::Tensor sum;        // of channels - offset, [channels]
    at::Tensor products;   // of those, [channels, channels]
    at::Tensor cross;      // with the features, [features, channels]
    at::Tensor gradients;  // products of gradients, [channels, channels]
  };
  // All of them, in an order of their own.
  std::vector<at::Tensor> Tensors() const;

  double states() const { return counts.const_data_ptr<double>()[0]; }
  double scored() const { return counts.const_data_ptr<double>()[1]; }

  std::vector<Group> groups;
  at::Tensor feature_sum;       // [features]
  at::Tensor feature_products;  // [features, features]
  at::Tensor counts;            // tokens with states, scored labels
  // The features' standardisation, [1, features].
  at::Tensor feature_mean;
  at::Tensor feature_scale;
};

ProfileFitter::ProfileFitter(compressor::LatentProfile model, int features, const FitOptions& options)
    : options_(options), profile_(std::move(model)), moments_(std::make_unique<Moments>()) {
  profile_.split = options.split;
  profile_.features = features;
  profile_.groups.clear();
  moments_->feature_sum = at::zeros({features}, at::kDouble);
  moments_->feature_products = at::zeros({features, features}, at::kFloat);
  moments_->counts = at::zeros({2}, at::kDouble);
  moments_->feature_mean = at::zeros({1, features}, at::kFloat);
  moments_->feature_scale = at::zeros({1, features}, at::kFloat);
  // Groups of nearly equal size.
  const int stored = profile_.layers - profile_.first_layer();
  const int size = std::max(options.layers_per_group, 1);
  const int count = (stored + size - 1) / size;
  for (int i = 0; i < count; ++i) {
    const int begin = stored * i / count;
    const LayerGroup group{.first_layer = profile_.first_layer() + begin, .layers = stored * (i + 1) / count - begin};
    const int channels = profile_.channels(group);
    moments_->groups.push_back({.offset = at::zeros({channels, 1}, at::kFloat),
                                .sum = at::zeros({channels}, at::kDouble),
                                .products = at::zeros({channels, channels}, at::kFloat),
                                .cross = at::zeros({features, channels}, at::kFloat),
                                .gradients = at::zeros({channels, channels}, at::kFloat)});
    profile_.groups.push_back(group);
  }
}

ProfileFitter::~ProfileFitter() = default;

void ProfileFitter::AddStates(const std::vector<float>& channels, absl::Span<const float> hidden_states, int columns) {
  Moments& moments = *moments_;
  const at::Tensor hidden = View(hidden_states.data(), columns, profile_.features);
  const bool first = moments.states() == 0;
  if (first) {
    moments.feature_mean.copy_(hidden.mean(0, /*keepdim=*/true));
    moments.feature_scale.copy_(hidden.std(0, /*unbiased=*/false, /*keepdim=*/true).clamp_min(1e-6).reciprocal());
  }
  const at::Tensor features = hidden.sub(moments.feature_mean).mul(moments.feature_scale);
  moments.feature_sum.add_(features.sum(0, /*keepdim=*/false, at::kDouble));
  moments.feature_products.addmm_(features.t(), features);
  const size_t layer_channels = 2 * profile_.kv_width();
  for (size_t g = 0; g < profile_.groups.size(); ++g) {
    const LayerGroup& group = profile_.groups[g];
    Moments::Group& sums = moments.groups[g];
    const at::Tensor values =
        View(channels.data() + group.first_layer * layer_channels * columns, profile_.channels(group), columns);
    if (first) sums.offset.copy_(values.mean(1, /*keepdim=*/true));
    const at::Tensor centred = values.sub(sums.offset);
    sums.sum.add_(centred.sum(1, /*keepdim=*/false, at::kDouble));
    sums.products.addmm_(centred, centred.t());
    sums.cross.addmm_(features.t(), centred.t());
  }
  moments.counts.select(0, 0).add_(columns);
}

void ProfileFitter::AddGradients(absl::Span<const float> gradients, int tokens, int scored) {
  const int64_t width = static_cast<int64_t>(2 * profile_.kv_width()) * profile_.layers;
  const at::Tensor all = View(gradients.data(), tokens, width);
  for (size_t g = 0; g < profile_.groups.size(); ++g) {
    const LayerGroup& group = profile_.groups[g];
    const int64_t first = static_cast<int64_t>(2 * profile_.kv_width()) * group.first_layer;
    // A copy, in memory that is aligned alike in every run: else the sums' last bits may differ.
    const at::Tensor part = all.slice(1, first, first + profile_.channels(group)).clone(at::MemoryFormat::Contiguous);
    moments_->groups[g].gradients.addmm_(part.t(), part);
  }
  moments_->counts.select(0, 1).add_(scored);
}

std::vector<at::Tensor> ProfileFitter::Moments::Tensors() const {
  std::vector<at::Tensor> all = {feature_sum, feature_products, counts, feature_mean, feature_scale};
  for (const Group& group : groups) {
    all.insert(all.end(), {group.offset, group.sum, group.products, group.cross, group.gradients});
  }
  return all;
}

void ProfileFitter::SaveMoments(std::ostream& stream) const {
  for (const at::Tensor& tensor : moments_->Tensors()) Save(stream, tensor);
}

absl::Status ProfileFitter::LoadMoments(std::istream& stream) {
  for (const at::Tensor& tensor : moments_->Tensors()) {
    if (!Load(stream, tensor)) return absl::DataLossError("moments are damaged, or another fitter's");
  }
  return absl::OkStatus();
}

absl::StatusOr<compressor::LatentProfile> ProfileFitter::Fit(bool basis) const {
  try {
    return FitProfile(basis);
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("fitting a profile: ", error.what_without_backtrace()));
  }
}

absl::StatusOr<compressor::LatentProfile> ProfileFitter::FitProfile(bool basis) const {
  const bool by_variance = options_.metric == ErrorMetric::kVariance;
  if (moments_->states() < 2 || (!by_variance && moments_->scored() < 1)) {
    return absl::FailedPreconditionError("a profile is fitted to states and gradients: add some of both");
  }
  const double count = moments_->states();
  const int64_t features = profile_.features;
  const at::Tensor feature_mean = moments_->feature_sum.div(count);
  const at::Tensor feature_covariance =
      moments_->feature_products.to(at::kDouble).div(count).sub(feature_mean.outer(feature_mean));
  const at::Tensor steadied = feature_covariance.add(at::eye(features, at::kDouble).mul(options_.ridge));
  compressor::LatentProfile profile = profile_;
  if (options_.transforms()) {
    profile.feature_mean = ToVector(moments_->feature_mean);
    profile.feature_scale = ToVector(moments_->feature_scale);
  } else {
    profile.features = 0;
  }
  for (size_t g = 0; g < profile.groups.size(); ++g) {
    const Moments::Group& sums = moments_->groups[g];
    LayerGroup& group = profile.groups[g];
    const at::Tensor mean = sums.sum.div(count);
    const at::Tensor covariance = sums.products.to(at::kDouble).div(count).sub(mean.outer(mean));
    at::Tensor fisher = sums.gradients.to(at::kDouble).mul(1e6 / std::max(moments_->scored(), 1.0));
    if (!options_.transforms()) {
      if (by_variance) fisher = InverseDiagonal(covariance);
      group.mean = ToVector(mean.add(sums.offset.squeeze(1)));
      SetScales(fisher, covariance, group);
      continue;
    }
    const at::Tensor cross = sums.cross.to(at::kDouble).div(count).sub(feature_mean.outer(mean));
    fisher =
        fisher.mul(1 - options_.diagonal_share).add(at::diag_embed(fisher.diagonal()).mul(options_.diagonal_share));
    Metric metric(by_variance ? InverseDiagonal(covariance) : fisher);
    if (!metric.IsPositive()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the layers from ", group.first_layer, " on have no gradients that a metric could be made of"));
    }
    // As it will be stored, so that mean and covariance are of what it leaves.
    const Int8Matrix stored_predictor = RoundedInMetric(at::linalg_solve(steadied, cross), metric, /*refined=*/0);
    const at::Tensor predictor = ValuesOf(stored_predictor);
    const at::Tensor explained = predictor.t().matmul(cross);
    const at::Tensor left =
        covariance.sub(explained).sub(explained.t()).add(predictor.t().matmul(feature_covariance).matmul(predictor));
    group.predictor = stored_predictor;
    group.mean = ToVector(mean.add(sums.offset.squeeze(1)).sub(predictor.t().mv(feature_mean)));

    if (by_variance) metric = Metric(InverseDiagonal(left));
    if (!basis) {
      SetScales(metric.matrix, left, group);
      continue;
    }
    // The largest first.
    const at::Tensor directions = std::get<1>(at::linalg_eigh(metric.root.matmul(left).matmul(metric.root))).flip(1);
    const int components = static_cast<int>(directions.size(1));
    const int refined = std::min(components, kRefined);
    const Int8Matrix stored_decode = RoundedInMetric(directions.t().matmul(metric.inverse_root), metric, refined);
    group.decode = stored_decode;
    const at::Tensor decode = ValuesOf(stored_decode);
    decode.narrow(0, 0, refined).add_(decode.narrow(0, components, refined), 1.0 / Int8Matrix::kRefinement);
    const at::Tensor encode = BestEncoder(decode.narrow(0, 0, components), metric.matrix);
    group.encode = ToBf16(encode);
    const at::Tensor variances = encode.mul(left.matmul(encode)).sum(0);
    group.sigma = ToVector(variances.maximum(variances.max().mul(1e-12)).sqrt());
  }
  return profile;
}

}  // namespace quicksave::server
