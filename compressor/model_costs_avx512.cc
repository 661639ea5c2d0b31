#include "compressor/model_costs.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "compressor/block.h"

namespace quicksave::compressor {
namespace {

constexpr size_t kLanes = 64;
constexpr size_t kVectors = kMaxBlockTokens / kLanes;

// The first `count` lanes.
QUICKSAVE_AVX512_INLINE __mmask64 First(size_t count) {
  return _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(std::min(count, kLanes)));
}

// The code lengths of the window's places, of one sign: 128 of them, which the index of a lookup can tell apart.
struct Window {
  __m512i front;
  __m512i back;
};
static_assert(kWindowClasses == 2 * kLanes);

QUICKSAVE_AVX512_INLINE Window LoadWindow(const uint8_t* row) {
  const uint8_t* const inside = row + kFirstInside;
  return {_mm512_loadu_si512(inside), _mm512_loadu_si512(inside + kLanes)};
}

// The lookups of one vector: the code lengths of values at `place`, or `outside` of the window.
QUICKSAVE_AVX512_INLINE __m512i LengthsAt(__m512i place, __mmask64 in_second, const Window (&windows)[2],
                                          __m512i outside) {
  const __m512i first = _mm512_permutex2var_epi8(windows[0].front, place, windows[0].back);
  const __m512i second = _mm512_permutex2var_epi8(windows[1].front, place, windows[1].back);
  const __m512i inside = _mm512_mask_mov_epi8(first, in_second, second);
  // Beyond the window a place is negative, or would be if it were a byte.
  return _mm512_mask_mov_epi8(inside, _mm512_movepi8_mask(place), outside);
}

}  // namespace

QUICKSAVE_AVX512 void FindPlacesAvx512(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places) {
  constexpr size_t kWords = kLanes / 2;
  const __m512i base = _mm512_set1_epi16(static_cast<int16_t>(1 - kMinShift - model.window_start));
  const __m512i last = _mm512_set1_epi16(kPlaces - 1);
  const uint32_t flip = model.flip_sign ? 0xffffffff : 0;
  __m512i sum = _mm512_setzero_si512();
  int coded = 0;
  for (size_t i = 0; i < values.size(); i += kWords) {
    const auto present = static_cast<__mmask32>(First(std::min(values.size() - i, kWords)));
    const __m512i value = _mm512_maskz_loadu_epi16(present, values.data() + i);
    const __m512i magnitude =
        _mm512_and_si512(_mm512_srli_epi16(value, kRawBits), _mm512_set1_epi16(kMagnitudeClasses - 1));
    const __m512i above = _mm512_min_epu16(_mm512_add_epi16(magnitude, base), last);
    const __m512i place = _mm512_maskz_sub_epi16(present, last, above);
    const __mmask32 in_second = _mm512_movepi16_mask(value) ^ flip;
    _mm512_store_si512(places.rows.data() + i,
                       _mm512_mask_add_epi16(place, in_second, place, _mm512_set1_epi16(kCostRow)));
    const __m256i bytes = _mm512_cvtepi16_epi8(place);
    _mm256_store_si256(reinterpret_cast<__m256i*>(places.places.data() + i), bytes);
    places.in_second[i / kWords] = in_second;
    coded += std::popcount(_mm512_test_epi16_mask(place, place));
    sum = _mm512_add_epi64(sum, _mm512_zextsi256_si512(_mm256_sad_epu8(bytes, _mm256_setzero_si256())));
  }
  places.count = values.size();
  places.coded = coded;
  places.sum = static_cast<int>(_mm512_reduce_add_epi64(sum));
}

QUICKSAVE_AVX512 Costs CostsOfShiftsAvx512(const ShiftCosts& costs, const Places& places, size_t first, size_t last) {
  const Window windows[2] = {LoadWindow(costs.data()), LoadWindow(costs.data() + kCostRow)};
  const __m512i outside = _mm512_set1_epi8(static_cast<char>(costs[0]));
  const __m512i* const at = reinterpret_cast<const __m512i*>(places.places.data());
  const __mmask64 present[kVectors] = {First(places.count), First(places.count - std::min(places.count, kLanes))};
  __mmask64 in_second[kVectors];
  std::memcpy(in_second, places.in_second.data(), sizeof(in_second));
  Costs sums{};
  for (size_t shift = first; shift <= last; ++shift) {
    const __m512i move = _mm512_set1_epi8(static_cast<char>(static_cast<int>(shift) - static_cast<int>(kFirstInside)));
    const __m512i front = LengthsAt(_mm512_add_epi8(_mm512_load_si512(at), move), in_second[0], windows, outside);
    const __m512i back = LengthsAt(_mm512_add_epi8(_mm512_load_si512(at + 1), move), in_second[1], windows, outside);
    // Two of them fit into a byte.
    const __m512i both =
        _mm512_add_epi8(_mm512_maskz_mov_epi8(present[0], front), _mm512_maskz_mov_epi8(present[1], back));
    sums[shift] = static_cast<uint16_t>(_mm512_reduce_add_epi64(_mm512_sad_epu8(both, _mm512_setzero_si512())));
  }
  return sums;
}

}  // namespace quicksave::compressor

#endif
