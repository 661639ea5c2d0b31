// One section of the `exact` codec's payload: some whole channels, coded together. docs/formats/block_container.md
// gives the bytes.

#ifndef QUICKSAVE_COMPRESSOR_EXACT_SECTION_H_
#define QUICKSAVE_COMPRESSOR_EXACT_SECTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/byte_io.h"
#include "compressor/entropy_table.h"
#include "compressor/exact_values.h"
#include "compressor/model_adjuster.h"
#include "compressor/rans.h"

namespace quicksave::compressor {

// How a section's values are coded; the first byte of a section.
enum class SectionMode : uint8_t { kRaw = 0, kProfileModels = 1, kOwnModels = 2, kAdjustedModels = 3 };

// Working memory of one Encode or Decode call, reused from section to section.
struct SectionScratch {
  std::vector<uint8_t> symbols;
  std::vector<uint16_t> words;
  std::vector<uint8_t> raw_bits;
  // Room for all values and for a vector beyond them.
  std::vector<uint16_t> escapes;
  // The model of each channel, and the bytes that tell them.
  std::vector<ChannelModel> models;
  std::vector<std::optional<ModelAdjustment>> adjustments;
  std::string stored_models;
  // The table of each symbol.
  std::vector<uint8_t> table_of;
};

// Encodes sections with one set of tables. Immutable.
class SectionEncoder {
 public:
  explicit SectionEncoder(absl::Span<const TableFrequencies> tables);

  // Appends a section of `values`, channels of `tokens` values each, to `out`: coded, or raw where that is shorter.
  // `models` holds the profile's model of each channel; if it is empty, the section gets models of its own.
  void Encode(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
              SectionScratch& scratch, std::string& out) const;

 private:
  SectionMode ChooseModels(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                           SectionScratch& scratch) const;
  // Fills the scratch's symbols, tables, raw bits and escapes; returns the number of these.
  size_t MakeSymbols(absl::Span<const uint16_t> values, size_t tokens, SectionScratch& scratch) const;

  std::vector<EncodeTable> tables_;
  std::vector<AvailableSymbols> available_;
  ModelAdjuster adjuster_;
};

// A section to decode: all its bytes, the profile's model of each channel (or nothing without a profile), and where
// the channels' values go.
struct SectionInput {
  std::string_view bytes;
  absl::Span<const ChannelModel> models;
  absl::Span<uint16_t> values;
};

// Decodes sections with one set of tables. Immutable.
class SectionDecoder {
 public:
  explicit SectionDecoder(absl::Span<const TableFrequencies> tables);

  // Decodes a section into channels of `tokens` values each. DATA_LOSS if Encode cannot have written the bytes.
  absl::Status Decode(const SectionInput& section, size_t tokens, SectionScratch& scratch) const;
  // Two sections at once, which is faster.
  absl::Status DecodePair(const SectionInput& first, const SectionInput& second, size_t tokens,
                          SectionScratch& first_scratch, SectionScratch& second_scratch) const;

 private:
  // What a section's bytes consist of, once its models are read.
  struct Parts {
    bool raw = false;
    std::string_view escapes;
    std::string_view raw_bits;
    RansInput symbols;
  };

  absl::StatusOr<Parts> Divide(const SectionInput& section, size_t tokens, SectionScratch& scratch) const;
  absl::Status DecodeParts(const SectionInput& section, const Parts& parts, size_t tokens,
                           const SectionScratch& scratch) const;
  absl::Status Restore(const SectionInput& section, const Parts& parts, size_t tokens,
                       const SectionScratch& scratch) const;
  absl::Status ReadModels(SectionMode mode, size_t channels, absl::Span<const ChannelModel> models, ByteReader& reader,
                          SectionScratch& scratch) const;

  std::vector<DecodeTable> tables_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_EXACT_SECTION_H_
