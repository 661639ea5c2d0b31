// A learned sidecar's E and D on the panels of one block.

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_NETWORK_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_NETWORK_H_

#include <functional>
#include <vector>

#include "compressor/learned/learned_profile.h"

namespace quicksave::compressor {

// One panel for each group: [components, columns] of the base, or [latent_width, columns] of what is coded.
using Panels = std::vector<std::vector<float>>;

// What a decoder will make of a coded value: of a group, its component.
using Rounding = std::function<float(size_t group, int component, float value)>;

// The arithmetic of one block. Does not own the profile, which is valid. Immutable.
class LearnedNetwork {
 public:
  // The first of the block's `tokens` coded tokens stands at that position; panels have so many columns.
  LearnedNetwork(const LearnedProfile& profile, int64_t first_position, int tokens, int columns)
      : profile_(profile), first_position_(first_position), tokens_(tokens), columns_(columns) {}

  // What is to be coded. A recurrent encoder sees what decoders will see of the tokens before, so it is told by
  // `rounding`; the others do not ask. Bits may differ between machines.
  Panels Encode(const Panels& components, const Rounding& rounding) const;
  // The components. The same bits on every machine.
  Panels Decode(const Panels& coded) const;

 private:
  enum class Side { kEncoder, kDecoder };

  Panels Run(Side side, const Panels& inputs) const;
  std::vector<float> FirstInputs(const std::vector<float>& panel) const;
  // The recurrent encoder of a group, token by token.
  std::vector<float> EncodeInTurn(size_t group, const std::vector<float>& components, const Rounding& rounding) const;
  // z of what is coded: the decoder's recurrence, in place.
  void Accumulate(size_t group, std::vector<float>& coded) const;

  const LearnedProfile& profile_;
  const int64_t first_position_;
  const int tokens_;
  const int columns_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_NETWORK_H_
