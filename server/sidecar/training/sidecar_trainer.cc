#include "server/sidecar/training/sidecar_trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/block.h"
#include "server/sidecar/training/adam.h"
#include "server/sidecar/training/sidecar_model.h"
#include "server/sidecar/training/tensor_file.h"

namespace quicksave::server {
namespace {

using compressor::Architecture;

// The learning rate at the end, of that at the start.
constexpr double kLastRate = 0.01;
// Parts of a progressive training: groups join in the first, rate and cosine grow in the second.
constexpr double kJoining = 0.3;
constexpr double kGrowing = 0.3;

// Tokens that are looked at together: one, or a run of them.
int64_t UnitOf(Architecture architecture) {
  const bool along_time = architecture == Architecture::kConv || architecture == Architecture::kRecurrent;
  return along_time ? kRunTokens : 1;
}

// A generator for one purpose at one step, so that what is drawn depends on nothing before.
at::Generator GeneratorFor(uint64_t seed, uint64_t purpose, uint64_t step) {
  return at::detail::createCPUGenerator((seed * 0x9e3779b97f4a7c15ull + purpose) * 0xbf58476d1ce4e5b9ull + step);
}

std::vector<int> WidthsOf(const TrainingSet& set) {
  std::vector<int> widths;
  for (const std::vector<float>& group : set.groups) widths.push_back(static_cast<int>(group.size() / set.tokens()));
  return widths;
}

// Sum of squares of each group.
std::vector<double> EnergiesOf(const TrainingSet& set) {
  std::vector<double> energies;
  for (const std::vector<float>& group : set.groups) {
    double sum = 0;
    for (const float value : group) sum += static_cast<double>(value) * value;
    energies.push_back(sum);
  }
  return energies;
}

std::vector<float> MagnitudesOf(const TrainingSet& set) {
  std::vector<float> magnitudes;
  const std::vector<double> energies = EnergiesOf(set);
  for (size_t g = 0; g < energies.size(); ++g) {
    magnitudes.push_back(static_cast<float>(std::sqrt(energies[g] / static_cast<double>(set.groups[g].size()))));
  }
  return magnitudes;
}

// How much each part of the loss counts at some point of the training, 0 to 1.
struct Weights {
  double joined = 1;  // share of the groups that take part
  double others = 1;  // rate and cosine
};
Weights WeightsAt(double done, bool progressive) {
  if (!progressive) return {};
  return {.joined = std::clamp(done / kJoining, 0.0, 1.0),
          .others = std::clamp((done - kJoining) / kGrowing, 0.0, 1.0)};
}

// What a pass costs: sums over tokens and groups that take part.
struct Costs {
  at::Tensor error;
  at::Tensor bits;
  at::Tensor cosine;  // of 1 - cosine, over tokens and groups
};

}  // namespace

struct SidecarTrainer::State {
  State(const TrainingSet& train, const TrainingOptions& options)
      : model(WidthsOf(train), MagnitudesOf(train), options.shape, options.seed), adam(model.Parameters()) {
    widths = WidthsOf(train);
    for (const double energy : EnergiesOf(train)) energy_of_token += energy / static_cast<double>(train.tokens());
    for (const int width : widths) components += width;
    if (options.start == Start::kPrincipal) StartFromPrincipal(train, options.start_step);
    for (const at::Tensor& parameter : adam.parameters()) best.push_back(parameter.detach().clone());
    unit = UnitOf(options.shape.architecture);
    units_of_batch = std::max<int64_t>(1, options.batch_tokens / unit);
    const int64_t units = train.tokens() / unit;
    units_of_batch = std::min(units_of_batch, units);
    steps_of_epoch = units / units_of_batch;
    steps_wanted = steps_of_epoch * options.epochs;
    evaluation_steps = std::max<int64_t>(1, steps_wanted / std::max(options.evaluations, 1));
  }

  void StartFromPrincipal(const TrainingSet& train, double step) {
    for (size_t g = 0; g < train.groups.size(); ++g) {
      const at::Tensor rows = ViewOf(train.groups[g], {train.tokens(), widths[g]});
      const auto [values, vectors] = at::linalg_eigh(rows.t().matmul(rows).div(static_cast<double>(train.tokens())));
      // The largest first.
      model.StartFrom(g, vectors.flip(1), values.flip(0).clamp_min(0).sqrt(), step);
    }
  }

  // The units with these numbers.
  TrainingBatch BatchOf(const TrainingSet& set, const at::Tensor& units) const {
    TrainingBatch batch{.run_tokens = unit};
    for (size_t g = 0; g < set.groups.size(); ++g) {
      const at::Tensor all = ViewOf(set.groups[g], {set.tokens() / unit, unit * widths[g]});
      batch.groups.push_back(all.index_select(0, units).view({-1, widths[g]}));
    }
    const at::Tensor runs = at::from_blob(const_cast<int64_t*>(set.first_positions.data()), {set.runs(), 1}, at::kLong);
    const at::Tensor positions = runs.add(at::arange(kRunTokens, at::kLong)).to(at::kFloat).view({-1, unit});
    batch.positions = positions.index_select(0, units).view({-1});
    return batch;
  }

  Costs CostsOf(const TrainingBatch& batch, const SidecarPass& pass, RateModel rate, double joined) const {
    const auto groups = static_cast<double>(batch.groups.size());
    const auto taking_part = static_cast<size_t>(std::clamp(std::ceil(joined * groups), 1.0, groups));
    const std::vector<at::Tensor> bits = model.Bits(pass, rate);
    Costs costs{at::zeros({}), at::zeros({}), at::zeros({})};
    for (size_t g = 0; g < taking_part; ++g) {
      const at::Tensor& y = batch.groups[g];
      const at::Tensor& restored = pass.restored[g];
      costs.error = costs.error.add(restored.sub(y).square().sum());
      costs.bits = costs.bits.add(bits[g]);
      const at::Tensor lengths = y.square().sum(1).mul(restored.square().sum(1)).add(1e-12).sqrt();
      costs.cosine = costs.cosine.add(y.mul(restored).sum(1).div(lengths).neg().add(1).sum().div(groups));
    }
    return costs;
  }

  // The loss of so many tokens.
  at::Tensor LossOf(const Costs& costs, int64_t tokens, const TrainingOptions& options, double others) const {
    const auto count = static_cast<double>(tokens);
    at::Tensor loss = costs.error.mul(options.kv_weight / (energy_of_token * count));
    loss = loss.add(costs.bits.mul(others * options.rate_weight / (count * components)));
    if (options.cosine_weight == 0) return loss;
    return loss.add(costs.cosine.mul(others * options.cosine_weight / count));
  }

  std::vector<int> widths;
  double components = 0;
  double energy_of_token = 0;
  SidecarModel model;
  Adam adam;
  int64_t unit = 1;
  int64_t units_of_batch = 1;
  int64_t steps_of_epoch = 0;
  int64_t steps_wanted = 0;
  int64_t evaluation_steps = 1;

  int64_t steps = 0;
  std::vector<TrainingRow> history;
  std::vector<at::Tensor> best;
  double best_loss = std::numeric_limits<double>::infinity();
  int worse = 0;  // evaluations since the best one
};

SidecarTrainer::SidecarTrainer(const TrainingSet& train, const TrainingSet& watch, const TrainingOptions& options)
    : train_(train), watch_(watch), options_(options), state_(std::make_unique<State>(train, options)) {}

SidecarTrainer::~SidecarTrainer() = default;

int64_t SidecarTrainer::steps_done() const { return state_->steps; }
int64_t SidecarTrainer::steps_wanted() const { return state_->steps_wanted; }
int64_t SidecarTrainer::parameters() const { return state_->model.CountParameters(); }
const std::vector<TrainingRow>& SidecarTrainer::history() const { return state_->history; }

bool SidecarTrainer::done() const {
  return state_->steps >= state_->steps_wanted || (options_.patience > 0 && state_->worse >= options_.patience);
}

absl::Status SidecarTrainer::Step() {
  State& state = *state_;
  const int64_t epoch = state.steps / state.steps_of_epoch;
  const int64_t place = state.steps % state.steps_of_epoch;
  const at::Tensor order = at::randperm(train_.tokens() / state.unit, GeneratorFor(options_.seed, 1, epoch), at::kLong);
  const at::Tensor units = order.slice(0, place * state.units_of_batch, (place + 1) * state.units_of_batch);
  const double done = static_cast<double>(state.steps) / static_cast<double>(state.steps_wanted);
  const Weights weights = WeightsAt(done, options_.progressive);
  const TrainingBatch batch = state.BatchOf(train_, units);
  const SidecarPass pass = state.model.Pass(batch, options_.rate, GeneratorFor(options_.seed, 2, state.steps));
  const Costs costs = state.CostsOf(batch, pass, options_.rate, weights.joined);
  const at::Tensor loss = state.LossOf(costs, state.units_of_batch * state.unit, options_, weights.others);
  if (!std::isfinite(loss.item<double>())) {
    return absl::FailedPreconditionError(
        absl::StrCat("the loss is no number after ", state.steps, " steps: choose a lower learning rate"));
  }
  const double falling = (1 + std::cos(std::numbers::pi * done)) / 2;
  state.adam.Step(loss, options_.learning_rate * (kLastRate + (1 - kLastRate) * falling));
  ++state.steps;
  if (state.steps % state.evaluation_steps == 0 || state.steps == state.steps_wanted) return Evaluate();
  return absl::OkStatus();
}

absl::Status SidecarTrainer::Evaluate() {
  State& state = *state_;
  const c10::NoGradGuard no_gradients;
  const int64_t units = watch_.tokens() / state.unit;
  // Bounds the memory of a pass.
  const int64_t units_at_once = std::max<int64_t>(1, 8 * kRunTokens / state.unit);
  Costs sums{at::zeros({}, at::kDouble), at::zeros({}, at::kDouble), at::zeros({}, at::kDouble)};
  double energy = 0;
  for (int64_t first = 0; first < units; first += units_at_once) {
    const TrainingBatch batch =
        state.BatchOf(watch_, at::arange(first, std::min(first + units_at_once, units), at::kLong));
    const SidecarPass pass = state.model.Pass(batch, options_.rate, std::nullopt);
    const Costs costs = state.CostsOf(batch, pass, options_.rate, 1);
    sums.error.add_(costs.error);
    sums.bits.add_(costs.bits);
    sums.cosine.add_(costs.cosine);
    for (const at::Tensor& group : batch.groups) energy += group.square().sum().item<double>();
  }
  TrainingRow row{.step = state.steps,
                  .loss = state.LossOf(sums, watch_.tokens(), options_, 1).item<double>(),
                  .relative_error = sums.error.item<double>() / energy,
                  .bits = sums.bits.item<double>() / (state.components * static_cast<double>(watch_.tokens()))};
  if (!std::isfinite(row.loss)) {
    return absl::FailedPreconditionError("the loss is no number any more: choose a lower learning rate");
  }
  state.history.push_back(row);
  // Before all groups and all terms take part, no loss is comparable.
  const double done = static_cast<double>(state.steps) / static_cast<double>(state.steps_wanted);
  if (options_.progressive && done < kJoining + kGrowing) return absl::OkStatus();
  ++state.worse;
  if (row.loss >= state.best_loss) return absl::OkStatus();
  state.worse = 0;
  state.best_loss = row.loss;
  const std::vector<at::Tensor>& parameters = state.adam.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) state.best[i].copy_(parameters[i]);
  return absl::OkStatus();
}

compressor::LearnedProfile SidecarTrainer::Best(compressor::LatentProfile base) const {
  const c10::NoGradGuard no_gradients;
  const std::vector<at::Tensor>& parameters = state_->adam.parameters();
  std::vector<at::Tensor> last;
  for (size_t i = 0; i < parameters.size(); ++i) {
    last.push_back(parameters[i].clone());
    parameters[i].copy_(state_->best[i]);
  }
  compressor::LearnedProfile profile = state_->model.Export(std::move(base));
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i].copy_(last[i]);
  return profile;
}

void SidecarTrainer::Save(std::ostream& stream) const {
  const State& state = *state_;
  const int64_t header[] = {state.steps, state.worse, static_cast<int64_t>(state.history.size())};
  std::string front(reinterpret_cast<const char*>(header), sizeof(header));
  front.append(reinterpret_cast<const char*>(&state.best_loss), sizeof(state.best_loss));
  front.append(reinterpret_cast<const char*>(state.history.data()), state.history.size() * sizeof(TrainingRow));
  stream << front << compressor::ComputeDigest(front).ToBytes();
  state.adam.Save(stream);
  for (const at::Tensor& tensor : state.best) SaveTensor(stream, tensor);
}

absl::Status SidecarTrainer::Load(std::istream& stream) {
  State& state = *state_;
  const auto damaged = [] { return absl::DataLossError("the checkpoint is damaged, or of another training"); };
  int64_t header[3] = {};
  stream.read(reinterpret_cast<char*>(header), sizeof(header));
  if (!stream.good() || header[0] < 0 || header[0] > state.steps_wanted || header[2] < 0 || header[2] > header[0]) {
    return damaged();
  }
  state.steps = header[0];
  state.worse = static_cast<int>(header[1]);
  state.history.resize(header[2]);
  const size_t rows_size = state.history.size() * sizeof(TrainingRow);
  std::string front(sizeof(header) + sizeof(state.best_loss) + rows_size, '\0');
  std::memcpy(front.data(), header, sizeof(header));
  stream.read(front.data() + sizeof(header), static_cast<std::streamsize>(front.size() - sizeof(header)));
  std::string digest(compressor::Digest128().ToBytes().size(), '\0');
  stream.read(digest.data(), static_cast<std::streamsize>(digest.size()));
  if (!stream.good() || compressor::ComputeDigest(front).ToBytes() != digest) return damaged();
  std::memcpy(&state.best_loss, front.data() + sizeof(header), sizeof(state.best_loss));
  std::memcpy(state.history.data(), front.data() + front.size() - rows_size, rows_size);
  if (!state.adam.Load(stream)) return damaged();
  for (const at::Tensor& tensor : state.best) {
    if (!LoadTensor(stream, tensor)) return damaged();
  }
  return absl::OkStatus();
}

}  // namespace quicksave::server
