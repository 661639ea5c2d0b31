// Range asymmetric numeral systems (Duda 2013, arXiv:1311.2540): 32 interleaved streams of 32-bit states that share one
// sequence of 16-bit words (Giesen 2014, arXiv:1402.3392).
//
// Symbol i belongs to stream i % 32 and may use any of the tables, which the caller tells for each symbol.

#ifndef QUICKSAVE_COMPRESSOR_RANS_H_
#define QUICKSAVE_COMPRESSOR_RANS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/cpu_features.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

inline constexpr size_t kStreams = 32;
// States are in [kStateLow, 2^32).
inline constexpr uint32_t kStateLow = 1u << 16;
inline constexpr size_t kStateBytes = kStreams * sizeof(uint32_t);

// Appends the final states and the words of `symbols` to `out`. Symbol i is coded with tables[table_of[i]], which must
// have it. `scratch` is working memory that calls may share.
void RansEncode(absl::Span<const uint8_t> symbols, absl::Span<const uint8_t> table_of,
                absl::Span<const EncodeTable> tables, std::vector<uint16_t>& scratch, std::string& out,
                CpuPath path = CpuPath::kFastest);

// Fills `symbols` from what RansEncode appended, which `bytes` must be exactly. Each of `table_of` must be below the
// number of tables. DATA_LOSS if bytes are missing, left over or do not lead back to the initial states.
absl::Status RansDecode(std::string_view bytes, absl::Span<const uint8_t> table_of,
                        absl::Span<const DecodeTable> tables, absl::Span<uint8_t> symbols,
                        CpuPath path = CpuPath::kFastest);

// What RansDecode takes.
struct RansInput {
  std::string_view bytes;
  absl::Span<const uint8_t> table_of;
  absl::Span<uint8_t> symbols;
};

// Decodes two sequences of about the same length with the same tables: faster than one after the other. DATA_LOSS if
// one of them is damaged.
absl::Status RansDecodePair(const RansInput& first, const RansInput& second, absl::Span<const DecodeTable> tables,
                            CpuPath path = CpuPath::kFastest);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_RANS_H_
