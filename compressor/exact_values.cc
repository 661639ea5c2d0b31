#include "compressor/exact_values.h"

#include <algorithm>
#include <cstring>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

constexpr uint16_t kRawMask = (1 << kRawBits) - 1;

// The symbols of a channel before the table is asked which of them it has.
void PlaceInWindow(const ChannelModel& model, absl::Span<const uint16_t> values, uint8_t* symbols) {
  const uint16_t start = model.window_start;
  const uint16_t flip = model.flip_sign ? 0x80 : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t value = values[i];
    const auto place = static_cast<uint16_t>((value >> kRawBits & (kMagnitudeClasses - 1)) - start);
    const auto symbol = static_cast<uint16_t>((value >> 8 & 0x80) ^ flip) | place;
    symbols[i] = static_cast<uint8_t>(place < kWindowClasses ? symbol : kEscapeSymbol);
  }
}

void PackRawBits(absl::Span<const uint16_t> values, uint8_t* raw_bits, size_t first) {
  if (first % 2 != 0 && !values.empty()) {
    uint8_t& shared = raw_bits[first / 2];
    shared = static_cast<uint8_t>(shared | (values[0] & kRawMask) << kRawBits);
    values.remove_prefix(1);
  }
  uint8_t* const bytes = raw_bits + (first + 1) / 2;
  for (size_t i = 0; i < values.size() / 2; ++i) {
    bytes[i] = static_cast<uint8_t>((values[2 * i] & kRawMask) | (values[2 * i + 1] & kRawMask) << kRawBits);
  }
  if (values.size() % 2 != 0) bytes[values.size() / 2] = values.back() & kRawMask;
}

// Sets the values to their raw bits.
void UnpackRawBits(std::string_view raw_bits, size_t first, absl::Span<uint16_t> values) {
  const auto* const packed = reinterpret_cast<const uint8_t*>(raw_bits.data());
  if (first % 2 != 0 && !values.empty()) {
    values[0] = packed[first / 2] >> kRawBits;
    values.remove_prefix(1);
  }
  const uint8_t* const bytes = packed + (first + 1) / 2;
  for (size_t i = 0; i < values.size() / 2; ++i) {
    values[2 * i] = bytes[i] & kRawMask;
    values[2 * i + 1] = bytes[i] >> kRawBits;
  }
  if (values.size() % 2 != 0) values.back() = bytes[values.size() / 2] & kRawMask;
}

// Adds sign and magnitude class to the raw bits.
void ApplySymbols(const ChannelModel& model, absl::Span<const uint8_t> symbols, uint16_t* values) {
  const uint16_t start = model.window_start;
  const uint16_t flip = model.flip_sign ? 0x80 : 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    const uint16_t symbol = symbols[i] ^ flip;
    const auto magnitude = static_cast<uint16_t>((symbol & 0x7f) + start);
    values[i] = static_cast<uint16_t>(values[i] | magnitude << kRawBits | (symbol & 0x80) << 8);
  }
}

// Calls f(i) for each escape as long as it returns true; returns what it returned last.
template <typename Function>
bool ForEachEscape(absl::Span<const uint8_t> symbols, Function f) {
  const uint8_t* const end = symbols.data() + symbols.size();
  const uint8_t* next = symbols.data();
  while ((next = static_cast<const uint8_t*>(std::memchr(next, kEscapeSymbol, static_cast<size_t>(end - next)))) !=
         nullptr) {
    if (!f(static_cast<size_t>(next - symbols.data()))) return false;
    ++next;
  }
  return true;
}

// Fewer values are not worth the vectors.
constexpr size_t kLeastToSeparate = 4;
constexpr size_t kLeastToRestore = 8;

}  // namespace

AvailableSymbols::AvailableSymbols(const TableFrequencies& frequencies) {
  for (int s = 0; s < kEscapeSymbol; ++s) {
    if (frequencies[s] > 0) words[s / 16] = static_cast<uint16_t>(words[s / 16] | 1 << (s % 16));
  }
}

size_t SeparateValuesPortable(const ChannelModel& model, const AvailableSymbols& available,
                              absl::Span<const uint16_t> values, const SeparatedValues& to, uint16_t* escapes) {
  PlaceInWindow(model, values, to.symbols);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!available.Has(to.symbols[i])) to.symbols[i] = kEscapeSymbol;
  }
  size_t count = 0;
  ForEachEscape(absl::MakeConstSpan(to.symbols, values.size()), [&](size_t i) {
    escapes[count++] = values[i];
    return true;
  });
  PackRawBits(values, to.raw_bits, to.first_raw);
  return count;
}

bool RestoreValuesPortable(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes,
                           uint16_t* values) {
  UnpackRawBits(coded.raw_bits, coded.first_raw, absl::MakeSpan(values, coded.symbols.size()));
  ApplySymbols(model, coded.symbols, values);
  return ForEachEscape(coded.symbols, [&](size_t i) {
    if (escapes.size() < sizeof(uint16_t)) return false;
    std::memcpy(values + i, escapes.data(), sizeof(uint16_t));
    escapes.remove_prefix(sizeof(uint16_t));
    return true;
  });
}

size_t SeparateValues(const ChannelModel& model, const AvailableSymbols& available, absl::Span<const uint16_t> values,
                      const SeparatedValues& to, uint16_t* escapes) {
  if (values.size() < kLeastToSeparate || !HaveAvx512()) {
    return SeparateValuesPortable(model, available, values, to, escapes);
  }
  const size_t odd = std::min(to.first_raw % 2, values.size());
  const size_t first = SeparateValuesPortable(model, available, values.first(odd), to, escapes);
  const SeparatedValues rest{.symbols = to.symbols + odd, .raw_bits = to.raw_bits, .first_raw = to.first_raw + odd};
  return first + SeparateValuesAvx512(model, available, values.subspan(odd), rest, escapes + first);
}

bool RestoreValues(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes, uint16_t* values) {
  if (coded.symbols.size() < kLeastToRestore || !HaveAvx512()) {
    return RestoreValuesPortable(model, coded, escapes, values);
  }
  const size_t odd = std::min(coded.first_raw % 2, coded.symbols.size());
  CodedValues part = coded;
  part.symbols = coded.symbols.first(odd);
  if (!RestoreValuesPortable(model, part, escapes, values)) return false;
  part.symbols = coded.symbols.subspan(odd);
  part.first_raw += odd;
  return RestoreValuesAvx512(model, part, escapes, values + odd);
}

}  // namespace quicksave::compressor
