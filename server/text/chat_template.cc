#include "server/text/chat_template.h"

#include <optional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/model_files.h"
#include "server/text/rust_call.h"

namespace quicksave::text {
namespace {

// The content of a file that need not exist.
absl::StatusOr<std::optional<std::string>> ReadOptionalFile(const std::string& model_dir, const std::string& name) {
  absl::StatusOr<std::string> content = ReadModelFile(model_dir, name);
  if (absl::IsNotFound(content.status())) return std::optional<std::string>();
  if (!content.ok()) return content.status();
  return std::optional<std::string>(*std::move(content));
}

quicksave_view ViewOfFile(const std::optional<std::string>& file) {
  if (!file.has_value()) return {nullptr, 0};
  return {file->data(), file->size()};
}

std::vector<quicksave_message> ViewsOf(absl::Span<const ChatMessage> messages) {
  std::vector<quicksave_message> views;
  views.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    views.push_back({ViewOf(message.role), ViewOf(message.content)});
  }
  return views;
}

absl::Status NoTemplate(const std::string& model_dir) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the model in ", model_dir, " has no chat template: send a prompt or token ids instead of messages"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& model_dir) {
  std::optional<std::string> files[3];
  const char* names[3] = {"chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"};
  for (int i = 0; i < 3; ++i) {
    absl::StatusOr<std::optional<std::string>> content = ReadOptionalFile(model_dir, names[i]);
    if (!content.ok()) return content.status();
    files[i] = *std::move(content);
  }
  quicksave_chat_template* handle = nullptr;
  quicksave_text error{};
  const int32_t code =
      quicksave_chat_template_new(ViewOfFile(files[0]), ViewOfFile(files[1]), ViewOfFile(files[2]), &handle, &error);
  if (code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(code), absl::StrCat(model_dir, ": ", Take(error)));
  }
  return absl::WrapUnique(new ChatTemplate(model_dir, handle));
}

ChatTemplate::ChatTemplate(std::string model_dir, quicksave_chat_template* handle)
    : model_dir_(std::move(model_dir)), handle_(handle) {}

ChatTemplate::~ChatTemplate() { quicksave_chat_template_free(handle_); }

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages, bool add_generation_prompt,
                                                 absl::Time now) const {
  return RenderWith(messages, {add_generation_prompt, /*continuation=*/false, absl::ToUnixMicros(now)});
}

absl::StatusOr<std::string> ChatTemplate::RenderContinuation(absl::Span<const ChatMessage> messages,
                                                             bool add_generation_prompt, absl::Time now) const {
  return RenderWith(messages, {add_generation_prompt, /*continuation=*/true, absl::ToUnixMicros(now)});
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::Encode(const Tokenizer& tokenizer,
                                                          absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt, absl::Time now) const {
  return EncodeWith(tokenizer, messages, {add_generation_prompt, /*continuation=*/false, absl::ToUnixMicros(now)});
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::EncodeContinuation(const Tokenizer& tokenizer,
                                                                      absl::Span<const ChatMessage> messages,
                                                                      bool add_generation_prompt,
                                                                      absl::Time now) const {
  return EncodeWith(tokenizer, messages, {add_generation_prompt, /*continuation=*/true, absl::ToUnixMicros(now)});
}

absl::StatusOr<std::string> ChatTemplate::RenderWith(absl::Span<const ChatMessage> messages,
                                                     const Options& options) const {
  if (handle_ == nullptr) return NoTemplate(model_dir_);
  const std::vector<quicksave_message> views = ViewsOf(messages);
  const quicksave_render_options raw = {options.add_generation_prompt, options.continuation, options.now_us};
  return TakeResult<quicksave_text>("", [&](quicksave_text* text, quicksave_text* error) {
    return quicksave_chat_template_render(handle_, views.data(), views.size(), &raw, text, error);
  });
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::EncodeWith(const Tokenizer& tokenizer,
                                                              absl::Span<const ChatMessage> messages,
                                                              const Options& options) const {
  if (handle_ == nullptr) return NoTemplate(model_dir_);
  const std::vector<quicksave_message> views = ViewsOf(messages);
  const quicksave_render_options raw = {options.add_generation_prompt, options.continuation, options.now_us};
  return TakeResult<quicksave_ids>("", [&](quicksave_ids* ids, quicksave_text* error) {
    return quicksave_chat_template_encode(handle_, tokenizer.handle_, views.data(), views.size(), &raw, ids, error);
  });
}

}  // namespace quicksave::text
