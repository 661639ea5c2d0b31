// The reference decoder against recorded output of Hugging Face transformers, and the engine against the reference, on
// real models.
#include "server/engine/model/reference_decoder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/model/decoder.h"
#include "server/engine/testing/decoder_feed.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

struct TestedModel {
  const char* name;
  const char* dir;
  const char* record;  // in tests/reference
  // The same operations in fp32; only the order of sums differs. Logits are up to 30, of which fp32 keeps 2e-6, and the
  // layers add up. The bound leaves room for other CPUs.
  double fp32_bound;
  // Of the engine's distributions from the reference's. transformers' own bf16 is the yardstick: on SmolLM2 it is at
  // 0.001 in the mean, and at 0.004 at most, on text.
  double mean_kl_bound;
  double largest_kl_bound;
  std::vector<int> lengths;  // of random prompts
};

class ReferenceDecoderTest : public testing::TestWithParam<TestedModel> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(std::filesystem::path(GetParam().dir) / "config.json")) {
      GTEST_SKIP() << "there is no " << GetParam().dir << "; scripts/fetch_model.sh makes it";
    }
    auto reference = ReferenceDecoder::Load(GetParam().dir);
    ASSERT_TRUE(reference.ok()) << reference.status();
    reference_ = *std::move(reference);
  }

  std::unique_ptr<ReferenceDecoder> reference_;
};

double LogSumExp(absl::Span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float value : logits) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// Largest difference of logits, and of the logarithm of their exponentials' sum, from one recorded row.
double LargestDifference(absl::Span<const float> logits, const Json& row, const Json& sample_ids) {
  double largest = std::abs(LogSumExp(logits) - row["log_sum_exp"].get<double>());
  const auto compare = [&](int id, double value) { largest = std::max(largest, std::abs(logits[id] - value)); };
  for (size_t i = 0; i < row["top_ids"].size(); ++i) compare(row["top_ids"][i], row["top_values"][i]);
  for (size_t i = 0; i < sample_ids.size(); ++i) compare(sample_ids[i], row["sample_values"][i]);
  return largest;
}

TEST_P(ReferenceDecoderTest, LogitsAreThoseOfTransformersInFp32) {
  std::ifstream file(std::string(QUICKSAVE_SOURCE_DIR "/tests/reference/") + GetParam().record);
  const Json recorded = Json::parse(file);
  const size_t vocab = reference_->config().vocab_size;
  double largest = 0;
  for (const Json& prompt : recorded["prompts"]) {
    const auto tokens = prompt["token_ids"].get<std::vector<int32_t>>();
    const std::vector<float> logits = reference_->Logits(tokens);
    for (const Json& row : prompt["float32"]) {
      const size_t position = row["position"];
      const auto mine = absl::MakeConstSpan(logits).subspan(position * vocab, vocab);
      const double difference = LargestDifference(mine, row, recorded["sample_ids"]);
      EXPECT_LT(difference, GetParam().fp32_bound) << tokens.size() << " tokens, position " << position;
      largest = std::max(largest, difference);
    }
  }
  std::cout << "largest difference " << largest << "\n";
}

// Mean KL divergence of the engine's next-token distributions from the reference's, in nats, and the largest one.
struct Divergence {
  double mean = 0;
  double largest = 0;
};
Divergence Diverge(absl::Span<const float> reference, absl::Span<const float> engine, size_t vocab) {
  Divergence divergence;
  const size_t rows = reference.size() / vocab;
  for (size_t row = 0; row < rows; ++row) {
    const auto p = reference.subspan(row * vocab, vocab);
    const auto q = engine.subspan(row * vocab, vocab);
    const double p_sum = LogSumExp(p);
    const double q_sum = LogSumExp(q);
    double kl = 0;
    for (size_t i = 0; i < vocab; ++i) kl += std::exp(p[i] - p_sum) * ((p[i] - p_sum) - (q[i] - q_sum));
    divergence.mean += kl / static_cast<double>(rows);
    divergence.largest = std::max(divergence.largest, kl);
  }
  return divergence;
}

TEST_P(ReferenceDecoderTest, TheEngineIsNearItOnPromptsThatNobodyRecorded) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  ThreadPool threads(2);
  const auto decoder = Decoder::Load(GetParam().dir, &threads);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const KvShape shape = (*decoder)->kv_shape();
  const auto pool = PagePool::Create({.shape = shape, .memory_bytes = 64 * shape.page_bytes(), .poison = true});
  ASSERT_TRUE(pool.ok());
  const int vocab = reference_->config().vocab_size;
  for (const int count : GetParam().lengths) {
    const std::vector<int32_t> tokens = RandomTokens(count, vocab, random());
    const std::vector<float> expected = reference_->Logits(tokens);
    Sequence sequence;
    const std::vector<float> logits = FeedTokens(**decoder, **pool, sequence, tokens, LogitsWanted::kAll, 100);
    const Divergence divergence = Diverge(expected, logits, vocab);
    std::cout << count << " tokens: KL " << divergence.mean << " in the mean, " << divergence.largest << " at most\n";
    EXPECT_LT(divergence.mean, GetParam().mean_kl_bound) << count;
    EXPECT_LT(divergence.largest, GetParam().largest_kl_bound) << count;
  }
}

// Seen: 3.3e-5, and a KL divergence of 0.0005 in the mean. Random tokens are far off now and then: 0.012 was seen at
// one position of 333.
const TestedModel kSmolLm2 = {
    .name = "SmolLM2",
    .dir = QUICKSAVE_MODEL_DIR,
    .record = "smollm2_logits.json",
    .fp32_bound = 2e-4,
    .mean_kl_bound = 0.001,
    .largest_kl_bound = 0.1,
    .lengths = {1, 3, 40, 333},
};
// More sensitive to rounding, its residual stream being large: transformers' own bf16 is at 0.004 to 0.009 in the mean
// on random tokens, and at 0.02 to 0.04 at most. Seen: 1.1e-4, and a KL divergence of 0.0024 in the mean, 0.009 at
// most.
const TestedModel kGemma3 = {
    .name = "Gemma3",
    .dir = QUICKSAVE_GEMMA_DIR,
    .record = "gemma3_270m_logits.json",
    .fp32_bound = 5e-4,
    .mean_kl_bound = 0.006,
    .largest_kl_bound = 0.1,
    .lengths = {1, 40, 600},  // windows are 512
};

INSTANTIATE_TEST_SUITE_P(Real, ReferenceDecoderTest, testing::Values(kSmolLm2, kGemma3),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace quicksave::engine
