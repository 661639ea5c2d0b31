// Text to token ids and back, for one model's vocabulary.
//
//   auto tokenizer = quicksave::text::Tokenizer::Load("/models/SmolLM2-135M-Instruct");
//   auto ids = (*tokenizer)->Encode("Hello", /*add_special_tokens=*/true, /*parse_special=*/false);
//   auto text = (*tokenizer)->Decode(*ids, /*skip_special=*/true);
#ifndef QUICKSAVE_SERVER_TEXT_TOKENIZER_H_
#define QUICKSAVE_SERVER_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct quicksave_tokenizer;

namespace quicksave::text {

// A tokenizer.json as the Hugging Face `tokenizers` library runs it. Immutable after Load: every const method may be
// called from any number of threads at once.
//
// A *special* token is one that tokenizer.json marks as special (control tokens such as "<|im_end|>"). Added tokens
// without that mark ("<think>" of some models) are ordinary vocabulary and are recognised in any text.
class Tokenizer {
 public:
  // Reads `model_dir`/tokenizer.json. NOT_FOUND without that file; FAILED_PRECONDITION when the library cannot use it.
  // Truncation and padding settings in the file are ignored: no call ever shortens or pads.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Token ids of `text`. `add_special_tokens` lets the file's post-processor add its tokens (a BOS, for example).
  // With `parse_special` the text "<|im_end|>" becomes that control token; without it, it is encoded as ordinary
  // characters, so that text from outside cannot forge a control token.
  // INVALID_ARGUMENT when `text` is not UTF-8 (the message gives the byte offset), or, without `parse_special`, when
  // the vocabulary offers no way to write a control token's text in ordinary tokens.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, bool add_special_tokens,
                                              bool parse_special) const;

  // The text of `ids`; bytes that are not UTF-8 come out as U+FFFD. `skip_special` leaves special tokens out.
  // An id inside the vocabulary that has no token contributes nothing. INVALID_ARGUMENT for an id outside
  // [0, vocab_size()).
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // One more than the greatest token id, added tokens included. The model's embedding may have more rows.
  int vocab_size() const { return vocab_size_; }

  // One token for people to read, context-free, always UTF-8: its text, a leading space kept; bytes that are not UTF-8
  // alone are shown as \xNN. Empty for an id without a token. INVALID_ARGUMENT outside [0, vocab_size()).
  absl::StatusOr<std::string> TokenText(int32_t id) const;

  // What `id` stands for.
  enum class Kind {
    kNone,          // No token: outside the vocabulary, or a gap in it.
    kOrdinary,      // Text, or a part of a character.
    kSpecial,       // A special token.
    kByteFallback,  // One byte ("<0x0A>") of a vocabulary whose byte tokens mean something only together.
  };
  Kind KindOf(int32_t id) const;
  bool IsSpecial(int32_t id) const { return KindOf(id) == Kind::kSpecial; }

 private:
  friend class ChatTemplate;
  friend class Grammar;

  explicit Tokenizer(quicksave_tokenizer* handle);

  quicksave_tokenizer* handle_;
  int vocab_size_;
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_TOKENIZER_H_
