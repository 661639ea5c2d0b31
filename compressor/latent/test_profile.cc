#include "compressor/latent/test_profile.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "compressor/container.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"
#include "compressor/latent/residual_codec.h"

namespace quicksave::compressor {
namespace {

constexpr int kReflections = 6;
constexpr int kCalibrationTokens = 64;

// An orthogonal matrix [n, n]: a product of reflections at random planes.
std::vector<double> Orthogonal(int n, TestRandom& random) {
  std::vector<double> matrix(static_cast<size_t>(n) * n);
  for (int i = 0; i < n; ++i) matrix[static_cast<size_t>(i) * n + i] = 1;
  std::vector<double> normal(n);
  for (int reflection = 0; reflection < kReflections; ++reflection) {
    double square = 0;
    for (double& value : normal) {
      value = random.Normal();
      square += value * value;
    }
    for (int i = 0; i < n; ++i) {
      double* row = matrix.data() + static_cast<size_t>(i) * n;
      const double along = 2 * std::inner_product(normal.begin(), normal.end(), row, 0.0) / square;
      for (int j = 0; j < n; ++j) row[j] -= along * normal[j];
    }
  }
  return matrix;
}

// [inputs, outputs] in the form that the options say.
WeightMatrix WeightsOf(int inputs, int outputs, const std::vector<float>& values, const TestProfileOptions& options,
                       int refined = 0) {
  if (!options.bf16) return Int8Matrix::Nearest(inputs, outputs, values, refined);
  Bf16Matrix matrix{.inputs = inputs, .outputs = outputs};
  for (const float value : values) matrix.values.push_back(NarrowToBf16(value));
  return matrix;
}

WeightMatrix RandomPredictor(int inputs, int outputs, const TestProfileOptions& options, TestRandom& random) {
  std::vector<float> values(static_cast<size_t>(inputs) * outputs);
  for (float& value : values) value = 0.3f * random.Normal();
  return WeightsOf(inputs, outputs, values, options);
}

// encode = diag(metric) U and decode = U^T diag(1 / metric), the first `components` components of them.
void AddBasis(int channels, int components, const TestProfileOptions& options, TestRandom& random, LayerGroup& group) {
  const std::vector<double> basis = Orthogonal(channels, random);
  std::vector<double> metric(channels);
  for (double& value : metric) value = 0.5 + 0.125 * static_cast<double>(random.Below(12));
  group.encode = {.inputs = channels, .outputs = components};
  group.encode.values.resize(static_cast<size_t>(channels) * components);
  std::vector<float> decode(group.encode.values.size());
  for (int c = 0; c < channels; ++c) {
    for (int k = 0; k < components; ++k) {
      const double entry = basis[static_cast<size_t>(c) * channels + k];
      group.encode.values[static_cast<size_t>(c) * components + k] =
          NarrowToBf16(static_cast<float>(metric[c] * entry));
      decode[static_cast<size_t>(k) * channels + c] = static_cast<float>(entry / metric[c]);
    }
  }
  group.decode = WeightsOf(components, channels, decode, options, std::min(components, options.refined));
}

LayerGroup MakeGroup(const LatentProfile& profile, int first_layer, int layers, const TestProfileOptions& options,
                     TestRandom& random) {
  LayerGroup group{.first_layer = first_layer, .layers = layers};
  const int channels = profile.channels(group);
  const bool basis = static_cast<int>(profile.groups.size()) < options.first_diagonal_group;
  const int components = basis ? channels - options.dropped : channels;
  for (int c = 0; c < channels; ++c) group.mean.push_back(2 * random.Normal());
  if (profile.features > 0) group.predictor = RandomPredictor(profile.features, channels, options, random);
  for (int k = 0; k < components; ++k) {
    const float place = static_cast<float>(k) / static_cast<float>(components);
    // A falling power without the mathematical library, whose results differ.
    group.sigma.push_back(options.largest_sigma / (1 + (options.sigma_range - 1) * place * place));
  }
  if (basis) {
    AddBasis(channels, components, options, random, group);
  } else {
    for (int c = 0; c < channels; ++c) group.scale.push_back(0.25f * static_cast<float>(1 + random.Below(8)));
  }
  return group;
}

// Statistics of a profile that has none yet.
void AddFlatTables(LatentProfile& profile) {
  const std::vector<uint64_t> flat(kSymbols, 1);
  profile.classes.assign(kSigmaClasses, {.frequencies = QuantizeFrequencies(flat)});
  profile.residual_tables.assign(kResidualClasses, QuantizeFrequencies(flat));
}

// Turns by rational angles, so that every machine has the same table.
std::vector<float> AngleTable(int tokens, int head_dim, uint64_t first_position, int table) {
  std::vector<float> angles;
  const int half = head_dim / 2;
  for (int t = 0; t < tokens; ++t) {
    for (int part = 0; part < 2; ++part) {
      for (int i = 0; i < half; ++i) {
        const double tangent = static_cast<double>((first_position + t) % 64) / (8 + 16 * i + 5 * table);
        const double square = tangent * tangent;
        angles.push_back(static_cast<float>((part == 0 ? 1 - square : 2 * tangent) / (1 + square)));
      }
    }
  }
  return angles;
}

TestBlock DrawFrom(const LatentProfile& profile, int tokens, uint64_t seed) {
  TestRandom random(seed ^ 0x5eed);
  TestBlock block;
  block.shape = {
      .layers = profile.layers, .kv_heads = profile.kv_heads, .head_dim = profile.head_dim, .tokens = tokens};
  block.values = ModelLikeValues(block.shape, seed);
  for (int i = 0; i < tokens * profile.features; ++i) block.hidden_states.push_back(1 + 3 * random.Normal());
  for (int table = 0; table < 2; ++table) {
    block.angle_tables[table] = AngleTable(tokens, profile.head_dim, seed, table);
  }
  for (int layer = 0; layer < profile.layers; ++layer) {
    block.angles.push_back(block.angle_tables[layer % 2].data());
  }
  const LatentTransform transform(profile, block.shape, block.Context(0));
  for (const LayerGroup& group : profile.groups) {
    SparseLatent latent{.used = std::vector<int>(group.components())};
    std::iota(latent.used.begin(), latent.used.end(), 0);
    latent.values.resize(latent.used.size() * transform.columns());
    for (size_t k = 0; k < latent.used.size(); ++k) {
      float* row = latent.values.data() + k * transform.columns();
      for (int t = 0; t < tokens; ++t) row[t] = group.sigma[k] * random.Normal();
    }
    transform.Synthesise(group, latent, {block.shape, absl::MakeSpan(block.values)});
  }
  return block;
}

void CountClasses(LatentProfile& profile, const TestProfileOptions& options) {
  ClassStatistics statistics;
  for (int i = 0; i < options.calibration_blocks; ++i) {
    const TestBlock block = DrawFrom(profile, kCalibrationTokens, 1000 + i);
    const LatentTransform transform(profile, block.shape, block.Context(0));
    for (const LayerGroup& group : profile.groups) {
      const std::vector<float> latent = transform.Analyse(group, block.view());
      for (int k = 0; k < group.components(); ++k) {
        const auto row = absl::MakeConstSpan(latent).subspan(static_cast<size_t>(k) * transform.columns(),
                                                             static_cast<size_t>(transform.tokens()));
        for (float step = 1.0f / 64; step < 128; step *= 2) statistics.Add(row, group.sigma[k], step);
      }
    }
  }
  profile.classes = statistics.Build();
}

void CountResiduals(LatentProfile& profile, const TestProfileOptions& options) {
  ResidualStatistics statistics;
  const auto codec = NewLatentCodec(std::make_shared<LatentProfile>(profile));
  for (int i = 0; i < options.calibration_blocks; ++i) {
    const TestBlock block = DrawFrom(profile, kCalibrationTokens, 2000 + i);
    for (const float step : {0.05f, 0.2f, 0.8f, 3.0f}) {
      const BlockContext context = block.Context(step);
      const EncodedBlock encoded = *codec->Encode(block.view(), context);
      std::vector<uint16_t> base = block.Prefilled(profile);
      codec
          ->Decode({encoded.bytes, encoded.tensors_per_section, encoded.section_sizes}, 1, context,
                   {block.shape, absl::MakeSpan(base)})
          .IgnoreError();
      statistics.Add(profile, ErrorLevels(profile, step), block.view(), {block.shape, base}, 0);
    }
  }
  profile.residual_tables = statistics.Build();
}

}  // namespace

BlockContext TestBlock::Context(float step, int known_tokens) const {
  BlockContext context{.angles = angles, .hidden_states = hidden_states};
  context.known_tokens = known_tokens;
  context.step = step;
  return context;
}

std::vector<uint16_t> TestBlock::Prefilled(const LatentProfile& profile, int known_tokens) const {
  std::vector<uint16_t> filled(values.size());
  const size_t coded = 2 * profile.kv_width() * profile.first_layer() * shape.tokens;
  std::copy_n(values.begin(), coded, filled.begin());
  const int known = std::min(known_tokens, shape.tokens);
  for (size_t row = coded; row < values.size(); row += shape.tokens) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(row), known,
                filled.begin() + static_cast<std::ptrdiff_t>(row));
  }
  return filled;
}

TestSource::TestSource(const TestProfileOptions& options) {
  LatentProfile profile{
      .model_fingerprint = "test-model",
      .layers = std::accumulate(options.group_layers.begin(), options.group_layers.end(), 1) + options.split,
      .kv_heads = options.kv_heads,
      .head_dim = options.head_dim,
      .split = options.split,
      .features = options.features};
  TestRandom random(20261122);
  profile.feature_mean.assign(options.features, 1.0f);
  profile.feature_scale.assign(options.features, 0.25f);
  int next = profile.first_layer();
  for (const int layers : options.group_layers) {
    profile.groups.push_back(MakeGroup(profile, next, layers, options, random));
    next += layers;
  }
  profile.points = {{.name = "fine", .step = 0.125f, .ratio = 4.5, .mean_kl = 0.001}, {.name = "small", .step = 2}};
  profile.notes = {{"program", "test_profile"}, {"texts", "none"}};
  AddFlatTables(profile);
  CountClasses(profile, options);
  CountResiduals(profile, options);
  profile_ = std::make_shared<const LatentProfile>(std::move(profile));
}

TestBlock TestSource::Draw(int tokens, uint64_t seed) const { return DrawFrom(*profile_, tokens, seed); }

}  // namespace quicksave::compressor
