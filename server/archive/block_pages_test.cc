#include "server/archive/block_pages.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

using engine::cpu::kPageTokens;

struct Pages {
  Pages(const engine::KvShape& kv, int tokens) : shape(kv) {
    const int count = engine::PagesFor(tokens);
    pool = engine::PagePool::Create({.shape = kv, .memory_bytes = count * kv.page_bytes(), .poison = true}).value();
    engine::PageReservation reservation = pool->Reserve(count).value();
    for (int i = 0; i < count; ++i) refs.push_back(reservation.Take());
  }
  // The slow and obvious way to one element.
  uint16_t& At(int layer, bool value, int head, int dim, int token) const {
    std::byte* page = refs[token / kPageTokens].data();
    const int slot = token % kPageTokens;
    auto* half = reinterpret_cast<uint16_t*>(page + (value ? shape.value_offset(layer) : shape.key_offset(layer)));
    return value ? half[(head * kPageTokens + slot) * shape.head_dim + dim]
                 : half[(head * shape.head_dim + dim) * kPageTokens + slot];
  }
  void Fill(std::mt19937& random) const {
    for (const engine::PageRef& page : refs) {
      auto* bits = reinterpret_cast<uint16_t*>(page.data());
      for (size_t i = 0; i < page.size() / sizeof(uint16_t); ++i) bits[i] = static_cast<uint16_t>(random());
    }
  }

  engine::KvShape shape;
  std::unique_ptr<engine::PagePool> pool;
  std::vector<engine::PageRef> refs;
};

std::vector<uint16_t> ReferenceGather(const Pages& pages, int first_token, int tokens) {
  std::vector<uint16_t> block;
  for (int layer = 0; layer < pages.shape.layers; ++layer) {
    for (const bool value : {false, true}) {
      for (int head = 0; head < pages.shape.kv_heads; ++head) {
        for (int dim = 0; dim < pages.shape.head_dim; ++dim) {
          for (int t = 0; t < tokens; ++t) block.push_back(pages.At(layer, value, head, dim, first_token + t));
        }
      }
    }
  }
  return block;
}

std::vector<uint16_t> Gather(const Pages& pages, int first_token, int tokens) {
  const compressor::BlockShape shape = ShapeOfBlock(pages.shape, tokens);
  std::vector<uint16_t> values(shape.values());
  GatherBlock(pages.refs, first_token, {shape, absl::MakeSpan(values)});
  return values;
}

engine::KvShape RandomShape(std::mt19937& random) {
  const int dims[] = {1, 7, 8, 16, 40, 64, 128};
  return {.layers = 1 + static_cast<int>(random() % 3),
          .kv_heads = 1 + static_cast<int>(random() % 4),
          .head_dim = dims[random() % std::size(dims)]};
}

std::mt19937 SeededRandom() {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return std::mt19937(seed);
}

TEST(BlockPagesTest, GatherEqualsSlowReferenceForAnyShapeAndOffset) {
  std::mt19937 random = SeededRandom();
  for (int round = 0; round < 100; ++round) {
    const int tokens = 1 + static_cast<int>(random() % 128);
    const int first = static_cast<int>(random() % 70);
    Pages pages(RandomShape(random), first + tokens);
    pages.Fill(random);
    ASSERT_EQ(Gather(pages, first, tokens), ReferenceGather(pages, first, tokens))
        << tokens << " tokens from " << first << ", head_dim " << pages.shape.head_dim;
  }
}

TEST(BlockPagesTest, ScatterWritesTheGivenTokensAndNothingElse) {
  std::mt19937 random = SeededRandom();
  for (int round = 0; round < 100; ++round) {
    const int tokens = 1 + static_cast<int>(random() % 128);
    const int used = 1 + static_cast<int>(random() % tokens);
    const int first = static_cast<int>(random() % 70);
    const engine::KvShape shape = RandomShape(random);
    Pages source(shape, first + tokens);
    source.Fill(random);
    Pages target(shape, first + tokens);
    const int all = static_cast<int>(target.refs.size()) * kPageTokens;
    const std::vector<uint16_t> block = ReferenceGather(source, first, tokens);
    ScatterBlock({ShapeOfBlock(shape, tokens), block}, used, first, target.refs);
    ASSERT_EQ(ReferenceGather(target, first, used), ReferenceGather(source, first, used));
    ASSERT_THAT(ReferenceGather(target, 0, first), testing::Each(0xffff));
    ASSERT_THAT(ReferenceGather(target, first + used, all - first - used), testing::Each(0xffff));
  }
}

TEST(BlockPagesTest, PiecesOfOnePageAreScatteredByDifferentThreads) {
  std::mt19937 random = SeededRandom();
  const engine::KvShape shape{.layers = 2, .kv_heads = 3, .head_dim = 64};
  Pages source(shape, 48);
  source.Fill(random);
  Pages target(shape, 48);
  std::vector<std::thread> threads;
  for (int first = 0; first < 48; first += 6) {
    threads.emplace_back([&, first] {
      const std::vector<uint16_t> block = Gather(source, first, 6);
      ScatterBlock({ShapeOfBlock(shape, 6), block}, 6, first, target.refs);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ReferenceGather(target, 0, 48), ReferenceGather(source, 0, 48));
}

}  // namespace
}  // namespace quicksave::server
