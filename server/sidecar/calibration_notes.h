#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_NOTES_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_NOTES_H_

// Which texts a profile was calibrated on, as its notes say it: so that nobody measures it on them unawares.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"

namespace quicksave::server {

// The note that lists the texts.
inline constexpr char kTextsNote[] = "texts";

// A text: the name of its file without folder, other characters than printable ASCII replaced; XXH3-128 of its bytes.
struct TextDigest {
  std::string name;
  compressor::Digest128 digest;

  friend bool operator==(const TextDigest&, const TextDigest&) = default;
};

// NOT_FOUND for a file that cannot be read.
absl::StatusOr<TextDigest> DigestOfText(const std::string& file);

// A line for each text, "DIGEST  NAME", and back; lines of another form are left out.
std::string NoteOfTexts(absl::Span<const TextDigest> texts);
std::vector<TextDigest> TextsOfNote(const std::string& note);

// FAILED_PRECONDITION, naming it, if one of `texts` is among those that were calibrated on. A copy of which one byte
// was changed is another text.
absl::Status CheckNotCalibratedOn(absl::Span<const TextDigest> texts, absl::Span<const TextDigest> calibration_texts);

// The text with all characters but printable ASCII as '?'.
std::string PrintableAscii(std::string text);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_NOTES_H_
