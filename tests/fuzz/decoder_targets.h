// The decoders that take bytes from outside, each as a function of any bytes, for libFuzzer and for a plain test.
//
// Where a format has checksums, a target puts the right ones in first: what is behind them is what is tested.

#ifndef QUICKSAVE_TESTS_FUZZ_DECODER_TARGETS_H_
#define QUICKSAVE_TESTS_FUZZ_DECODER_TARGETS_H_

#include <string>
#include <string_view>
#include <vector>

namespace quicksave::fuzz {

struct DecoderTarget {
  // Also the name of its folder in corpus/.
  const char* name;
  // Decodes the bytes. Whether they were accepted; aborts, saying what, where an answer contradicts itself.
  bool (*decode)(std::string_view bytes);
  // Inputs to start from, valid ones among them.
  std::vector<std::string> (*seeds)();
};

// All of them.
const std::vector<DecoderTarget>& DecoderTargets();
// Those of the exact codec and of row blocks, of the latent codecs, of learned sidecars, and of the store.
std::vector<DecoderTarget> LosslessTargets();
std::vector<DecoderTarget> LatentTargets();
std::vector<DecoderTarget> LearnedTargets();
std::vector<DecoderTarget> StoredTargets();
// Aborts where there is no target of this name.
const DecoderTarget& FindDecoderTarget(std::string_view name);

}  // namespace quicksave::fuzz

#endif  // QUICKSAVE_TESTS_FUZZ_DECODER_TARGETS_H_
