#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_TEXT_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_TEXT_H_

#include <vector>

#include "absl/types/span.h"

namespace quicksave::server {

// One turn of a dialogue.
struct CalibrationTurn {
  const char* role;  // "system", "user", "assistant"
  const char* content;
};

// A text to calibrate codecs on, of about 1,000 tokens: plain, or a dialogue.
struct CalibrationText {
  const char* name;
  const char* text;                    // empty for a dialogue
  std::vector<CalibrationTurn> turns;  // empty for a plain text
};

// Texts of the kinds that models are used on: prose, program code, a dialogue, several languages with tables and
// formulas. Written for this purpose; they never change without reason, since profiles are made from them.
absl::Span<const CalibrationText> CalibrationTexts();

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_TEXT_H_
