#include "server/archive/block_plan.h"

#include <algorithm>
#include <iostream>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

// As the origin of a next state.
std::vector<StoredBlock> Stored(const std::vector<PlannedBlock>& plan) {
  std::vector<StoredBlock> blocks;
  for (const PlannedBlock& block : plan) {
    blocks.push_back({.first_token = block.first_token, .token_count = block.token_count});
  }
  return blocks;
}

std::vector<int> Counts(const std::vector<PlannedBlock>& plan) {
  std::vector<int> counts;
  for (const PlannedBlock& block : plan)
    counts.push_back(block.stored != nullptr ? block.token_count : -block.token_count);
  return counts;
}

// Everything that holds for every plan.
void CheckPlan(const std::vector<PlannedBlock>& plan, const std::vector<StoredBlock>& stored, int common, int count) {
  int next = 0;
  std::vector<int> pieces(count / kWindowTokens + 1);
  for (const PlannedBlock& block : plan) {
    ASSERT_EQ(block.first_token, next);
    ASSERT_GT(block.token_count, 0);
    next += block.token_count;
    ASSERT_EQ(block.first_token / kWindowTokens, (next - 1) / kWindowTokens) << "crosses a window";
    ++pieces[block.first_token / kWindowTokens];
    if (block.stored == nullptr) continue;
    ASSERT_TRUE(block.stored >= stored.data() && block.stored < stored.data() + stored.size());
    ASSERT_EQ(block.stored->first_token, block.first_token);
    ASSERT_EQ(block.stored->token_count, block.token_count);
    ASSERT_LE(next, common);
  }
  ASSERT_EQ(next, count);
  ASSERT_LE(*std::max_element(pieces.begin(), pieces.end()), kMaxPieces);
}

TEST(BlockPlanTest, StateWithoutOriginIsCutAtWindows) {
  EXPECT_EQ(Counts(PlanBlocks({}, 0, 300)), (std::vector<int>{-128, -128, -44}));
  EXPECT_EQ(Counts(PlanBlocks({}, 0, 128)), (std::vector<int>{-128}));
  EXPECT_EQ(Counts(PlanBlocks({}, 0, 1)), (std::vector<int>{-1}));
}

TEST(BlockPlanTest, ContinuationKeepsAllBlocksAndFillsTheWindow) {
  const std::vector<StoredBlock> stored = Stored(PlanBlocks({}, 0, 300));
  EXPECT_EQ(Counts(PlanBlocks(stored, 300, 400)), (std::vector<int>{128, 128, 44, -84, -16}));
  EXPECT_EQ(Counts(PlanBlocks(stored, 300, 300)), (std::vector<int>{128, 128, 44}));
}

TEST(BlockPlanTest, BlockThatWasRewoundIntoIsStoredAnew) {
  const std::vector<StoredBlock> stored = Stored(PlanBlocks({}, 0, 300));
  EXPECT_EQ(Counts(PlanBlocks(stored, 200, 200)), (std::vector<int>{128, -72}));
  EXPECT_EQ(Counts(PlanBlocks(stored, 200, 300)), (std::vector<int>{128, -128, -44}));
}

TEST(BlockPlanTest, NinthPieceMakesTheWindowOneBlock) {
  std::vector<StoredBlock> stored;
  for (int count = 1; count <= kMaxPieces; ++count) {
    const std::vector<PlannedBlock> plan = PlanBlocks(stored, count - 1, count);
    ASSERT_EQ(static_cast<int>(plan.size()), count);
    stored = Stored(plan);
  }
  EXPECT_EQ(Counts(PlanBlocks(stored, kMaxPieces, kMaxPieces + 1)), (std::vector<int>{-9}));
}

TEST(BlockPlanTest, MissingStoredBlockIsCutAnewAndTheOthersKept) {
  std::vector<StoredBlock> stored = Stored(PlanBlocks({}, 0, 500));
  stored.erase(stored.begin() + 1);
  EXPECT_EQ(Counts(PlanBlocks(stored, 500, 510)), (std::vector<int>{128, -128, 128, 116, -10}));
}

TEST(BlockPlanTest, RandomHistoriesTileExactly) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int history = 0; history < 300; ++history) {
    std::vector<StoredBlock> stored;
    int count = 0;
    for (int step = 0; step < 40; ++step) {
      const int common = random() % 3 == 0 ? static_cast<int>(random() % (count + 1)) : count;
      const int next = std::max(1, common + static_cast<int>(random() % (random() % 4 == 0 ? 400 : 20)));
      const std::vector<PlannedBlock> plan = PlanBlocks(stored, common, next);
      ASSERT_NO_FATAL_FAILURE(CheckPlan(plan, stored, common, next));
      stored = Stored(plan);
      count = next;
      if (random() % 10 == 0) stored.erase(stored.begin() + static_cast<long>(random() % stored.size()));
    }
  }
}

}  // namespace
}  // namespace quicksave::server
