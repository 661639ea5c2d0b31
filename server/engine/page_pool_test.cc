#include "server/engine/page_pool.h"

#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

constexpr KvShape kShape{.layers = 2, .kv_heads = 1, .head_dim = 32};

std::unique_ptr<PagePool> NewPool(int pages, bool poison = false) {
  return PagePool::Create({.shape = kShape, .memory_bytes = pages * kShape.page_bytes() + 1, .poison = poison}).value();
}

TEST(KvShapeTest, OffsetsTileAPage) {
  const KvShape shape{.layers = 3, .kv_heads = 2, .head_dim = 64};
  EXPECT_EQ(shape.half_layer_bytes(), size_t{2} * 64 * cpu::kPageTokens * 2);
  EXPECT_EQ(shape.page_bytes(), 6 * shape.half_layer_bytes());
  EXPECT_EQ(shape.key_offset(0), 0u);
  EXPECT_EQ(shape.value_offset(0), shape.half_layer_bytes());
  EXPECT_EQ(shape.key_offset(2), 4 * shape.half_layer_bytes());
  EXPECT_EQ(shape.value_offset(2) + shape.half_layer_bytes(), shape.page_bytes());
}

TEST(PagesForTest, RoundsUp) {
  EXPECT_EQ(PagesFor(0), 0);
  EXPECT_EQ(PagesFor(1), 1);
  EXPECT_EQ(PagesFor(16), 1);
  EXPECT_EQ(PagesFor(17), 2);
}

TEST(PagePoolTest, UsesWholePagesOfItsBudget) {
  EXPECT_EQ(NewPool(3)->total_pages(), 3);
  const auto none = PagePool::Create({.shape = kShape, .memory_bytes = kShape.page_bytes() - 1});
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PagePoolTest, RefusesWhatIsNotFreeAndSaysHowMuchIs) {
  const std::unique_ptr<PagePool> pool = NewPool(10);
  PageReservation most = pool->Reserve(7).value();
  const absl::Status status = pool->Reserve(4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("4 pages"));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("3 of 10"));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--kv-memory"));
  // Taking pages changes nothing in what is left for others.
  const PageRef page = most.Take();
  EXPECT_FALSE(pool->Reserve(4).ok());
  EXPECT_TRUE(pool->Reserve(3).ok());
  EXPECT_TRUE(pool->Reserve(0).ok());
}

TEST(PagePoolTest, GivesBackWhatAReservationDidNotTake) {
  const std::unique_ptr<PagePool> pool = NewPool(10);
  {
    PageReservation reservation = pool->Reserve(10).value();
    const PageRef page = reservation.Take();
    EXPECT_EQ(reservation.pages(), 9);
    EXPECT_EQ(pool->used_pages(), 1);
  }
  EXPECT_EQ(pool->used_pages(), 0);
  EXPECT_TRUE(pool->Reserve(10).ok());
}

TEST(PageReservationTest, MovesAndAddsWithoutLosingPages) {
  const std::unique_ptr<PagePool> pool = NewPool(10);
  PageReservation a = pool->Reserve(3).value();
  PageReservation b = pool->Reserve(4).value();
  a.Add(std::move(b));
  EXPECT_EQ(a.pages(), 7);
  EXPECT_EQ(pool->Reserve(4).ok(), false);
  PageReservation c = std::move(a);
  EXPECT_EQ(c.pages(), 7);
  c = pool->Reserve(2).value();  // the 7 go back
  EXPECT_TRUE(pool->Reserve(8).ok());
  c.Add(PageReservation());  // nothing
  EXPECT_EQ(c.pages(), 2);
  c = {};
  EXPECT_TRUE(pool->Reserve(10).ok());
}

TEST(PageRefTest, KeepsAPageUntilTheLastCopyIsGone) {
  const std::unique_ptr<PagePool> pool = NewPool(1);
  PageReservation reservation = pool->Reserve(1).value();
  PageRef first = reservation.Take();
  EXPECT_TRUE(first.unique());
  EXPECT_EQ(first.size(), kShape.page_bytes());
  std::memset(first.data(), 7, first.size());
  PageRef second = first;
  EXPECT_FALSE(first.unique());
  EXPECT_EQ(second.data(), first.data());
  PageRef third = std::move(first);
  EXPECT_FALSE(third.unique());
  second = PageRef();
  EXPECT_TRUE(third.unique());
  EXPECT_FALSE(pool->Reserve(1).ok());
  EXPECT_EQ(third.data()[third.size() - 1], std::byte{7});
  PageRef& same = third;
  third = same;
  EXPECT_TRUE(third.unique());
  third = PageRef();
  EXPECT_TRUE(pool->Reserve(1).ok());
  EXPECT_EQ(pool->used_pages(), 0);
}

TEST(PagePoolTest, PoisonsPagesThatItHandsOutAgain) {
  const std::unique_ptr<PagePool> pool = NewPool(1, /*poison=*/true);
  for (int round = 0; round < 2; ++round) {
    PageReservation reservation = pool->Reserve(1).value();
    const PageRef page = reservation.Take();
    for (size_t i = 0; i < page.size(); ++i) ASSERT_EQ(page.data()[i], std::byte{0xff});
    std::memset(page.data(), 0, page.size());
  }
}

TEST(PagePoolTest, PagesDoNotOverlap) {
  const std::unique_ptr<PagePool> pool = NewPool(5);
  PageReservation reservation = pool->Reserve(5).value();
  std::vector<PageRef> pages;
  for (int i = 0; i < 5; ++i) {
    pages.push_back(reservation.Take());
    std::memset(pages.back().data(), i, pages.back().size());
  }
  for (int i = 0; i < 5; ++i) {
    for (size_t k = 0; k < pages[i].size(); ++k) ASSERT_EQ(pages[i].data()[k], std::byte(i));
  }
}

TEST(PageReservationDeathTest, DiesWhenMoreIsTakenThanWasReserved) {
  const std::unique_ptr<PagePool> pool = NewPool(2);
  PageReservation reservation = pool->Reserve(1).value();
  const PageRef page = reservation.Take();
  EXPECT_DEATH(reservation.Take(), "more pages taken than were reserved");
}

TEST(PagePoolTest, ThreadsNeverShareAPageThatTheyDidNotCopy) {
  const std::unique_ptr<PagePool> pool = NewPool(64);
  std::atomic<int> refused{0};
  const auto work = [&](int thread) {
    std::mt19937 random(thread);
    std::vector<PageRef> mine;
    for (int round = 0; round < 3000; ++round) {
      const int wanted = static_cast<int>(random() % 8);
      if (absl::StatusOr<PageReservation> reservation = pool->Reserve(wanted); reservation.ok()) {
        while (reservation->pages() > 1) {  // one is given back
          mine.push_back(reservation->Take());
          std::memset(mine.back().data(), thread, 64);
        }
      } else {
        refused.fetch_add(1);
      }
      while (mine.size() > random() % 24) {
        const PageRef copy = mine.back();
        mine.pop_back();
        for (int i = 0; i < 64; ++i) ASSERT_EQ(copy.data()[i], std::byte(thread));
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i <= 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool->used_pages(), 0);
  EXPECT_TRUE(pool->Reserve(64).ok());
  EXPECT_FALSE(pool->Reserve(65).ok());
}

TEST(PageRefTest, CopiesMayBeDroppedByOtherThreads) {
  const std::unique_ptr<PagePool> pool = NewPool(2);
  for (int round = 0; round < 300; ++round) {
    PageReservation reservation = pool->Reserve(1).value();
    PageRef page = reservation.Take();
    page.data()[0] = std::byte{1};
    std::thread reader([copy = page] { EXPECT_EQ(copy.data()[0], std::byte{1}); });
    // Once it is unique, what the reader did is over.
    while (!page.unique()) std::this_thread::yield();
    page.data()[0] = std::byte{2};
    reader.join();
  }
}

}  // namespace
}  // namespace quicksave::engine
