#include "server/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Philox4x32-10 as the paper writes it down: the reference of the draws.
struct Philox {
  static void Round(uint32_t (&counter)[4], const uint32_t (&key)[2]) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    std::copy(std::begin(next), std::end(next), counter);
  }
  static void Block(uint32_t (&counter)[4], uint32_t (&key)[2]) {
    for (int round = 0; round < 10; ++round) {
      Round(counter, key);
      key[0] += 0x9E3779B9;
      key[1] += 0xBB67AE85;
    }
  }
  // In [0, 1).
  static double Uniform(uint64_t seed, uint64_t position) {
    uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
    Block(counter, key);
    return std::ldexp(static_cast<double>(((uint64_t{counter[0]} << 32) | counter[1]) >> 11), -53);
  }
};

// The tokens that may be drawn, likeliest first (the lower id first on a tie), and their probabilities: every step done
// plainly, on sorted lists.
std::vector<std::pair<int32_t, double>> SlowDistribution(std::vector<float> logits, const SamplingParameters& p,
                                                         const std::vector<int32_t>& tokens,
                                                         const std::set<int32_t>& forbidden = {}) {
  for (const int32_t id : std::set<int32_t>(tokens.begin(), tokens.end())) {
    const auto count = static_cast<float>(std::count(tokens.begin(), tokens.end(), id));
    logits[id] = logits[id] > 0 ? logits[id] / p.repetition_penalty : logits[id] * p.repetition_penalty;
    logits[id] = logits[id] - p.presence_penalty - p.frequency_penalty * count;
  }
  for (const auto& [id, bias] : p.logit_bias) logits[id] += bias;
  std::vector<std::pair<int32_t, double>> list;
  double largest = -kInfinity;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (forbidden.count(static_cast<int32_t>(id)) == 0) largest = std::max<double>(largest, logits[id]);
  }
  for (size_t id = 0; id < logits.size(); ++id) {
    if (forbidden.count(static_cast<int32_t>(id)) != 0) continue;
    list.emplace_back(static_cast<int32_t>(id), std::exp((logits[id] - largest) / p.temperature));
  }
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  if (p.top_k > 0 && list.size() > static_cast<size_t>(p.top_k)) list.resize(p.top_k);
  double total = 0;
  for (const auto& [id, weight] : list) total += weight;
  if (p.top_p < 1) {
    size_t kept = 0;
    for (double sum = 0; kept < list.size() && sum < p.top_p * total; ++kept) sum += list[kept].second;
    list.resize(kept);
  }
  std::erase_if(list, [&](const auto& entry) { return entry.second < p.min_p; });
  total = 0;
  for (const auto& [id, weight] : list) total += weight;
  for (auto& [id, weight] : list) weight /= total;
  return list;
}

std::vector<float> RandomLogits(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST(PhiloxReferenceTest, GivesTheVectorsOfThePapersLibrary) {
  // From Random123's kat_vectors, philox4x32 with 10 rounds.
  uint32_t counter[4] = {0, 0, 0, 0};
  uint32_t key[2] = {0, 0};
  Philox::Block(counter, key);
  EXPECT_THAT(counter, testing::ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
}

TEST(SampleTest, ZeroTemperatureTakesTheLargestAndTheLowestIdOnATie) {
  EXPECT_EQ(Sample({1, 5, 3, 5}, {.temperature = 0, .top_k = 1, .seed = 9}, {0}), 1);
  EXPECT_EQ(Sample({-1, -5, -0.5F, -kInfinity}, {}, {}), 2);
}

TEST(SampleTest, TheDrawIsTheOneThatSeedAndPositionFix) {
  // 4 equally likely tokens: the uniform number's quarter is the token.
  const std::vector<float> logits(4, 1.5F);
  std::set<int32_t> seen;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, ~uint64_t{0}}) {
    for (size_t position = 0; position < 50; ++position) {
      const std::vector<int32_t> tokens(position, 2);
      const auto expected = static_cast<int32_t>(Philox::Uniform(seed, position) * 4);
      EXPECT_EQ(Sample(logits, {.temperature = 1, .seed = seed}, tokens), expected) << seed << " at " << position;
      seen.insert(expected);
    }
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST(SampleTest, DrawsFromTheDistributionOfASlowReference) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 3000; ++round) {
    const int vocab = 1 + static_cast<int>(random() % 60);
    std::vector<float> logits = RandomLogits(vocab, random());
    if (round % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit);  // ties
    }
    std::vector<int32_t> tokens(random() % 20);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
    SamplingParameters parameters{
        .temperature = 0.1F + static_cast<float>(random() % 300) / 100,
        .top_k = random() % 2 == 0 ? 0 : 1 + static_cast<int>(random() % 70),
        .top_p = random() % 2 == 0 ? 1 : static_cast<float>(1 + random() % 999) / 1000,
        .min_p = random() % 2 == 0 ? 0 : static_cast<float>(random() % 500) / 1000,
        .repetition_penalty = random() % 2 == 0 ? 1 : 0.5F + static_cast<float>(random() % 200) / 100,
        .presence_penalty = random() % 2 == 0 ? 0 : static_cast<float>(random() % 400) / 100 - 2,
        .frequency_penalty = random() % 2 == 0 ? 0 : static_cast<float>(random() % 400) / 100 - 2,
        .seed = random()};
    for (uint64_t biases = random() % 3; biases > 0; --biases) {
      parameters.logit_bias[static_cast<int32_t>(random() % vocab)] = static_cast<float>(random() % 400) / 100 - 2;
    }
    std::set<int32_t> forbidden;
    std::vector<uint32_t> mask;
    if (random() % 2 == 0) {
      // Sometimes too short: tokens beyond its end may not be drawn either. Token 0 always may.
      mask.assign(1 + random() % 2, 1);
      for (int32_t id = 0; id < vocab; ++id) {
        if (id == 0 || (id / 32 < static_cast<int32_t>(mask.size()) && random() % 2 == 0)) {
          mask[id / 32] |= 1u << (id % 32);
        } else if (id != 32 || mask.size() < 2) {
          forbidden.insert(id);
        }
      }
    }
    auto list = SlowDistribution(logits, parameters, tokens, forbidden);
    ASSERT_FALSE(list.empty());
    // Tokens are laid out by likelihood when a filter needs that order, by id otherwise.
    if (parameters.top_k == 0 && parameters.top_p == 1) std::sort(list.begin(), list.end());
    const double uniform = Philox::Uniform(parameters.seed, tokens.size());
    double sum = 0;
    std::set<int32_t> possible;  // more than one next to a border, where rounding decides
    for (const auto& [id, probability] : list) {
      if (uniform > sum - 1e-9 && uniform < sum + probability + 1e-9) possible.insert(id);
      sum += probability;
    }
    ASSERT_THAT(possible, testing::Contains(Sample(logits, parameters, tokens, mask))) << "round " << round;
  }
}

TEST(SampleTest, FrequenciesAreTheProbabilities) {
  const std::vector<float> logits = RandomLogits(12, 5);
  for (const SamplingParameters& parameters : {SamplingParameters{.temperature = 1},
                                               {.temperature = 2, .top_k = 5},
                                               {.temperature = 1.5F, .top_p = 0.8F},
                                               {.temperature = 1, .top_k = 9, .top_p = 0.9F, .min_p = 0.05F}}) {
    constexpr int kDraws = 20000;
    std::map<int32_t, int> counts;
    std::vector<int32_t> tokens;
    for (int i = 0; i < kDraws; ++i) {
      SamplingParameters seeded = parameters;
      seeded.seed = 1234 + i / 100;
      tokens.assign(i % 100, 0);
      ++counts[Sample(logits, seeded, tokens)];
    }
    double chi_squared = 0;
    const auto expected = SlowDistribution(logits, parameters, {});
    int drawn = 0;
    for (const auto& [id, probability] : expected) {
      const double mean = probability * kDraws;
      if (mean < 5) continue;
      chi_squared += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
    for (const auto& [id, probability] : expected) drawn += counts[id];
    EXPECT_EQ(drawn, kDraws) << "tokens that were filtered out came up";
    // The seeds are fixed, so this does not fail by chance. 11 degrees of freedom: below 31.3 in 999 of 1,000 cases.
    EXPECT_LT(chi_squared, 31.3);
  }
}

TEST(SampleTest, RepetitionPenaltyMovesSeenTokensTowardsLessLikely) {
  const std::vector<float> logits = {2.0F, 1.5F, -1.0F, -1.2F};
  EXPECT_EQ(Sample(logits, {.repetition_penalty = 1.5F}, {0, 0, 0}), 1);
  EXPECT_EQ(Sample(logits, {.repetition_penalty = 1.2F}, {0, 0, 0}), 0);
  EXPECT_EQ(Sample({-1.0F, -1.2F}, {.repetition_penalty = 1.5F}, {0}), 1);
  // Below 1 it does the opposite.
  EXPECT_EQ(Sample(logits, {.repetition_penalty = 0.5F}, {1}), 1);
}

TEST(SampleTest, PresencePenaltyCountsOnceAndFrequencyPenaltyEachTime) {
  const std::vector<float> logits = {2.0F, 1.0F, 0.5F};
  EXPECT_EQ(Sample(logits, {.presence_penalty = 0.9F}, {0, 0, 0}), 0);
  EXPECT_EQ(Sample(logits, {.presence_penalty = 1.1F}, {0}), 1);
  EXPECT_EQ(Sample(logits, {.frequency_penalty = 0.4F}, {0, 0}), 0);
  EXPECT_EQ(Sample(logits, {.frequency_penalty = 0.4F}, {0, 0, 0}), 1);
  EXPECT_EQ(Sample(logits, {.frequency_penalty = -0.6F}, {1, 1}), 1);
}

TEST(SampleTest, OnlyTokensWithLogitsAreDrawnWhateverElseIsSeenOrBiased) {
  const std::vector<float> logits = {0, 1, 5, 9};
  const SamplingParameters parameters{.temperature = 0, .repetition_penalty = 2, .logit_bias = {{3, 50}, {0, 2}}};
  EXPECT_EQ(Sample(logits, parameters, std::vector<int32_t>{2, 3}), 3);
  EXPECT_EQ(Sample(absl::MakeConstSpan(logits).first(2), parameters, std::vector<int32_t>{2, 3}), 0);
}

TEST(SampleTest, BiasesAreAddedToTheirTokens) {
  const std::vector<float> logits = {2.0F, 1.0F, 0.5F};
  EXPECT_EQ(Sample(logits, {.logit_bias = {{0, -1.1F}}}, {}), 1);
  EXPECT_EQ(Sample(logits, {.logit_bias = {{2, 100}}}, {}), 2);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(Sample(logits, {.temperature = 1, .logit_bias = {{0, -100}, {2, -100}}, .seed = seed}, {}), 1);
  }
}

TEST(SampleTest, OnlyAllowedTokensAreDrawnWhateverTheLogits) {
  const std::vector<uint32_t> mask = {0b0110};
  for (const std::vector<float>& logits : {std::vector<float>{9, 1, 2, 9}, std::vector<float>(4, -kInfinity),
                                           std::vector<float>(4, kNan), std::vector<float>{kInfinity, kNan, 1, 9}}) {
    for (uint64_t seed = 0; seed < 30; ++seed) {
      for (const float temperature : {0.0F, 1.0F, 100.0F}) {
        EXPECT_THAT(Sample(logits, {.temperature = temperature, .top_k = 3, .seed = seed}, {}, mask),
                    testing::AnyOf(1, 2));
      }
    }
  }
  EXPECT_EQ(Sample({9, 1, 2, 9}, {}, {}, mask), 2);
}

TEST(SampleTest, FiltersAlwaysLeaveTheLikeliest) {
  const std::vector<float> logits = {0, 10, 0};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(Sample(logits, {.temperature = 100, .top_k = 1, .seed = seed}, {}), 1);
    EXPECT_EQ(Sample(logits, {.temperature = 100, .top_p = 1e-9F, .seed = seed}, {}), 1);
    EXPECT_EQ(Sample(logits, {.temperature = 1, .min_p = 0.999999F, .seed = seed}, {}), 1);
    EXPECT_EQ(Sample(logits, {.temperature = 1e-30F, .seed = seed}, {}), 1);
    EXPECT_EQ(Sample(logits, {.temperature = std::numeric_limits<float>::denorm_min(), .seed = seed}, {}), 1);
  }
}

TEST(SampleTest, LogitsThatAreNoNumbersAreNeverDrawn) {
  const std::vector<SamplingParameters> all = {{},
                                               {.temperature = 1},
                                               {.temperature = 1, .top_k = 2},
                                               {.temperature = 1, .top_p = 0.5F},
                                               {.temperature = 1, .min_p = 0.5F},
                                               {.temperature = 1, .top_k = 3, .top_p = 0.9F, .min_p = 0.01F},
                                               {.temperature = 1, .repetition_penalty = 2}};
  for (SamplingParameters parameters : all) {
    for (uint64_t seed = 0; seed < 30; ++seed) {
      parameters.seed = seed;
      const auto sample = [&](const std::vector<float>& logits) { return Sample(logits, parameters, {0, 1}); };
      EXPECT_THAT(sample({kNan, 1, kNan, 1.1F}), testing::AnyOf(1, 3));
      EXPECT_EQ(sample({kNan, -kInfinity, 3}), 2);
      EXPECT_EQ(sample({-kInfinity, 3, -kInfinity}), 1);
      EXPECT_EQ(sample({1, kInfinity, 3, kNan}), 1);
      EXPECT_THAT(sample({kInfinity, kInfinity, 3}), testing::AnyOf(0, 1));
      EXPECT_THAT(sample({kNan, kNan}), testing::AnyOf(0, 1));
      EXPECT_THAT(sample({-kInfinity, -kInfinity}), testing::AnyOf(0, 1));
    }
  }
}

TEST(SampleTest, LastTokenOfZeroProbabilityIsNotDrawnWhenRoundingEatsTheRest) {
  // Ids after the likely ones have weights that vanish; whatever the uniform number, they stay undrawn.
  std::vector<float> logits(1000, -kInfinity);
  for (int i = 0; i < 10; ++i) logits[i] = 0.1F * static_cast<float>(i);
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    ASSERT_LT(Sample(logits, {.temperature = 0.7F, .seed = seed}, {}), 10);
  }
}

TEST(ValidateTest, ChecksEveryField) {
  EXPECT_TRUE(Validate({}, 300).ok());
  SamplingParameters full{.temperature = 100,
                          .top_k = 1 << 30,
                          .top_p = 0.5F,
                          .min_p = 0.5F,
                          .repetition_penalty = 100,
                          .presence_penalty = -2,
                          .frequency_penalty = 2};
  for (int32_t id = 0; id < 300; ++id) full.logit_bias[id] = id % 2 == 0 ? -100 : 100;
  EXPECT_TRUE(Validate(full, 300).ok()) << Validate(full, 300);
  const auto expect_refused = [](const SamplingParameters& parameters, const char* field) {
    const absl::Status status = Validate(parameters, 301);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(field));
  };
  for (const float bad : {-0.1F, 101.0F, kNan, kInfinity}) expect_refused({.temperature = bad}, "temperature");
  expect_refused({.top_k = -1}, "top_k");
  for (const float bad : {0.0F, -1.0F, 1.1F, kNan}) expect_refused({.top_p = bad}, "top_p");
  for (const float bad : {-0.1F, 1.0F, kNan}) expect_refused({.min_p = bad}, "min_p");
  for (const float bad : {0.0F, -1.0F, 101.0F, kNan}) expect_refused({.repetition_penalty = bad}, "repetition_penalty");
  for (const float bad : {-2.1F, 2.1F, kNan, kInfinity}) {
    expect_refused({.presence_penalty = bad}, "presence_penalty");
    expect_refused({.frequency_penalty = bad}, "frequency_penalty");
  }
  for (const float bad : {-100.1F, 101.0F, kNan, -kInfinity}) {
    expect_refused({.logit_bias = {{5, bad}}}, "sampling.logit_bias[5]");
  }
  for (const int32_t bad : {-1, 301}) expect_refused({.logit_bias = {{bad, 1}}}, "outside the vocabulary [0, 301)");
  full.logit_bias[300] = 1;
  expect_refused(full, "sampling.logit_bias has 301 entries; at most 300 are allowed");
}

TEST(LogProbabilitiesTest, SumToOneAndAreOrdered) {
  const std::vector<float> logits = RandomLogits(50, 3);
  const LogProbabilities probabilities(logits);
  double sum = 0;
  for (int id = 0; id < 50; ++id) sum += std::exp(probabilities.of(id));
  EXPECT_NEAR(sum, 1, 1e-5);
  const std::vector<TokenLogprob> top = probabilities.Top(50);
  ASSERT_EQ(top.size(), 50u);
  for (size_t i = 1; i < top.size(); ++i) EXPECT_GE(top[i - 1].logprob, top[i].logprob);
  for (const TokenLogprob& entry : top) EXPECT_EQ(entry.logprob, probabilities.of(entry.id));
}

TEST(LogProbabilitiesTest, TopIsCutToTheVocabularyAndBreaksTiesById) {
  const std::vector<float> logits = {1, 2, 2, 0, 2};
  const LogProbabilities probabilities(logits);
  std::vector<int32_t> ids;
  for (const TokenLogprob& entry : probabilities.Top(10)) ids.push_back(entry.id);
  EXPECT_THAT(ids, testing::ElementsAre(1, 2, 4, 0, 3));
  EXPECT_TRUE(probabilities.Top(0).empty());
  EXPECT_TRUE(probabilities.Top(-3).empty());
}

TEST(LogProbabilitiesTest, HugeLogitsDoNotOverflow) {
  const std::vector<float> logits = {3e38F, 3e38F, -3e38F};
  const LogProbabilities probabilities(logits);
  EXPECT_FLOAT_EQ(probabilities.of(0), -std::log(2.0F));
  EXPECT_EQ(probabilities.of(2), -kInfinity);
}

TEST(LogProbabilitiesTest, LogitsThatAreNoNumbersHaveNoProbability) {
  const std::vector<float> logits = {kNan, 1, kNan, 1, -kInfinity};
  const LogProbabilities probabilities(logits);
  EXPECT_FLOAT_EQ(probabilities.of(1), -std::log(2.0F));
  EXPECT_EQ(probabilities.of(0), -kInfinity);
  const std::vector<TokenLogprob> top = probabilities.Top(5);
  EXPECT_EQ(top[0].id, 1);
  EXPECT_EQ(top[1].id, 3);
  for (int i = 2; i < 5; ++i) EXPECT_EQ(top[i].logprob, -kInfinity);
  const std::vector<float> infinite = {kInfinity, 1, kInfinity};
  EXPECT_FLOAT_EQ(LogProbabilities(infinite).of(2), -std::log(2.0F));
  EXPECT_EQ(LogProbabilities(infinite).of(1), -kInfinity);
}

}  // namespace
}  // namespace quicksave::engine
