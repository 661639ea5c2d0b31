// The `replay` codec: stores nothing but a block's identity. Its K and V are recomputed from the token ids, and the
// identity tells whether they are the same bits.

#ifndef QUICKSAVE_COMPRESSOR_REPLAY_CODEC_H_
#define QUICKSAVE_COMPRESSOR_REPLAY_CODEC_H_

#include <memory>

#include "compressor/codec.h"

namespace quicksave::compressor {

inline constexpr char kReplayCodec[] = "replay";

// Lossless. Encode gives an empty payload. Decode expects in `out` the recomputed block, and leaves it as it is: the
// container's check of the identity makes other values DATA_LOSS.
std::unique_ptr<const Codec> NewReplayCodec();

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_REPLAY_CODEC_H_
