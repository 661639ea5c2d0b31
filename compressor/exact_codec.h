// The `exact` codec: lossless for every bf16 bit pattern, static entropy coding of sign, exponent and the upper bits of
// the mantissa with tables per channel, and never more than a few bytes larger than raw.
//
//   CodecRegistry registry;
//   RegisterBuiltinCodecs(registry);            // `exact` with built-in tables: profile id none, works for any model
//   registry.Register(NewExactCodec(profile));  // later: the model's own tables; earlier blocks still decode

#ifndef QUICKSAVE_COMPRESSOR_EXACT_CODEC_H_
#define QUICKSAVE_COMPRESSOR_EXACT_CODEC_H_

#include <memory>

#include "compressor/codec.h"
#include "compressor/exact_profile.h"

namespace quicksave::compressor {

// The codec with a profile's tables, or with the built-in ones if `profile` is null. With a profile, Encode and Decode
// refuse (FAILED_PRECONDITION) blocks of another shape than the model's, and a context that names another model.
std::unique_ptr<const Codec> NewExactCodec(std::shared_ptr<const ExactProfile> profile);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_EXACT_CODEC_H_
