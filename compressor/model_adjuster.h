// Fits a channel's model to the values of one block: another table, a window moved by a few classes, or both. A stored
// adjustment costs 8 bits and saves on average 15 on 128 values.

#ifndef QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_
#define QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/cpu_features.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

// Replaces the table of a model and moves its window by `shift` classes.
struct ModelAdjustment {
  static constexpr int kMinShift = -8;
  static constexpr int kMaxShift = 7;

  uint8_t table = 0;
  int shift = 0;

  // table << 4 | shift - kMinShift: the stored form.
  uint8_t Pack() const;
  static ModelAdjustment Unpack(uint8_t packed);
  // The adjusted model; nothing if its table or window would be out of range.
  std::optional<ChannelModel> Apply(const ChannelModel& model, size_t tables) const;
};

// Searches adjustments for one set of tables. Immutable.
class ModelAdjuster {
 public:
  explicit ModelAdjuster(absl::Span<const TableFrequencies> tables);

  // The adjustment that saves the most on `values`, at most kMaxBlockTokens of one channel, by a search that finds most
  // of what an exhaustive one would: best shift, best table, best shift again. Nothing if none is worth its bits.
  std::optional<ModelAdjustment> Search(absl::Span<const uint16_t> values, const ChannelModel& model,
                                        CpuPath path = CpuPath::kFastest) const;

 private:
  static constexpr size_t kShifts = ModelAdjustment::kMaxShift - ModelAdjustment::kMinShift + 1;
  // Places a value may have relative to the unmoved window: all that some shift brings inside, and one on either side.
  static constexpr int kPlaces = kWindowClasses + static_cast<int>(kShifts) + 2;
  static constexpr size_t kRow = kPlaces + kShifts;

  size_t tables_;
  // [table][sign][...]: code lengths by descending place, so that the lengths of one value under the ascending shifts
  // stand side by side.
  std::vector<std::array<uint8_t, 2 * kRow>> by_shift_;
  // [sign][...][table]: the same with the tables side by side.
  alignas(kMaxTables) std::array<std::array<uint8_t, kMaxTables>, 2 * kRow> by_table_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_
