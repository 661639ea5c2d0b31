#include "compressor/xxh3.h"

#include <gtest/gtest.h>

#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

// The digests are stored: they must be the library's, whatever the instructions.
TEST(Xxh3Test, DigestsAreTheLibrarys) {
  TestRandom random(1);
  std::string bytes;
  for (int i = 0; i < 70'000; ++i) bytes.push_back(static_cast<char>(random.Next()));
  for (const size_t size : {0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1024, 1025, 4096, 65'537}) {
    EXPECT_EQ(Xxh3(bytes.data(), size), XXH3_64bits(bytes.data(), size)) << size;
    const XXH128_hash_t wide = XXH3_128bits(bytes.data(), size);
    for (const size_t first : {size_t{0}, size / 3, size}) {
      const Xxh3Digest digest = Xxh3Wide(
          {.first = bytes.data(), .first_bytes = first, .second = bytes.data() + first, .second_bytes = size - first});
      EXPECT_EQ(digest.high, wide.high64) << size;
      EXPECT_EQ(digest.low, wide.low64) << size;
    }
  }
}

}  // namespace
}  // namespace quicksave::compressor
