#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_PTX_OPERATIONS_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_PTX_OPERATIONS_H_

// What instructions of PTX do that C++ has no operator for, as NVIDIA's "PTX ISA" says.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace quicksave::engine {

inline uint32_t PtxBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float PtxFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// A denormal becomes a zero of its sign.
inline float PtxFlush(float value) {
  const uint32_t bits = PtxBits(value);
  return (bits & 0x7f800000U) == 0 ? PtxFloat(bits & 0x80000000U) : value;
}
inline float PtxAbs(float value) { return PtxFloat(PtxBits(PtxFlush(value)) & 0x7fffffffU); }
inline float PtxNeg(float value) { return PtxFloat(PtxBits(PtxFlush(value)) ^ 0x80000000U); }

// -0 is less than 0; of a number and NaN, the number.
inline float PtxMin(float a, float b) {
  if (std::isnan(a)) return PtxFlush(b);
  if (a == b) return std::signbit(a) ? PtxFlush(a) : PtxFlush(b);
  return b < a ? PtxFlush(b) : PtxFlush(a);
}
inline float PtxMax(float a, float b) {
  if (std::isnan(a)) return PtxFlush(b);
  if (a == b) return std::signbit(a) ? PtxFlush(b) : PtxFlush(a);
  return b > a ? PtxFlush(b) : PtxFlush(a);
}

// Towards zero; what an int32 cannot hold becomes the nearest that it can, NaN 0.
inline int32_t PtxTruncate(float value) {
  if (std::isnan(value)) return 0;
  return static_cast<int32_t>(std::clamp<double>(value, INT32_MIN, INT32_MAX));
}

// By the type's width or more: everything is shifted out.
template <class Value>
Value PtxShiftLeft(Value value, uint32_t bits) {
  return bits < 8 * sizeof(Value) ? static_cast<Value>(static_cast<uint64_t>(value) << bits) : Value{0};
}
template <class Value>
Value PtxShiftRight(Value value, uint32_t bits) {
  constexpr uint32_t kBits = 8 * sizeof(Value);
  if (bits >= kBits) return value < 0 ? static_cast<Value>(-1) : Value{0};
  return static_cast<Value>(value >> bits);
}

// dp2a.lo: sum + the two 16-bit halves of a times the two lowest bytes of b, all signed.
inline int32_t PtxDotProduct(uint32_t a, uint32_t b, uint32_t sum) {
  const int32_t low = static_cast<int16_t>(a) * static_cast<int8_t>(b);
  const int32_t high = static_cast<int16_t>(a >> 16) * static_cast<int8_t>(b >> 8);
  return static_cast<int32_t>(sum + static_cast<uint32_t>(low) + static_cast<uint32_t>(high));
}

// prmt: each byte of the result is the one of b:a that a digit of the selector names, or eight times its sign.
inline uint32_t PtxPermute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t digit = selector >> (4 * i) & 0xfU;
    const uint32_t byte = bytes >> (8 * (digit & 7U)) & 0xffU;
    result |= ((digit & 8U) == 0 ? byte : (byte & 0x80U) == 0 ? 0U : 0xffU) << (8 * i);
  }
  return result;
}

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_PTX_OPERATIONS_H_
