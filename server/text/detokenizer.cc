#include "server/text/detokenizer.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace quicksave::text {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

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
  std::string piece(complete.substr(emitted));

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

absl::StatusOr<std::string> Detokenizer::PendingText(absl::Span<const int32_t> tokens) const {
  absl::StatusOr<std::string> window = Window(tokens);
  if (!window.ok()) return window.status();
  return window->substr(static_cast<size_t>(state_.emitted_bytes));
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
