#include "compressor/rans.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/numeric/int128.h"

namespace quicksave::compressor {
namespace {

using States = std::array<uint32_t, kStreams>;

// Writes words from the end of a buffer towards its beginning, as rANS encoding runs backwards.
uint32_t PushSymbol(uint32_t state, const EncodeSymbol& symbol, uint16_t*& words) {
  constexpr int kLimitShift = 32 - kFrequencyBits;
  const bool full = state >= symbol.frequency << kLimitShift;
  words[-1] = static_cast<uint16_t>(state);
  words -= full;
  state = full ? state >> 16 : state;
  const auto quotient = static_cast<uint32_t>(
      absl::Uint128High64(absl::uint128(uint64_t{state} + 1) * symbol.reciprocal));
  return state + quotient * (kFrequencyTotal - symbol.frequency) + symbol.start;
}

// The words to read. Loads go through memcpy: the payload has no alignment.
class WordReader {
 public:
  explicit WordReader(std::string_view bytes) : next_(bytes.data()), end_(bytes.data() + bytes.size() / 2 * 2) {}

  size_t remaining() const { return static_cast<size_t>(end_ - next_) / 2; }
  // Reads ahead without taking; the caller made sure that a word remains.
  uint32_t Peek() const {
    uint16_t word;
    std::memcpy(&word, next_, sizeof(word));
    return word;
  }
  void Skip(size_t words) { next_ += 2 * words; }

 private:
  const char* next_;
  const char* end_;
};

// Takes a symbol off the state; the state may now be below kStateLow.
inline uint8_t PopSymbol(uint32_t& state, const DecodeTable& table) {
  const uint32_t slot = table.slots[state % kFrequencyTotal];
  state = (slot >> 8 & (kFrequencyTotal - 1)) * (state >> kFrequencyBits) + (slot >> 20);
  return static_cast<uint8_t>(slot);
}

// One symbol from every stream, for which kStreams words must remain.
inline void DecodeGroup(States& states, const DecodeTable& table, WordReader& words, uint8_t* symbols) {
  for (size_t j = 0; j < kStreams; ++j) {
    uint32_t state = states[j];
    symbols[j] = PopSymbol(state, table);
    const bool low = state < kStateLow;
    states[j] = low ? state << 16 | words.Peek() : state;
    words.Skip(low);
  }
}

// Symbols of one run with a bounds check for each word. `stream` is the stream of the first one. False at the end of input.
bool DecodeCarefully(States& states, size_t stream, const DecodeTable& table, WordReader& words,
                     absl::Span<uint8_t> symbols) {
  for (uint8_t& symbol : symbols) {
    uint32_t& state = states[stream];
    symbol = PopSymbol(state, table);
    if (state < kStateLow) {
      if (words.remaining() == 0) return false;
      state = state << 16 | words.Peek();
      words.Skip(1);
    }
    stream = (stream + 1) % kStreams;
  }
  return true;
}

bool DecodeRun(States& states, size_t first, const DecodeTable& table, WordReader& words, absl::Span<uint8_t> symbols) {
  size_t done = 0;
  if (first % kStreams == 0) {
    while (symbols.size() - done >= kStreams && words.remaining() >= kStreams) {
      DecodeGroup(states, table, words, symbols.data() + done);
      done += kStreams;
    }
  }
  return DecodeCarefully(states, (first + done) % kStreams, table, words, symbols.subspan(done));
}

}  // namespace

void RansEncode(absl::Span<const uint8_t> symbols, size_t run_length, absl::Span<const EncodeTable* const> tables,
                std::vector<uint16_t>& scratch, std::string& out) {
  // A symbol never makes more than one word, and one more place is written to without being used.
  if (scratch.size() < symbols.size() + 1) scratch.resize(symbols.size() + 1);
  uint16_t* const end = scratch.data() + symbols.size() + 1;
  uint16_t* words = end;
  States states;
  states.fill(kStateLow);
  for (size_t run = tables.size(); run-- > 0;) {
    const auto& coding = tables[run]->symbols;
    for (size_t i = (run + 1) * run_length; i-- > run * run_length;) {
      uint32_t& state = states[i % kStreams];
      state = PushSymbol(state, coding[symbols[i]], words);
    }
  }
  out.append(reinterpret_cast<const char*>(states.data()), kStateBytes);
  out.append(reinterpret_cast<const char*>(words), static_cast<size_t>(end - words) * sizeof(uint16_t));
}

absl::Status RansDecode(std::string_view bytes, size_t run_length, absl::Span<const DecodeTable* const> tables,
                        absl::Span<uint8_t> symbols) {
  if (bytes.size() < kStateBytes || bytes.size() % 2 != 0) return absl::DataLossError("entropy coded data cut short");
  States states;
  std::memcpy(states.data(), bytes.data(), kStateBytes);
  WordReader words(bytes.substr(kStateBytes));
  for (size_t run = 0; run < tables.size(); ++run) {
    const size_t first = run * run_length;
    if (!DecodeRun(states, first, *tables[run], words, symbols.subspan(first, run_length))) {
      return absl::DataLossError("entropy coded data cut short");
    }
  }
  const bool initial = std::all_of(states.begin(), states.end(), [](uint32_t state) { return state == kStateLow; });
  if (!initial || words.remaining() != 0) return absl::DataLossError("entropy coded data damaged");
  return absl::OkStatus();
}

}  // namespace quicksave::compressor
