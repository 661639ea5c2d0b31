// What the targets of the decoders have in common: checksums put right, and what an answer may be.

#ifndef QUICKSAVE_TESTS_FUZZ_SEALED_INPUT_H_
#define QUICKSAVE_TESTS_FUZZ_SEALED_INPUT_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "compressor/block.h"

namespace quicksave::fuzz {

// Larger blocks take long, and no other code.
inline constexpr size_t kMostValues = 1 << 14;

// Aborts, saying what, unless it holds.
void Require(bool holds, const char* what);

// Aborts unless the status is what a decoder may say of bytes: damage, made by a newer program, or for something else.
void RequireDecoderStatus(const absl::Status& status);

// The bytes with their checksum appended, as profiles and row blocks have it.
std::string Sealed(std::string_view body);
// The inverse.
std::string Unsealed(const std::string& bytes);

// A container with right checksums and this profile, as far as the bytes are like a container at all.
std::string SealedContainer(std::string_view bytes, const compressor::Digest128& profile);

}  // namespace quicksave::fuzz

#endif  // QUICKSAVE_TESTS_FUZZ_SEALED_INPUT_H_
