#include "server/sidecar/corpus.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quicksave::server {
namespace {

// Text is cut into slots of so many bytes for each wanted token; what a slot has more is not used.
constexpr size_t kBytesPerToken = 6;

// A file and the places, in random order, where pieces may begin.
struct Source {
  std::string name;
  std::string text;
  std::vector<size_t> places;
  size_t next = 0;
};

// The first byte at or after `place` that begins a line, or failing that a character.
size_t Beginning(const std::string& text, size_t place) {
  if (place == 0) return 0;
  const size_t line = text.find('\n', place - 1);
  if (line != std::string::npos && line < place + 500) return line + 1;
  while (place < text.size() && (static_cast<uint8_t>(text[place]) & 0xc0) == 0x80) ++place;
  return place;
}

absl::StatusOr<Source> ReadSource(const std::string& file, size_t slot, std::mt19937_64& random) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat("cannot read the text ", file));
  Source source{.name = std::filesystem::path(file).stem().string(),
                .text = std::string(std::istreambuf_iterator<char>(stream), {})};
  for (size_t place = 0; place + slot <= source.text.size(); place += slot) source.places.push_back(place);
  // Not std::shuffle, whose order the standard leaves open.
  for (size_t i = source.places.size(); i > 1; --i) std::swap(source.places[i - 1], source.places[random() % i]);
  return source;
}

// The next piece of a source; none when it is used up.
absl::StatusOr<TextPiece> NextPiece(Source& source, size_t slot, const text::Tokenizer& tokenizer, size_t tokens) {
  while (source.next < source.places.size()) {
    const size_t begin = Beginning(source.text, source.places[source.next++]);
    size_t end = std::min(begin + slot, source.text.size());
    while (end < source.text.size() && (static_cast<uint8_t>(source.text[end]) & 0xc0) == 0x80) --end;
    if (end <= begin) continue;
    const auto ids = tokenizer.Encode(absl::string_view(source.text).substr(begin, end - begin),
                                      /*add_special_tokens=*/true, /*parse_special=*/false);
    if (!ids.ok()) return absl::Status(ids.status().code(), absl::StrCat(source.name, ": ", ids.status().message()));
    if (ids->size() < tokens) continue;
    return TextPiece{source.name, {ids->begin(), ids->begin() + static_cast<std::ptrdiff_t>(tokens)}};
  }
  return absl::OutOfRangeError("used up");
}

}  // namespace

absl::StatusOr<std::vector<TextPiece>> CutPieces(const std::vector<std::string>& files,
                                                 const text::Tokenizer& tokenizer, const CorpusOptions& options) {
  const size_t slot = options.tokens_per_piece * kBytesPerToken;
  std::mt19937_64 random(options.seed);
  std::vector<Source> sources;
  for (const std::string& file : files) {
    absl::StatusOr<Source> source = ReadSource(file, slot, random);
    if (!source.ok()) return source.status();
    sources.push_back(*std::move(source));
  }
  std::vector<TextPiece> pieces;
  for (bool found = true; found && static_cast<int>(pieces.size()) < options.pieces;) {
    found = false;
    for (Source& source : sources) {
      if (static_cast<int>(pieces.size()) == options.pieces) break;
      absl::StatusOr<TextPiece> piece = NextPiece(source, slot, tokenizer, options.tokens_per_piece);
      if (absl::IsOutOfRange(piece.status())) continue;
      if (!piece.ok()) return piece.status();
      pieces.push_back(*std::move(piece));
      found = true;
    }
  }
  if (pieces.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no text is long enough for a piece of ", options.tokens_per_piece, " tokens"));
  }
  return pieces;
}

}  // namespace quicksave::server
