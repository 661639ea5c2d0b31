#include "compressor/builtin_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "compressor/cpu_features.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

// Four models at once must be those of one by one: which additions round how is part of what is stored.
TEST(BuiltinModelTest, BatchesGiveTheModelsOfSingles) {
  for (const int tokens : {1, 5, 8, 37, 64, 120, 128}) {
    const BlockShape shape{.layers = 4, .kv_heads = 2, .head_dim = 32, .tokens = tokens};
    for (const auto& values : {ModelLikeValues(shape, 1), RandomBits(shape, 2)}) {
      const auto count = static_cast<size_t>(tokens);
      for (size_t c = 0; c + kModelsAtOnce <= shape.channels(); c += kModelsAtOnce) {
        const ModelBatch batch = EstimateBuiltinModels({.values = values.data() + c * count, .count = count});
        for (size_t m = 0; m < kModelsAtOnce; ++m) {
          const auto alone = absl::MakeConstSpan(values).subspan((c + m) * count, count);
          EXPECT_EQ(batch[m], EstimateBuiltinModel(alone)) << tokens << " " << c + m;
        }
      }
    }
  }
}

TEST(BuiltinModelTest, FindsTheFourthLargest) {
  if (!HaveAvx512()) GTEST_SKIP() << "no AVX-512 here";
  TestRandom random(1);
  for (int i = 0; i < 10'000; ++i) {
    Sample sample;
    for (uint16_t& value : sample) value = static_cast<uint16_t>(random.Below(i % 2 == 0 ? 8 : 0x8000));
    Sample sorted = sample;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(FourthLargestAvx512(sample), sorted[12]);
  }
}

}  // namespace
}  // namespace quicksave::compressor
