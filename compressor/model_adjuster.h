// Fits a channel's model to the values of one block: another table, a window moved by a few classes, or both. A stored
// adjustment costs 8 bits and saves on average 15 on 128 values.

#ifndef QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_
#define QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/cpu_features.h"
#include "compressor/entropy_table.h"
#include "compressor/model_costs.h"

namespace quicksave::compressor {

// Replaces the table of a model and moves its window by `shift` classes: kMinShift or more, in kShifts ways.
struct ModelAdjustment {
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

  // For each channel, whose values follow each other, an adjustment of its model that saves more than it costs on its
  // `tokens` values (at most kMaxBlockTokens), by a search that finds most of what an exhaustive one would: the shift
  // that brings the mean to where the model's table has it, the best table there for half of the values, and with that
  // the best shift nearby. Nothing where it does not pay.
  void Search(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
              absl::Span<std::optional<ModelAdjustment>> found, CpuPath path = CpuPath::kFastest) const;

 private:
  std::vector<ShiftCosts> by_shift_;  // of each table
  alignas(kMaxTables) TableCosts by_table_;
  // Of each table the shift that brings a mean place of 0 to where its own is, and a half for rounding.
  std::vector<double> shifts_at_zero_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_MODEL_ADJUSTER_H_
