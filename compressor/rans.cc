#include "compressor/rans.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/numeric/int128.h"
#include "compressor/rans_groups.h"

namespace quicksave::compressor {
namespace {

// Writes words from the end of a buffer towards its beginning, as rANS encoding runs backwards.
inline uint32_t PushSymbol(uint32_t state, const EncodeSymbol& symbol, uint16_t*& words) {
  constexpr int kLimitShift = 32 - kFrequencyBits;
  const uint32_t full = state >= symbol.frequency << kLimitShift ? 1 : 0;
  words[-1] = static_cast<uint16_t>(state);
  words -= full;
  state >>= 16 * full;
  const auto quotient =
      static_cast<uint32_t>(absl::Uint128High64(absl::uint128(uint64_t{state} + 1) * symbol.reciprocal));
  return state + quotient * (kFrequencyTotal - symbol.frequency) + symbol.start;
}

// Symbols with a bounds check for each word; the first one belongs to stream 0. False at the end of input.
bool DecodeCarefully(RansCursor& cursor, absl::Span<const DecodeTable> tables, const uint8_t* table_of,
                     absl::Span<uint8_t> symbols) {
  for (size_t i = 0; i < symbols.size(); ++i) {
    uint32_t& state = cursor.states[i % kStreams];
    symbols[i] = PopSymbol(state, tables[table_of[i]]);
    if (state >= kStateLow) continue;
    if (cursor.words_left() == 0) return false;
    state = state << 16 | cursor.PeekWord();
    cursor.next += sizeof(uint16_t);
  }
  return true;
}

}  // namespace

size_t DecodeGroupsPortable(RansCursor& cursor, const DecodeTable* tables, const uint8_t* table_of, size_t groups,
                            uint8_t* symbols) {
  size_t group = 0;
  for (; group < groups && cursor.words_left() >= kWordsForGroup; ++group) {
    for (size_t j = 0; j < kStreams; ++j) {
      uint32_t state = cursor.states[j];
      *symbols++ = PopSymbol(state, tables[*table_of++]);
      // No branch: whether a word is due is as good as random.
      const uint32_t low = state < kStateLow ? 1 : 0;
      cursor.states[j] = state << (16 * low) | (cursor.PeekWord() & (0 - low));
      cursor.next += sizeof(uint16_t) * low;
    }
  }
  return group;
}

void RansEncode(absl::Span<const uint8_t> symbols, absl::Span<const uint8_t> table_of,
                absl::Span<const EncodeTable> tables, std::vector<uint16_t>& scratch, std::string& out) {
  // A symbol never makes more than one word, and one more place is written to without being used.
  if (scratch.size() < symbols.size() + 1) scratch.resize(symbols.size() + 1);
  uint16_t* const end = scratch.data() + symbols.size() + 1;
  uint16_t* words = end;
  std::array<uint32_t, kStreams> states;
  states.fill(kStateLow);
  for (size_t i = symbols.size(); i-- > 0;) {
    uint32_t& state = states[i % kStreams];
    state = PushSymbol(state, tables[table_of[i]].symbols[symbols[i]], words);
  }
  out.append(reinterpret_cast<const char*>(states.data()), kStateBytes);
  out.append(reinterpret_cast<const char*>(words), static_cast<size_t>(end - words) * sizeof(uint16_t));
}

absl::Status RansDecode(std::string_view bytes, absl::Span<const uint8_t> table_of,
                        absl::Span<const DecodeTable> tables, absl::Span<uint8_t> symbols, RansPath path) {
  if (bytes.size() < kStateBytes || bytes.size() % 2 != 0) return absl::DataLossError("entropy coded data cut short");
  RansCursor cursor{.next = bytes.data() + kStateBytes, .end = bytes.data() + bytes.size()};
  std::memcpy(cursor.states, bytes.data(), kStateBytes);
  const bool avx2 = path == RansPath::kFastest && HaveAvx2();
  const size_t groups = symbols.size() / kStreams;
  const size_t done = kStreams * (avx2 ? DecodeGroupsAvx2 : DecodeGroupsPortable)(
                                     cursor, tables.data(), table_of.data(), groups, symbols.data());
  if (!DecodeCarefully(cursor, tables, table_of.data() + done, symbols.subspan(done))) {
    return absl::DataLossError("entropy coded data cut short");
  }
  const bool initial = std::all_of(std::begin(cursor.states), std::end(cursor.states),
                                   [](uint32_t state) { return state == kStateLow; });
  if (!initial || cursor.words_left() != 0) return absl::DataLossError("entropy coded data damaged");
  return absl::OkStatus();
}

}  // namespace quicksave::compressor
