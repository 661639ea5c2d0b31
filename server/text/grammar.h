// Constrained decoding: which tokens may follow.
//
//   auto grammar = quicksave::text::Grammar::Create(&tokenizer, {Constraint::Kind::kRegex, {"[0-9]+ apples"}});
//   auto mask = (*grammar)->Mask();           // bits of the tokens that may come first
//   (*grammar)->Consume({token});             // one of them
//   (*grammar)->progress();                   // whether the text may end here
#ifndef QUICKSAVE_SERVER_TEXT_GRAMMAR_H_
#define QUICKSAVE_SERVER_TEXT_GRAMMAR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/text/constraint.h"
#include "server/text/tokenizer.h"

struct quicksave_grammar;

namespace quicksave::text {

// A constraint after some tokens: a function of the constraint, the vocabulary and these tokens alone. For one thread
// at a time, but for Cancel. It refers to its tokenizer, which outlives it.
class Grammar {
 public:
  // The grammar before its first token; takes milliseconds, the first time for a tokenizer a fraction of a second.
  // INVALID_ARGUMENT, saying where, when llguidance cannot read the constraint, or it is more than 256 KiB of text,
  // 1,000 choices, 200 open brackets, or too complex; FAILED_PRECONDITION when the vocabulary has no bytes.
  static absl::StatusOr<std::unique_ptr<Grammar>> Create(const Tokenizer* tokenizer, const Constraint& constraint);

  ~Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  enum class Progress {
    kOpen,      // The tokens so far are not a whole text.
    kWhole,     // They are one, and the beginning of longer ones.
    kComplete,  // They are one, and nothing may follow.
  };
  Progress progress() const;

  // Bit `id % 32` of word `id / 32` is set when token `id` may follow; none is when nothing may. Control tokens may
  // not, unless a Lark grammar names them. FAILED_PRECONDITION when going on is too complex. Valid until the next call.
  // Usually some 10 microseconds; an ambiguous grammar can take seconds, see docs/constraints.md.
  absl::StatusOr<absl::Span<const uint32_t>> Mask();

  // Takes tokens that may follow. FAILED_PRECONDITION when one may not, or going on is too complex; after that, and
  // after a failure of Mask, the grammar is of no use.
  absl::Status Consume(absl::Span<const int32_t> ids);

  // Makes a call that works on another thread fail soon, and all later ones at once. Any thread.
  void Cancel();

 private:
  Grammar(quicksave_grammar* handle, int vocab_size);

  quicksave_grammar* handle_;
  std::vector<uint32_t> mask_;
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_GRAMMAR_H_
