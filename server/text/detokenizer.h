// Streaming text from token ids: only complete characters come out, and the state is three numbers.
//
//   Detokenizer detokenizer(tokenizer, /*skip_special=*/true);
//   detokenizer.SkipTo(prompt).IgnoreError();      // what is already there
//   tokens.push_back(next);
//   auto piece = detokenizer.Append(tokens);       // " world"
//   auto rest = detokenizer.PendingText(tokens);   // at the end: an incomplete character as U+FFFD
#ifndef QUICKSAVE_SERVER_TEXT_DETOKENIZER_H_
#define QUICKSAVE_SERVER_TEXT_DETOKENIZER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/text/tokenizer.h"

namespace quicksave::text {

// Turns a growing list of tokens into a growing text. The pieces of all Append calls plus the last PendingText equal
// Tokenizer::Decode of the whole list, whatever the steps and also when the state was saved and restored between them.
//
// The caller keeps the tokens and hands the whole list to each call; the state only points into it. Only tokens since
// the last piece but one are decoded again, so a call costs a few tokens' decoding (the method of vLLM's incremental
// detokenizer, https://github.com/vllm-project/vllm/blob/main/vllm/transformers_utils/detokenizer_utils.py).
//
// Not thread-safe; one object belongs to one session. The tokenizer must outlive it.
class Detokenizer {
 public:
  // Everything that has to be saved. Valid for the token list it was taken with, or any longer one that begins so.
  struct State {
    // Tokens before this one are never looked at again.
    int64_t prefix_offset = 0;
    // End of the tokens whose text was complete when it was last given out; prefix_offset <= read_offset.
    int64_t read_offset = 0;
    // Bytes of the text of tokens [prefix_offset, ...) that were given out already.
    int64_t emitted_bytes = 0;

    friend bool operator==(const State&, const State&) = default;
  };

  // Starts at an empty list of tokens.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special);
  // Goes on from a saved state, with the `skip_special` that it was made with.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, const State& state);

  // The text that `tokens` (all tokens so far, the known ones first) add to what earlier calls gave, up to the last
  // complete character; often empty. INVALID_ARGUMENT, with the state unchanged, for an id outside the vocabulary or
  // a list shorter than the state points into.
  absl::StatusOr<std::string> Append(absl::Span<const int32_t> tokens);

  // Goes on after `tokens`, whose text is not given out: later calls give what tokens after them add, beginning with
  // the character that `tokens` leave incomplete, if they do. What was held back is dropped. INVALID_ARGUMENT, with the
  // state unchanged, for an id outside the vocabulary.
  absl::Status SkipTo(absl::Span<const int32_t> tokens);

  // The text held back by Append for these `tokens`: an incomplete character, as U+FFFD. Changes nothing.
  absl::StatusOr<std::string> PendingText(absl::Span<const int32_t> tokens) const;

  const State& state() const { return state_; }

 private:
  // The text of tokens [prefix_offset, end).
  absl::StatusOr<std::string> Window(absl::Span<const int32_t> tokens) const;

  const Tokenizer* tokenizer_;
  bool skip_special_;
  State state_;
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_DETOKENIZER_H_
