// Real-valued latents as the payload of a block, and back: quantised, and entropy coded with static tables. What the
// codecs `latent` and `learned` store; docs/formats/latent_block.md has the bytes.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_LATENT_PAYLOAD_H_
#define QUICKSAVE_COMPRESSOR_LATENT_LATENT_PAYLOAD_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"
#include "compressor/entropy_table.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"

namespace quicksave::compressor {

// A payload that grows group by group. Made by LatentPayloadCoder.
struct PayloadDraft {
  float step = 0;
  std::string shifts;
  std::vector<uint8_t> symbols;
  std::vector<uint8_t> table_of;
  std::vector<int32_t> escapes;
};

class LatentPayloadCoder;

// A payload that was read, and checked. Not thread-safe.
class LatentPayload {
 public:
  float step = 0;
  Digest128 digest;  // of the decoded block

  // The latent of the first group, then of the next one; at most as many as there are groups. The memory of `latent` is
  // used again.
  void TakeGroup(SparseLatent& latent);

 private:
  friend class LatentPayloadCoder;
  LatentPayload(const LatentPayloadCoder& coder, int tokens, int columns)
      : coder_(&coder), tokens_(tokens), columns_(columns) {}

  const LatentPayloadCoder* coder_;
  int tokens_;
  int columns_;
  std::vector<std::vector<CodedComponent>> components_;  // of each group
  std::vector<uint8_t> symbols_;
  std::vector<int32_t> escapes_;
  size_t next_group_ = 0;
  size_t next_symbol_ = 0;
  size_t next_escape_ = 0;
};

// Codes with a profile's tables. Immutable; any thread.
class LatentPayloadCoder {
 public:
  // The classes are kSigmaClasses, valid, and outlive it.
  explicit LatentPayloadCoder(absl::Span<const SigmaClass> classes);

  // Quantises a group's latent [sigma.size(), columns], the first `tokens` columns of it, and appends it to the draft,
  // whose step is a step. All values are finite. Returns what Decode will.
  SparseLatent Add(absl::Span<const float> sigma, absl::Span<const float> latent, int tokens, int columns,
                   PayloadDraft& draft) const;

  // The payload of all groups, with the digest of what a decoder makes of it.
  EncodedBlock Finish(const PayloadDraft& draft, const Digest128& digest, const BlockShape& shape) const;

  // Reads a payload whose groups have these deviations. DATA_LOSS for bytes that Finish cannot have written. The answer
  // must not outlive the coder.
  absl::StatusOr<LatentPayload> Decode(std::string_view bytes, absl::Span<const absl::Span<const float>> sigmas,
                                       int tokens, int columns) const;

 private:
  friend class LatentPayload;
  // What is left of a block's symbols, and of the integers that its escapes stand for.
  struct CodedValues {
    absl::Span<const uint8_t> symbols;
    absl::Span<const int32_t> escapes;
  };
  // Takes a group's values, in steps, from the front of `coded`.
  void Take(absl::Span<const CodedComponent> components, int tokens, int columns, float step, CodedValues& coded,
            SparseLatent& latent) const;
  // Replaces the escapes of a row, from the front of `escapes`. Whether any integer of the row is not 0.
  bool TakeEscapes(absl::Span<const uint8_t> symbols, int sigma_class, absl::Span<const int32_t>& escapes,
                   float* row) const;
  int CheapestShift(absl::Span<const CodedComponent> components, absl::Span<const uint8_t> symbols,
                    size_t tokens) const;

  const absl::Span<const SigmaClass> classes_;
  std::vector<EncodeTable> encode_tables_;
  std::vector<DecodeTable> decode_tables_;
  std::vector<std::vector<float>> costs_;  // bits of each symbol, by class
};

// INVALID_ARGUMENT if a decoded value is not finite, unless it is as it was: what is not coded may be anything.
absl::Status CheckDecodedIsFinite(BlockView block, BlockView decoded);
// DATA_LOSS unless the decoded block has this digest.
absl::Status CheckDigest(const Digest128& digest, BlockView decoded);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_LATENT_PAYLOAD_H_
