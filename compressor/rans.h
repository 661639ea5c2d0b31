// Range asymmetric numeral systems (Duda 2013, arXiv:1311.2540), 32 interleaved streams of 32-bit states that share one
// sequence of 16-bit words (Giesen 2014, arXiv:1402.3392).
//
// Symbol i belongs to stream i % 32. All symbols of one *run* (one channel) use the same table.

#ifndef QUICKSAVE_COMPRESSOR_RANS_H_
#define QUICKSAVE_COMPRESSOR_RANS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

inline constexpr size_t kStreams = 32;
// States are in [kStateLow, 2^32).
inline constexpr uint32_t kStateLow = 1u << 16;
inline constexpr size_t kStateBytes = kStreams * sizeof(uint32_t);

// Appends the final states and the words of `symbols` to `out`. Run r holds `run_length` symbols and uses tables[r];
// every symbol must be in its table. `scratch` is working memory that calls may share.
void RansEncode(absl::Span<const uint8_t> symbols, size_t run_length, absl::Span<const EncodeTable* const> tables,
                std::vector<uint16_t>& scratch, std::string& out);

// Fills `symbols` from what RansEncode appended, which `bytes` must be exactly. DATA_LOSS if bytes are missing, left over
// or do not lead back to the initial states.
absl::Status RansDecode(std::string_view bytes, size_t run_length, absl::Span<const DecodeTable* const> tables,
                        absl::Span<uint8_t> symbols);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_RANS_H_
