// How a bf16 value is told, given a prediction of it and how far off that is expected to be.
//
// Where the expected error is small beside the prediction, the symbol is the distance between the two, counted in
// representable numbers; its low bits go raw where that loses nothing. Near zero, where representable numbers crowd,
// the symbol is the value's own sign (against the prediction's), exponent and three bits of mantissa (against the
// expected error's); four bits go raw.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_
#define QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "compressor/entropy_table.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// Expected errors come as the exponent of a quarter octave: error ~ 2^(level / 4).
using ErrorLevel = int16_t;
// The level nearest to an error; errors of 0 have the lowest level. The same on every machine.
ErrorLevel LevelOf(double error);

// The table of a value's symbol, and how many bits go raw. A function of the prediction and the level alone.
struct ResidualClass {
  uint8_t table;
  uint8_t raw_bits;
  bool near_zero;
};

// -32768 ... 32767 in the order of the numbers.
inline int32_t OrderOf(uint16_t bits) {
  const int32_t magnitude = bits & 0x7fff;
  return (bits & 0x8000) != 0 ? -magnitude - 1 : magnitude;
}
inline uint16_t BitsOfOrder(int32_t order) { return static_cast<uint16_t>(order < 0 ? 0x8000 | (-order - 1) : order); }

ResidualClass ClassOf(uint16_t prediction, ErrorLevel level);

struct ResidualSymbol {
  uint8_t symbol;  // kEscapeSymbol: the value itself follows
  uint16_t raw;
};
ResidualSymbol SymbolOf(uint16_t value, uint16_t prediction, ErrorLevel level, const ResidualClass& residual_class);
// The inverse, for symbols other than the escape.
uint16_t ValueOf(const ResidualSymbol& symbol, uint16_t prediction, ErrorLevel level,
                 const ResidualClass& residual_class);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_
