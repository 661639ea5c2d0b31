// Chat messages to the text and tokens that a model was trained on, by the model's own Jinja template.
#ifndef QUICKSAVE_SERVER_TEXT_CHAT_TEMPLATE_H_
#define QUICKSAVE_SERVER_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/text/tokenizer.h"

struct quicksave_chat_template;

namespace quicksave::text {

// One turn of a conversation. `role` is what the template knows: "system", "user", "assistant" and the like.
struct ChatMessage {
  std::string role;
  std::string content;
};

// A chat template as Hugging Face transformers runs it (trim_blocks, lstrip_blocks, loop controls, raise_exception,
// strftime_now, tojson, bos_token and the other special token strings). Immutable after Load: every const method may
// be called from any number of threads at once.
//
// Roles and contents must be UTF-8 (INVALID_ARGUMENT otherwise). An exception that the template raises is
// INVALID_ARGUMENT with the template's own message.
class ChatTemplate {
 public:
  // Reads `model_dir`/chat_template.jinja, or "chat_template" of tokenizer_config.json (a string, or a list of named
  // templates of which "default" is taken), and the special token strings of tokenizer_config.json and
  // special_tokens_map.json. A model without a template loads; its Render calls then fail with FAILED_PRECONDITION.
  // FAILED_PRECONDITION when a file is there but cannot be parsed or the template cannot be compiled.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& model_dir);

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // Whether the model has a template.
  bool available() const { return handle_ != nullptr; }

  // The text of the whole conversation; with `add_generation_prompt` also the beginning of the assistant's turn.
  // `now` is the time that strftime_now shows, in the local time zone.
  absl::StatusOr<std::string> Render(absl::Span<const ChatMessage> messages, bool add_generation_prompt,
                                     absl::Time now = absl::Now()) const;

  // The text to append to a conversation that ends right after an assistant's reply without its end-of-turn token:
  // that end of turn, then `messages` (may be empty). Found by rendering the messages after a marked assistant turn.
  // FAILED_PRECONDITION when the template does not render the marked reply exactly once.
  absl::StatusOr<std::string> RenderContinuation(absl::Span<const ChatMessage> messages, bool add_generation_prompt,
                                                 absl::Time now = absl::Now()) const;

  // Token ids of Render's text: the template's control tokens are parsed, while the same characters inside a role or
  // content are ordinary text, so a message cannot forge a turn. For messages without such characters the ids equal
  // those of transformers' apply_chat_template. Nothing is added around them (no post-processor).
  // `tokenizer` is the tokenizer of the same model.
  absl::StatusOr<std::vector<int32_t>> Encode(const Tokenizer& tokenizer, absl::Span<const ChatMessage> messages,
                                              bool add_generation_prompt, absl::Time now = absl::Now()) const;

  // Likewise for RenderContinuation.
  absl::StatusOr<std::vector<int32_t>> EncodeContinuation(const Tokenizer& tokenizer,
                                                          absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt,
                                                          absl::Time now = absl::Now()) const;

 private:
  struct Options {
    bool add_generation_prompt;
    bool continuation;
    int64_t now_us;
  };

  ChatTemplate(std::string model_dir, quicksave_chat_template* handle);

  absl::StatusOr<std::string> RenderWith(absl::Span<const ChatMessage> messages, const Options& options) const;
  absl::StatusOr<std::vector<int32_t>> EncodeWith(const Tokenizer& tokenizer, absl::Span<const ChatMessage> messages,
                                                  const Options& options) const;

  std::string model_dir_;
  quicksave_chat_template* handle_;  // Null without a template.
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_CHAT_TEMPLATE_H_
