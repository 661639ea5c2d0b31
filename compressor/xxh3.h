// XXH3 (github.com/Cyan4973/xxHash), with the instructions that the processor has; all give the same digests.

#ifndef QUICKSAVE_COMPRESSOR_XXH3_H_
#define QUICKSAVE_COMPRESSOR_XXH3_H_

#include <cstddef>
#include <cstdint>

namespace quicksave::compressor {

struct Xxh3Digest {
  uint64_t high;
  uint64_t low;
};

// The bytes of `first`, followed by those of `second`. Either may be empty.
struct Xxh3Input {
  const void* first;
  size_t first_bytes;
  const void* second;
  size_t second_bytes;
};

uint64_t Xxh3(const void* bytes, size_t size);
Xxh3Digest Xxh3Wide(const Xxh3Input& input);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_XXH3_H_
