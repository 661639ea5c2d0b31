#include "tests/fuzz/decoder_targets.h"

#include <algorithm>
#include <iterator>

#include "tests/fuzz/sealed_input.h"

namespace quicksave::fuzz {

const std::vector<DecoderTarget>& DecoderTargets() {
  static const auto& targets = *new std::vector<DecoderTarget>([] {
    std::vector<DecoderTarget> all;
    for (const auto& some : {LosslessTargets(), LatentTargets(), LearnedTargets(), StoredTargets()}) {
      std::copy(some.begin(), some.end(), std::back_inserter(all));
    }
    return all;
  }());
  return targets;
}

const DecoderTarget& FindDecoderTarget(std::string_view name) {
  const std::vector<DecoderTarget>& targets = DecoderTargets();
  const auto found =
      std::find_if(targets.begin(), targets.end(), [&](const DecoderTarget& target) { return name == target.name; });
  Require(found != targets.end(), "there is no such target");
  return *found;
}

}  // namespace quicksave::fuzz
