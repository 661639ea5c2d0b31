#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/instruction_sets.h"

namespace quicksave::engine::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Keys, values and queries of one layer of a random sequence, in pages at scattered places. Everything that belongs to
// no token is NaN.
class AttentionTest : public testing::Test {
 protected:
  AttentionTest() : seed_(std::random_device()()), random_(seed_) { std::cout << "seed " << seed_ << "\n"; }

  void Fill(const HeadShape& shape, int length) {
    shape_ = shape;
    length_ = length;
    const size_t tile = size_t(shape.kv_heads) * shape.head_dim * kPageTokens;
    const int pages = (length + kPageTokens - 1) / kPageTokens;
    // One layer's keys and values somewhere within a page.
    key_offset_ = 64;
    value_offset_ = key_offset_ + tile * sizeof(uint16_t) + 32;
    const size_t page_bytes = value_offset_ + tile * sizeof(uint16_t);
    memory_.assign(page_bytes * pages, std::byte{0xff});
    std::vector<int> places(pages);
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), random_);
    pages_.clear();
    for (const int place : places) pages_.push_back(memory_.data() + place * page_bytes);

    std::normal_distribution<float> normal;
    keys_.resize(size_t(length) * shape.kv_heads * shape.head_dim);
    values_.resize(keys_.size());
    for (size_t i = 0; i < keys_.size(); ++i) {
      keys_[i] = Bf16ToFloat(Bf16Bits(normal(random_)));
      values_[i] = Bf16ToFloat(Bf16Bits(normal(random_)));
    }
    for (int token = 0; token < length; ++token) {
      std::byte* page = memory_.data() + places[token / kPageTokens] * page_bytes;
      const size_t at = size_t(token) * shape.kv_heads * shape.head_dim;
      StoreKeyValue(keys_.data() + at, values_.data() + at, shape, token % kPageTokens, page + key_offset_,
                    page + value_offset_);
    }
    stride_ = shape.query_heads * shape.head_dim + 7;
    queries_.assign(size_t(length) * stride_, kNan);
    for (int token = 0; token < length; ++token) {
      for (int i = 0; i < shape.query_heads * shape.head_dim; ++i) {
        queries_[size_t(token) * stride_ + i] = 2 * normal(random_);
      }
    }
  }

  // Attention of the tokens [first, length), `rows` at a time, all heads.
  std::vector<float> Run(int first, int rows) {
    std::vector<float> out(size_t(length_) * stride_, kNan);
    for (int begin = first; begin < length_; begin += rows) {
      const int count = std::min(rows, length_ - begin);
      std::vector<float> scratch(AttentionScratchSize(begin + count), kNan);
      const LayerPages kv{pages_.data(), key_offset_, value_offset_};
      const AttentionOptions options{Scale(), window_, soft_cap_};
      for (int head = 0; head < shape_.kv_heads; ++head) {
        Attention(queries_.data() + size_t(begin) * stride_, stride_, count, begin, kv, shape_, head, options,
                  scratch.data(), out.data() + size_t(begin) * stride_, stride_);
      }
    }
    return out;
  }

  float Scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Attention of one query head of one token, in double precision.
  std::vector<double> Expected(int token, int head) const {
    const int kv_head = head / (shape_.query_heads / shape_.kv_heads);
    const float* query = queries_.data() + size_t(token) * stride_ + size_t(head) * shape_.head_dim;
    std::vector<double> weights;
    for (int past = 0; past <= token; ++past) {
      const float* key = keys_.data() + (size_t(past) * shape_.kv_heads + kv_head) * shape_.head_dim;
      const double score = std::inner_product(query, query + shape_.head_dim, key, 0.0) * Scale();
      const double capped = soft_cap_ > 0 ? soft_cap_ * std::tanh(score / soft_cap_) : score;
      weights.push_back(window_ > 0 && past <= token - window_ ? -INFINITY : capped);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    std::vector<double> out(shape_.head_dim);
    for (int past = 0; past <= token; ++past) {
      const float* value = values_.data() + (size_t(past) * shape_.kv_heads + kv_head) * shape_.head_dim;
      for (int i = 0; i < shape_.head_dim; ++i) out[i] += weights[past] / total * value[i];
    }
    return out;
  }

  void ExpectRow(const std::vector<float>& out, int token) const {
    for (int head = 0; head < shape_.query_heads; ++head) {
      const std::vector<double> expected = Expected(token, head);
      for (int i = 0; i < shape_.head_dim; ++i) {
        const float value = out[size_t(token) * stride_ + size_t(head) * shape_.head_dim + i];
        // Rounding to bf16 is up to 2^-8 of the value; fp32 sums of terms below 4 are good to a few millionths.
        ASSERT_NEAR(value, expected[i], 0.00391 * std::abs(expected[i]) + 2e-5)
            << "token " << token << ", head " << head << ", element " << i;
        ASSERT_EQ(value, Bf16ToFloat(Bf16Bits(value)));
      }
    }
    for (int after = shape_.query_heads * shape_.head_dim; after < stride_; ++after) {
      ASSERT_TRUE(std::isnan(out[size_t(token) * stride_ + after]));
    }
  }

  const unsigned seed_;
  std::mt19937 random_;
  HeadShape shape_{};
  int window_ = 0;
  float soft_cap_ = 0;
  int length_ = 0;
  int stride_ = 0;
  size_t key_offset_ = 0;
  size_t value_offset_ = 0;
  std::vector<std::byte> memory_;
  std::vector<const std::byte*> pages_;
  std::vector<float> keys_;
  std::vector<float> values_;
  std::vector<float> queries_;
};

const HeadShape kShapes[] = {{1, 1, 16}, {9, 3, 64}, {5, 1, 48}, {14, 2, 32}, {4, 4, 96}, {3, 1, 256}, {3, 3, 80}};

TEST_F(AttentionTest, IsThatOfASlowReferenceOnEveryInstructionSet) {
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const HeadShape& shape : kShapes) {
      for (const int length : {1, 15, 16, 17, 33, 100}) {
        SCOPED_TRACE(testing::Message() << TargetName(target) << ", " << shape.query_heads << "/" << shape.kv_heads
                                        << " heads of " << shape.head_dim << ", " << length << " tokens");
        Fill(shape, length);
        const std::vector<float> out = Run(0, 16);
        for (int token = 0; token < length; ++token) ExpectRow(out, token);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(AttentionTest, HoldsForALongContext) {
  Fill({9, 3, 64}, 3001);
  const std::vector<float> out = Run(2990, 4);
  for (int token = 2990; token < 3001; ++token) ExpectRow(out, token);
}

TEST_F(AttentionTest, RowsTogetherGiveTheBitsOfRowsAlone) {
  for (const HeadShape& shape : kShapes) {
    Fill(shape, 90);
    const std::vector<float> alone = Run(0, 1);
    for (const int64_t target : KernelTargets()) {
      const ScopedTarget scope(target);
      for (const int rows : {1, 2, 4, 5, 16, 90}) {
        const std::vector<float> together = Run(0, rows);
        ASSERT_EQ(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float)), 0)
            << TargetName(target) << ", " << rows << " rows, head_dim " << shape.head_dim;
      }
    }
  }
}

TEST_F(AttentionTest, SeesOnlyItsWindow) {
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const int window : {1, 5, 16, 17, 40, 1000}) {
      SCOPED_TRACE(testing::Message() << TargetName(target) << ", window " << window);
      window_ = window;
      Fill({9, 3, 32}, 100);
      const std::vector<float> alone = Run(0, 1);
      for (int token = 0; token < 100; ++token) ExpectRow(alone, token);
      for (const int rows : {2, 16, 100}) {
        const std::vector<float> together = Run(0, rows);
        ASSERT_EQ(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float)), 0) << rows << " rows";
      }
    }
  }
}

TEST_F(AttentionTest, ReadsNoPageBeforeTheWindow) {
  window_ = 20;
  Fill({2, 1, 32}, 200);
  const std::vector<float> expected = Run(190, 4);
  // Token 190 sees 171 and later ones, which begin in page 10.
  for (int page = 0; page < 10; ++page) pages_[page] = nullptr;
  const std::vector<float> out = Run(190, 4);
  EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0);
}

TEST_F(AttentionTest, CapsScoresSoftly) {
  soft_cap_ = 1.5F;  // scores have a deviation of 2
  std::vector<float> first;
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    if (first.empty()) Fill({4, 2, 48}, 70);
    const std::vector<float> out = Run(0, 16);
    for (int token = 0; token < 70; ++token) ExpectRow(out, token);
    if (first.empty()) first = out;
    EXPECT_EQ(std::memcmp(out.data(), first.data(), out.size() * sizeof(float)), 0) << TargetName(target);
  }
}

TEST_F(AttentionTest, SurvivesScoresFarApart) {
  Fill({2, 1, 32}, 40);
  for (float& query : queries_) query *= 1000;
  const std::vector<float> out = Run(0, 16);
  for (int token = 0; token < 40; ++token) {
    for (int i = 0; i < 64; ++i) ASSERT_TRUE(std::isfinite(out[size_t(token) * stride_ + i]));
  }
}

TEST(StoreKeyValueTest, WritesOneSlotInThePagesLayout) {
  const HeadShape shape{2, 2, 16};
  std::vector<uint16_t> keys(2 * 16 * kPageTokens, 0xabcd);
  std::vector<uint16_t> values(2 * 16 * kPageTokens, 0xabcd);
  std::vector<float> key(32);
  std::vector<float> value(32);
  for (int i = 0; i < 32; ++i) {
    key[i] = 1.01F * static_cast<float>(i);
    value[i] = -1.03F * static_cast<float>(i);
  }
  StoreKeyValue(key.data(), value.data(), shape, 5, reinterpret_cast<std::byte*>(keys.data()),
                reinterpret_cast<std::byte*>(values.data()));
  for (int head = 0; head < 2; ++head) {
    for (int i = 0; i < 16; ++i) {
      for (int slot = 0; slot < kPageTokens; ++slot) {
        const uint16_t k = slot == 5 ? Bf16Bits(key[head * 16 + i]) : 0xabcd;
        const uint16_t v = slot == 5 ? Bf16Bits(value[head * 16 + i]) : 0xabcd;
        EXPECT_EQ(keys[(head * 16 + i) * kPageTokens + slot], k);
        EXPECT_EQ(values[(head * kPageTokens + slot) * 16 + i], v);
      }
    }
  }
}

}  // namespace
}  // namespace quicksave::engine::cpu
