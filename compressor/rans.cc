#include "compressor/rans.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "compressor/cpu_features.h"
#include "compressor/rans_groups.h"

namespace quicksave::compressor {
namespace {

// The implementation that a path has of something.
template <typename Function>
Function* Choose(CpuPath path, Function* avx512, Function* avx2, Function* portable) {
  const bool fastest = path == CpuPath::kFastest;
  if (path == CpuPath::kAvx512 || (fastest && HaveAvx512())) return avx512;
  if (path == CpuPath::kAvx2 || (fastest && HaveAvx2())) return avx2;
  return portable;
}

// For paths where decoding two sequences in turn gains nothing.
void LeaveBoth(RansCursor& /*a*/, RansCursor& /*b*/, const DecodeTable* /*tables*/) {}

// The rest of the symbols with a bounds check for each word; the first one belongs to stream 0. False at the end of
// input.
bool DecodeCarefully(RansCursor& cursor, const DecodeTable* tables) {
  RansPosition& at = cursor.at;
  for (size_t i = 0; i < at.symbols.size(); ++i) {
    uint32_t& state = cursor.states[i % kStreams];
    at.symbols[i] = PopSymbol(state, tables[at.table_of[i]]);
    if (state >= kStateLow) continue;
    if (at.words_left() == 0) return false;
    state = state << 16 | at.PeekWord();
    at.PassWords(1);
  }
  return true;
}

absl::StatusOr<RansCursor> Start(const RansInput& input) {
  const std::string_view bytes = input.bytes;
  if (bytes.size() < kStateBytes || bytes.size() % 2 != 0) return absl::DataLossError("entropy coded data cut short");
  RansCursor cursor{.at = {.next = bytes.data() + kStateBytes,
                           .end = bytes.data() + bytes.size(),
                           .table_of = input.table_of.data(),
                           .symbols = input.symbols}};
  std::memcpy(cursor.states, bytes.data(), kStateBytes);
  return cursor;
}

absl::Status Finish(RansCursor& cursor, const DecodeTable* tables, CpuPath path) {
  Choose(path, DecodeGroupsAvx512, DecodeGroupsAvx2, DecodeGroupsPortable)(cursor, tables);
  if (!DecodeCarefully(cursor, tables)) return absl::DataLossError("entropy coded data cut short");
  const bool initial = std::all_of(std::begin(cursor.states), std::end(cursor.states),
                                   [](uint32_t state) { return state == kStateLow; });
  if (!initial || cursor.at.words_left() != 0) return absl::DataLossError("entropy coded data damaged");
  return absl::OkStatus();
}

}  // namespace

void DecodeGroupsPortable(RansCursor& cursor, const DecodeTable* tables) {
  RansPosition& at = cursor.at;
  while (at.HasSafeGroup()) {
    for (size_t i = 0; i < kStreams; ++i) {
      uint32_t state = cursor.states[i];
      at.symbols[i] = PopSymbol(state, tables[at.table_of[i]]);
      // No branch: whether a word is due is as good as random.
      const uint32_t low = state < kStateLow ? 1 : 0;
      cursor.states[i] = state << (16 * low) | (at.PeekWord() & (0 - low));
      at.PassWords(low);
    }
    at.PassSymbols(kStreams);
  }
}

void EncodeGroupsPortable(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                          size_t groups) {
  for (size_t i = groups * kStreams; i-- > 0;) {
    uint32_t& state = sink.states[i % kStreams];
    state = PushSymbol(state, tables[table_of[i]].symbols[symbols[i]], sink.words);
  }
}

void RansEncode(absl::Span<const uint8_t> symbols, absl::Span<const uint8_t> table_of,
                absl::Span<const EncodeTable> tables, std::vector<uint16_t>& scratch, std::string& out, CpuPath path) {
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
  Choose(path, EncodeGroupsAvx512, EncodeGroupsAvx2, EncodeGroupsPortable)(sink, tables.data(), table_of.data(),
                                                                           symbols.data(), groups);
  out.append(reinterpret_cast<const char*>(sink.states), kStateBytes);
  out.append(reinterpret_cast<const char*>(sink.words), static_cast<size_t>(end - sink.words) * sizeof(uint16_t));
}

absl::Status RansDecode(std::string_view bytes, absl::Span<const uint8_t> table_of,
                        absl::Span<const DecodeTable> tables, absl::Span<uint8_t> symbols, CpuPath path) {
  absl::StatusOr<RansCursor> cursor = Start({.bytes = bytes, .table_of = table_of, .symbols = symbols});
  return cursor.ok() ? Finish(*cursor, tables.data(), path) : cursor.status();
}

absl::Status RansDecodePair(const RansInput& first, const RansInput& second, absl::Span<const DecodeTable> tables,
                            CpuPath path) {
  absl::StatusOr<RansCursor> a = Start(first);
  if (!a.ok()) return a.status();
  absl::StatusOr<RansCursor> b = Start(second);
  if (!b.ok()) return b.status();
  Choose(path, DecodePairAvx512, LeaveBoth, LeaveBoth)(*a, *b, tables.data());
  if (absl::Status status = Finish(*a, tables.data(), path); !status.ok()) return status;
  return Finish(*b, tables.data(), path);
}

}  // namespace quicksave::compressor
