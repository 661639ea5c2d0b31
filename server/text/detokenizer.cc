#include "server/text/detokenizer.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace quicksave::text {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// Tokens that the text after them may depend on.
constexpr size_t kContext = 6;
// Bytes of a character that is not complete, at most.
constexpr size_t kPartOfCharacter = 3;

// Whether the last token that has text is a lone byte. The bytes of such a run are decoded together, so that the next
// token may still change the text of all of them.
bool EndsInByteRun(const Tokenizer& tokenizer, absl::Span<const int32_t> tokens, bool skip_special) {
  while (!tokens.empty()) {
    const Tokenizer::Kind kind = tokenizer.KindOf(tokens.back());
    const bool has_no_text = kind == Tokenizer::Kind::kNone || (skip_special && kind == Tokenizer::Kind::kSpecial);
    if (!has_no_text) return kind == Tokenizer::Kind::kByteFallback;
    tokens.remove_suffix(1);
  }
  return false;
}

// Lone bytes that `tokens` end with, as many as a character may begin with.
size_t LoneBytes(const Tokenizer& tokenizer, absl::Span<const int32_t> tokens) {
  size_t count = 0;
  while (count < std::min(tokens.size(), kPartOfCharacter) &&
         tokenizer.KindOf(tokens[tokens.size() - 1 - count]) == Tokenizer::Kind::kByteFallback) {
    ++count;
  }
  return count;
}

// What of `text` comes after its first `bytes`. They end within a character only when tokens have made text that was
// complete a part of a broken run, which is U+FFFD for each byte.
absl::string_view After(absl::string_view text, size_t bytes) {
  while (bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) ++bytes;
  return text.substr(bytes);
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer* tokenizer, bool skip_special)
    : Detokenizer(tokenizer, skip_special, State()) {}

Detokenizer::Detokenizer(const Tokenizer* tokenizer, bool skip_special, const State& state)
    : tokenizer_(tokenizer), skip_special_(skip_special), state_(state) {}

absl::StatusOr<std::string> Detokenizer::Append(absl::Span<const int32_t> tokens) {
  absl::StatusOr<std::string> window = Window(tokens);
  if (!window.ok()) return window.status();
  const absl::Span<const int32_t> unread = tokens.subspan(static_cast<size_t>(state_.read_offset));
  if (EndsInByteRun(*tokenizer_, unread, skip_special_)) return std::string();

  // U+FFFD at the end may be the beginning of a character; one before it cannot change any more.
  const absl::string_view complete = absl::StripSuffix(*window, kReplacement);
  const auto emitted = static_cast<size_t>(state_.emitted_bytes);
  if (complete.size() <= emitted) return std::string();
  std::string piece(After(complete, emitted));

  if (complete.size() < window->size()) {
    state_.emitted_bytes = static_cast<int64_t>(complete.size());
    return piece;
  }
  // The tokens read since the last time become the context for the next ones: some decoders treat the first token of a
  // text differently.
  absl::StatusOr<std::string> context = tokenizer_->Decode(unread, skip_special_);
  if (!context.ok()) return context.status();
  state_ = {state_.read_offset, static_cast<int64_t>(tokens.size()), static_cast<int64_t>(context->size())};
  return piece;
}

absl::Status Detokenizer::SkipTo(absl::Span<const int32_t> tokens) {
  const size_t size = tokens.size();
  // A run of bytes that begins or ends within a character is U+FFFD throughout: both ends of the context move back
  // until it does not.
  for (size_t pending = 0; pending <= LoneBytes(*tokenizer_, tokens); ++pending) {
    for (size_t more = 0; more <= kPartOfCharacter; ++more) {
      const size_t begin = size - std::min(size, kContext + more);
      const size_t end = size - pending;
      const absl::StatusOr<std::string> text = tokenizer_->Decode(tokens.subspan(begin, end - begin), skip_special_);
      if (!text.ok()) return text.status();
      if (absl::EndsWith(*text, kReplacement)) continue;
      state_ = {static_cast<int64_t>(begin), static_cast<int64_t>(end), static_cast<int64_t>(text->size())};
      return absl::OkStatus();
    }
  }
  const size_t begin = size - std::min(size, kContext);
  const absl::StatusOr<std::string> text = tokenizer_->Decode(tokens.subspan(begin), skip_special_);
  if (!text.ok()) return text.status();
  const absl::string_view complete = absl::StripSuffix(*text, kReplacement);
  state_ = {static_cast<int64_t>(begin), static_cast<int64_t>(size), static_cast<int64_t>(complete.size())};
  return absl::OkStatus();
}

absl::StatusOr<std::string> Detokenizer::PendingText(absl::Span<const int32_t> tokens) const {
  absl::StatusOr<std::string> window = Window(tokens);
  if (!window.ok()) return window.status();
  return std::string(After(*window, static_cast<size_t>(state_.emitted_bytes)));
}

absl::StatusOr<std::string> Detokenizer::Window(absl::Span<const int32_t> tokens) const {
  const bool in_order = 0 <= state_.prefix_offset && state_.prefix_offset <= state_.read_offset;
  if (!in_order || state_.emitted_bytes < 0 || state_.read_offset > static_cast<int64_t>(tokens.size())) {
    return absl::InvalidArgumentError(absl::StrCat("detokenizer: a state at tokens ", state_.prefix_offset, " to ",
                                                   state_.read_offset, " does not belong to ", tokens.size(),
                                                   " tokens"));
  }
  absl::StatusOr<std::string> window =
      tokenizer_->Decode(tokens.subspan(static_cast<size_t>(state_.prefix_offset)), skip_special_);
  if (window.ok() && window->size() < static_cast<size_t>(state_.emitted_bytes)) {
    return absl::InvalidArgumentError("detokenizer: the state does not belong to these tokens");
  }
  return window;
}

}  // namespace quicksave::text
