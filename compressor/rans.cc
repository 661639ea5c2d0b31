#include "compressor/rans.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "compressor/rans_groups.h"

namespace quicksave::compressor {
namespace {

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
    for (uint32_t& stream : cursor.states) {
      uint32_t state = stream;
      *symbols++ = PopSymbol(state, tables[*table_of++]);
      // No branch: whether a word is due is as good as random.
      const uint32_t low = state < kStateLow ? 1 : 0;
      stream = state << (16 * low) | (cursor.PeekWord() & (0 - low));
      cursor.next += sizeof(uint16_t) * low;
    }
  }
  return group;
}

void EncodeGroupsPortable(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                          size_t groups) {
  for (size_t i = groups * kStreams; i-- > 0;) {
    uint32_t& state = sink.states[i % kStreams];
    state = PushSymbol(state, tables[table_of[i]].symbols[symbols[i]], sink.words);
  }
}

void RansEncode(absl::Span<const uint8_t> symbols, absl::Span<const uint8_t> table_of,
                absl::Span<const EncodeTable> tables, std::vector<uint16_t>& scratch, std::string& out, RansPath path) {
  // A symbol never makes more than one word; the places below the last word may be written to without being used.
  const size_t room = symbols.size() + kWordsAhead;
  if (scratch.size() < room) scratch.resize(room);
  uint16_t* const end = scratch.data() + room;
  RansSink sink{.words = end};
  std::fill(std::begin(sink.states), std::end(sink.states), kStateLow);
  const size_t groups = symbols.size() / kStreams;
  for (size_t i = symbols.size(); i-- > groups * kStreams;) {
    uint32_t& state = sink.states[i % kStreams];
    state = PushSymbol(state, tables[table_of[i]].symbols[symbols[i]], sink.words);
  }
  const bool avx2 = path == RansPath::kFastest && HaveAvx2();
  (avx2 ? EncodeGroupsAvx2 : EncodeGroupsPortable)(sink, tables.data(), table_of.data(), symbols.data(), groups);
  out.append(reinterpret_cast<const char*>(sink.states), kStateBytes);
  out.append(reinterpret_cast<const char*>(sink.words), static_cast<size_t>(end - sink.words) * sizeof(uint16_t));
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
