#include "server/service/event_queue.h"

#include <string>

#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

v1::GenerateResponse Delta(const std::string& text, int tokens = 1) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_text(text);
  for (int i = 0; i < tokens; ++i) event.mutable_delta()->add_tokens()->set_id(i);
  return event;
}

v1::GenerateResponse Saved() {
  v1::GenerateResponse event;
  event.mutable_saved();
  return event;
}

TEST(EventQueueTest, JoinsDeltasThatFollowEachOther) {
  EventQueue queue;
  queue.Push(Delta("a"));
  queue.Push(Delta("b", 2));
  queue.Push(Saved());
  queue.Push(Delta("c"));
  const v1::GenerateResponse joined = *queue.Pop();
  EXPECT_EQ(joined.delta().text(), "ab");
  EXPECT_EQ(joined.delta().tokens_size(), 3);
  EXPECT_TRUE(queue.Pop()->has_saved());
  EXPECT_EQ(queue.Pop()->delta().text(), "c");
  EXPECT_FALSE(queue.Pop().has_value());
}

TEST(EventQueueTest, IsFullOfTokens) {
  EventQueue queue;
  queue.Push(Delta("a", 63));
  EXPECT_FALSE(queue.Full());
  queue.Push(Delta("b"));
  EXPECT_TRUE(queue.Full());
  queue.Pop();
  EXPECT_FALSE(queue.Full());
}

TEST(EventQueueTest, IsFullOfEventsThatKeepDeltasApart) {
  EventQueue queue;
  int events = 0;
  for (; !queue.Full() && events < 1000; events += 2) {
    queue.Push(Delta("a"));
    queue.Push(Saved());
  }
  EXPECT_EQ(events, 16);
  queue.Pop();
  EXPECT_FALSE(queue.Full());
  queue.Push(Delta("b"));
  EXPECT_TRUE(queue.Full());
  queue.Clear();
  EXPECT_FALSE(queue.Full());
}

}  // namespace
}  // namespace quicksave::server
