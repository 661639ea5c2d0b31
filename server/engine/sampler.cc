#include "server/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>

#include "Random123/philox.h"
#include "absl/strings/str_cat.h"

namespace quicksave::engine {
namespace {

constexpr size_t kMaxBiases = 300;

// Uniform in [0, 1), with 53 bits.
double UniformDraw(uint64_t seed, uint64_t position) {
  const r123::Philox4x32::key_type key = {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}};
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}};
  const auto bits = r123::Philox4x32()(counter, key);
  return static_cast<double>(((uint64_t{bits[0]} << 32) | bits[1]) >> 11) * 0x1p-53;
}

bool ChangesLogits(const SamplingParameters& p) {
  return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0 || !p.logit_bias.empty();
}

// Penalties of the tokens in the state, then biases.
std::vector<float> ChangedLogits(absl::Span<const float> logits, const SamplingParameters& p,
                                 absl::Span<const int32_t> tokens) {
  std::vector<float> changed(logits.begin(), logits.end());
  std::unordered_map<int32_t, int> counts;
  for (const int32_t id : tokens) ++counts[id];
  for (const auto& [id, count] : counts) {
    if (static_cast<size_t>(id) >= changed.size()) continue;
    float& logit = changed[id];
    if (p.repetition_penalty != 1) logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
    if (p.presence_penalty != 0) logit -= p.presence_penalty;
    if (p.frequency_penalty != 0) logit -= p.frequency_penalty * static_cast<float>(count);
  }
  for (const auto& [id, bias] : p.logit_bias) {
    if (static_cast<size_t>(id) < changed.size()) changed[id] += bias;
  }
  return changed;
}

bool Allows(TokenMask allowed, size_t id) {
  return allowed.empty() || (id / 32 < allowed.size() && (allowed[id / 32] >> (id % 32) & 1) != 0);
}

// A logit that is not a number counts as minus infinity: the token is never drawn.
float Defined(float logit) { return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit; }

// The lowest id of those with the largest logit.
int32_t Largest(absl::Span<const float> logits, TokenMask allowed) {
  size_t largest = logits.size();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!Allows(allowed, id)) continue;
    if (largest == logits.size() || Defined(logits[id]) > Defined(logits[largest])) largest = id;
  }
  return static_cast<int32_t>(largest);
}

// A logit less the largest one; 0 for the largest even when it is infinite.
double Below(float logit, double largest) {
  const double defined = Defined(logit);
  return defined == largest ? 0 : defined - largest;
}

struct Candidate {
  int32_t id;
  double weight;  // unnormalised probability
};

// For std heaps and sorts: likelier first, the lower id first on a tie.
bool Before(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

// All allowed tokens with their weights relative to the likeliest, whose weight is 1 even when its logit is infinite.
std::vector<Candidate> Weigh(absl::Span<const float> logits, double temperature, TokenMask allowed) {
  const double largest = Defined(logits[Largest(logits, allowed)]);
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!Allows(allowed, id)) continue;
    candidates.push_back({static_cast<int32_t>(id), std::exp(Below(logits[id], largest) / temperature)});
  }
  return candidates;
}

// The tokens that the filters leave: by likelihood when top-k or top-p had to order them, else by id.
std::vector<Candidate> Filter(absl::Span<const float> logits, const SamplingParameters& parameters, TokenMask allowed) {
  std::vector<Candidate> candidates = Weigh(logits, parameters.temperature, allowed);
  const bool ordered = parameters.top_k > 0;
  if (parameters.top_k > 0 && parameters.top_k < static_cast<int>(candidates.size())) {
    std::nth_element(candidates.begin(), candidates.begin() + parameters.top_k, candidates.end(), Before);
    candidates.resize(parameters.top_k);
  }
  if (parameters.top_p < 1) {
    double total = 0;
    for (const Candidate& candidate : candidates) total += candidate.weight;
    // A heap, because the set kept is usually small.
    const auto after = [](const Candidate& a, const Candidate& b) { return Before(b, a); };
    std::make_heap(candidates.begin(), candidates.end(), after);
    auto end = candidates.end();
    for (double kept = 0; end != candidates.begin() && kept < parameters.top_p * total;) {
      std::pop_heap(candidates.begin(), end, after);
      kept += (--end)->weight;
    }
    candidates.erase(candidates.begin(), end);
    std::reverse(candidates.begin(), candidates.end());
  } else if (ordered) {
    // The draw depends on the order, which nth_element leaves to the library.
    std::sort(candidates.begin(), candidates.end(), Before);
  }
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < parameters.min_p; });
  return candidates;
}

int32_t Draw(absl::Span<const Candidate> candidates, double uniform) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double left = uniform * total;
  int32_t last = candidates.front().id;
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
    if (candidate.weight > 0) last = candidate.id;
  }
  // Rounding left a little over.
  return last;
}

absl::Status CheckRange(const std::string& name, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", name, " is ", value, "; it must be from ", low, " to ", high));
}

absl::Status CheckBiases(const std::map<int32_t, float>& biases, int vocab_size) {
  if (biases.size() > kMaxBiases) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.logit_bias has ", biases.size(), " entries; at most ", kMaxBiases, " are allowed"));
  }
  for (const auto& [id, bias] : biases) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling.logit_bias: token id ", id, " is outside the vocabulary [0, ", vocab_size, ")"));
    }
    if (absl::Status status = CheckRange(absl::StrCat("logit_bias[", id, "]"), bias, -100, 100); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const SamplingParameters& parameters, int vocab_size) {
  const absl::Status checks[] = {
      CheckRange("temperature", parameters.temperature, 0, 100),
      CheckRange("top_k", parameters.top_k, 0, std::numeric_limits<int32_t>::max()),
      CheckRange("top_p", parameters.top_p, 1e-9, 1),
      CheckRange("min_p", parameters.min_p, 0, 0.999999),
      CheckRange("repetition_penalty", parameters.repetition_penalty, 0.01, 100),
      CheckRange("presence_penalty", parameters.presence_penalty, -2, 2),
      CheckRange("frequency_penalty", parameters.frequency_penalty, -2, 2),
      CheckBiases(parameters.logit_bias, vocab_size),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  return absl::OkStatus();
}

int32_t Sample(absl::Span<const float> logits, const SamplingParameters& parameters, absl::Span<const int32_t> tokens,
               TokenMask allowed) {
  std::vector<float> changed;
  if (ChangesLogits(parameters)) {
    changed = ChangedLogits(logits, parameters, tokens);
    logits = changed;
  }
  if (parameters.temperature == 0) return Largest(logits, allowed);
  return Draw(Filter(logits, parameters, allowed), UniformDraw(parameters.seed, tokens.size()));
}

LogProbabilities::LogProbabilities(absl::Span<const float> logits)
    : logits_(logits), largest_(Defined(logits[Largest(logits, {})])) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(Below(logit, largest_));
  log_sum_ = std::log(sum);
}

float LogProbabilities::of(int32_t id) const { return static_cast<float>(Below(logits_[id], largest_) - log_sum_); }

std::vector<TokenLogprob> LogProbabilities::Top(int k) const {
  std::vector<int32_t> ids(logits_.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  k = std::clamp<int>(k, 0, static_cast<int>(ids.size()));
  std::partial_sort(ids.begin(), ids.begin() + k, ids.end(), [this](int32_t a, int32_t b) {
    const float x = Defined(logits_[a]);
    const float y = Defined(logits_[b]);
    return x != y ? x > y : a < b;
  });
  std::vector<TokenLogprob> top;
  for (int i = 0; i < k; ++i) top.push_back({ids[i], of(ids[i])});
  return top;
}

}  // namespace quicksave::engine
