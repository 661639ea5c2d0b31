#include "storage/frame.h"

#include <string>

#include "gtest/gtest.h"

namespace quicksave::storage {
namespace {

std::string Framed(absl::string_view key, absl::string_view payload) {
  const auto header = FrameHeader(key, payload);
  return std::string(header.data(), header.size()) + std::string(payload);
}

TEST(FrameTest, PayloadComesBack) {
  for (absl::string_view payload : {"", "x", "a longer payload"}) {
    const std::string framed = Framed("key", payload);
    auto opened = OpenFrame("key", framed, "it");
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(*opened, payload);
  }
}

// The form on disk: changing it takes a new frame version.
TEST(FrameTest, BytesAreThoseOfVersionOne) {
  const auto header = FrameHeader("key", "payload");
  EXPECT_EQ(std::string(header.data(), header.size()),
            "\x01"
            "c\xB8"
            "b\x8D\xFE\xBA~\xD9");
}

TEST(FrameTest, EveryFlippedBitIsNoticedAndNamed) {
  const std::string framed = Framed("key", "payload");
  for (size_t bit = 0; bit < 8 * framed.size(); ++bit) {
    std::string flipped = framed;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const absl::Status status = OpenFrame("key", flipped, "block 42").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << bit;
    EXPECT_NE(status.message().find("block 42"), absl::string_view::npos);
  }
}

TEST(FrameTest, EveryShorterValueIsNoticed) {
  const std::string framed = Framed("key", "payload");
  for (size_t size = 0; size < framed.size(); ++size) {
    EXPECT_FALSE(OpenFrame("key", absl::string_view(framed).substr(0, size), "it").ok()) << size;
  }
}

TEST(FrameTest, ValueOfAnotherKeyIsNoticed) {
  EXPECT_EQ(OpenFrame("another key", Framed("key", "payload"), "it").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace quicksave::storage
