#include "server/scheduler/page_broker.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

constexpr engine::KvShape kShape = {.layers = 1, .kv_heads = 1, .head_dim = 16};

class PageBrokerTest : public testing::Test {
 protected:
  std::unique_ptr<engine::PagePool> pool_ =
      engine::PagePool::Create({.shape = kShape, .memory_bytes = 32 * kShape.page_bytes()}).value();
  PageBroker broker_{pool_.get(), absl::Seconds(20)};
};

TEST_F(PageBrokerTest, GrantsWhatIsFreeButForTheHeadroom) {
  EXPECT_EQ(broker_.most_pages(), 30);
  absl::StatusOr<engine::PageReservation> most = broker_.Reserve(30, {});
  ASSERT_TRUE(most.ok());
  EXPECT_EQ(most->pages(), 30);
  EXPECT_EQ(pool_->free_pages(), 2);
  EXPECT_TRUE(broker_.ReserveFew(2, {}).ok());
}

TEST_F(PageBrokerTest, WhatNeverFitsIsRefusedAtOnce) {
  const absl::Status status = broker_.Reserve(31, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("kv_memory: "));
  EXPECT_EQ(broker_.counters().refused, 1);
}

TEST_F(PageBrokerTest, WaitsUntilOthersLetGo) {
  engine::PageReservation held = broker_.Reserve(30, {}).value();
  absl::Notification done;
  std::thread waiter([&] {
    EXPECT_TRUE(broker_.Reserve(20, {}).ok());
    done.Notify();
  });
  EXPECT_FALSE(done.WaitForNotificationWithTimeout(absl::Milliseconds(30)));
  held = {};
  waiter.join();
  EXPECT_EQ(broker_.counters().waited, 1);
  EXPECT_EQ(broker_.counters().refused, 0);
}

TEST_F(PageBrokerTest, HasRoomMadeFirst) {
  std::vector<engine::PageReservation> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(broker_.Reserve(10, {}).value());
  broker_.set_make_room([&](int) {
    if (idle.empty()) return false;
    idle.pop_back();
    return true;
  });
  EXPECT_TRUE(broker_.Reserve(15, {}).ok());
  EXPECT_EQ(idle.size(), 1u);
}

TEST_F(PageBrokerTest, TheCallersPatienceEndsTheWait) {
  const engine::PageReservation held = broker_.Reserve(30, {}).value();
  EXPECT_EQ(broker_.Reserve(1, {.deadline = absl::Now() + absl::Milliseconds(20)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(broker_.Reserve(1, {.cancelled = [] { return true; }}).status().code(), absl::StatusCode::kCancelled);
  PageBroker impatient(pool_.get(), absl::Milliseconds(20));
  EXPECT_EQ(impatient.Reserve(1, {}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(PageBrokerTest, LargeReservationsAreNotOvertakenForEver) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> small;
  for (int i = 0; i < 3; ++i) {
    small.emplace_back([&] {
      while (!stop.load()) EXPECT_TRUE(broker_.Reserve(12, {}).ok());
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(broker_.Reserve(30, {}).ok());
  stop.store(true);
  for (std::thread& thread : small) thread.join();
  EXPECT_EQ(pool_->free_pages(), 32);
}

}  // namespace
}  // namespace quicksave::server
