#include "compressor/xxh3.h"

// For a state on the stack.
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#if defined(__x86_64__)
// Puts the functions that choose the instructions in the place of those that do not.
#include <xxh_x86dispatch.h>
#endif

namespace quicksave::compressor {

uint64_t Xxh3(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }

Xxh3Digest Xxh3Wide(const Xxh3Input& input) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, input.first, input.first_bytes);
  XXH3_128bits_update(&state, input.second, input.second_bytes);
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return {hash.high64, hash.low64};
}

}  // namespace quicksave::compressor
