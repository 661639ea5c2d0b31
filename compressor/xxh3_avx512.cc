// Compiled for AVX-512 F on x86: includes nothing whose functions another file might take from here.

#include "compressor/xxh3.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quicksave::compressor {

uint64_t Xxh3Avx512(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }

Xxh3Digest Xxh3WideAvx512(const Xxh3Input& input) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, input.first, input.first_bytes);
  XXH3_128bits_update(&state, input.second, input.second_bytes);
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return {hash.high64, hash.low64};
}

}  // namespace quicksave::compressor
