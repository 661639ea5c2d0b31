#include "server/sidecar/calibration_notes.h"

#include <algorithm>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/sidecar/output_file.h"

namespace quicksave::server {
namespace {

constexpr size_t kDigestDigits = 32;

}  // namespace

absl::StatusOr<TextDigest> DigestOfText(const std::string& file) {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(file);
  if (!bytes.ok()) return bytes.status();
  return TextDigest{PrintableAscii(std::filesystem::path(file).filename().string()), compressor::ComputeDigest(*bytes)};
}

std::string NoteOfTexts(absl::Span<const TextDigest> texts) {
  std::string note;
  for (const TextDigest& text : texts) absl::StrAppend(&note, text.digest.ToHex(), "  ", text.name, "\n");
  return note;
}

std::vector<TextDigest> TextsOfNote(const std::string& note) {
  std::vector<TextDigest> texts;
  for (const absl::string_view line : absl::StrSplit(note, '\n')) {
    if (line.size() < kDigestDigits + 2) continue;
    const auto digest = compressor::Digest128::FromHex(std::string(line.substr(0, kDigestDigits)));
    if (digest.ok()) texts.push_back({std::string(line.substr(kDigestDigits + 2)), *digest});
  }
  return texts;
}

absl::Status CheckNotCalibratedOn(absl::Span<const TextDigest> texts, absl::Span<const TextDigest> calibration_texts) {
  for (const TextDigest& used : calibration_texts) {
    const auto same =
        std::find_if(texts.begin(), texts.end(), [&](const TextDigest& text) { return text.digest == used.digest; });
    if (same == texts.end()) continue;
    return absl::FailedPreconditionError(absl::StrCat("the text ", same->name, " was calibrated on (as ", used.name,
                                                      "), so what is measured on it says nothing about other texts"));
  }
  return absl::OkStatus();
}

std::string PrintableAscii(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return !absl::ascii_isprint(static_cast<unsigned char>(c)); }, '?');
  return text;
}

}  // namespace quicksave::server
