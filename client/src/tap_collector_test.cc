#include "client/src/tap_collector.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/crc32c.h"

namespace quicksave::client {
namespace {

// What a server sends of two layers with three tokens of two elements, two tokens at a time.
std::vector<v1::ReadTapsResponse> Messages() {
  std::vector<v1::ReadTapsResponse> messages(1);
  v1::TapHeader& header = *messages[0].mutable_header();
  header.add_layers(3);
  header.add_layers(7);
  header.set_first_token(5);
  header.set_token_count(3);
  header.set_hidden_size(2);
  header.set_dtype("F32");
  header.set_model_fingerprint("f");
  header.set_total_bytes(48);
  float next = 0;
  int64_t offset = 0;
  for (const uint32_t layer : {3, 7}) {
    for (const int tokens : {2, 1}) {
      v1::TapChunk& chunk = *messages.emplace_back().mutable_chunk();
      chunk.set_layer(layer);
      for (int i = 0; i < 2 * tokens; ++i, ++next) {
        chunk.mutable_data()->append(reinterpret_cast<const char*>(&next), sizeof(next));
      }
      chunk.set_offset(offset);
      chunk.set_crc32c(Crc32c(chunk.data()));
      offset += static_cast<int64_t>(chunk.data().size());
    }
  }
  return messages;
}

absl::StatusOr<HiddenStates> Collect(const std::vector<v1::ReadTapsResponse>& messages) {
  TapCollector collector;
  for (const v1::ReadTapsResponse& message : messages) {
    if (!collector.Add(message)) return collector.status();
  }
  return std::move(collector).Finish();
}

TEST(Crc32cTest, IsThatOfRfc3720) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(TapCollectorTest, PutsChunksTogether) {
  const absl::StatusOr<HiddenStates> states = Collect(Messages());
  ASSERT_TRUE(states.ok()) << states.status();
  EXPECT_EQ(*states, (HiddenStates{.layers = {3, 7},
                                   .first_token = 5,
                                   .token_count = 3,
                                   .hidden_size = 2,
                                   .model_fingerprint = "f",
                                   .values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}));
}

TEST(TapCollectorTest, WhatDoesNotFitIsDataLoss) {
  const std::vector<std::function<void(std::vector<v1::ReadTapsResponse>&)>> damages = {
      [](auto& messages) { messages.pop_back(); },
      [](auto& messages) { messages.clear(); },
      [](auto& messages) { messages.erase(messages.begin()); },
      [](auto& messages) { messages.erase(messages.begin() + 2); },
      [](auto& messages) { std::swap(messages[1], messages[2]); },
      [](auto& messages) { messages.push_back(messages.back()); },
      [](auto& messages) { (*messages[3].mutable_chunk()->mutable_data())[2] ^= 1; },
      [](auto& messages) { messages[4].mutable_chunk()->set_crc32c(1); },
      [](auto& messages) { messages[0].mutable_header()->set_token_count(4); },
      [](auto& messages) { messages[0].mutable_header()->set_token_count(-3); },
      // No header, a second one, one that comes late.
      [](auto& messages) { messages.assign(1, v1::ReadTapsResponse()); },
      [](auto& messages) { messages.push_back(messages.front()); },
      [](auto& messages) { messages.insert(messages.begin(), messages.front()); },
      [](auto& messages) { std::swap(messages[0], messages[1]); },
      [](auto& messages) {
        messages.erase(messages.begin());
        for (auto& message : messages) message.mutable_chunk()->clear_data();
      },
      // Sizes whose product is 2^64.
      [](auto& messages) {
        messages.resize(1);
        v1::TapHeader& header = *messages[0].mutable_header();
        header.set_token_count(1 << 30);
        header.set_hidden_size(1 << 30);
        header.mutable_layers()->Resize(4, 0);
        header.set_total_bytes(0);
      },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    std::vector<v1::ReadTapsResponse> messages = Messages();
    damages[i](messages);
    EXPECT_EQ(Collect(messages).status().code(), absl::StatusCode::kDataLoss) << i;
  }
}

TEST(TapCollectorTest, AnotherTypeIsUnimplemented) {
  std::vector<v1::ReadTapsResponse> messages = Messages();
  messages[0].mutable_header()->set_dtype("BF16");
  EXPECT_EQ(Collect(messages).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace quicksave::client
