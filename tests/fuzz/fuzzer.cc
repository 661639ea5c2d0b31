// A libFuzzer program of the decoder that QUICKSAVE_FUZZ_TARGET names; see scripts/fuzz.sh.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/decoder_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const quicksave::fuzz::DecoderTarget& target = quicksave::fuzz::FindDecoderTarget(QUICKSAVE_FUZZ_TARGET);
  target.decode(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
