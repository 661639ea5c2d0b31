#include "server/service/input_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace quicksave::server {
namespace {

absl::StatusOr<std::vector<int32_t>> MessageTokens(const Core& core, const v1::ChatMessages& input, bool continues) {
  if (input.messages().empty()) return absl::InvalidArgumentError("messages: there is no message");
  std::vector<text::ChatMessage> messages;
  for (const v1::ChatMessage& message : input.messages()) {
    if (message.role().empty())
      return absl::InvalidArgumentError("messages: a message has no role; use system, user or assistant");
    messages.push_back({message.role(), message.content()});
  }
  return continues ? core.chat_template->EncodeContinuation(*core.tokenizer, messages, /*add_generation_prompt=*/true)
                   : core.chat_template->Encode(*core.tokenizer, messages, /*add_generation_prompt=*/true);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> InputTokens(const Core& core, const v1::GenerateRequest& request, bool continues) {
  absl::StatusOr<std::vector<int32_t>> tokens = std::vector<int32_t>();
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      tokens = core.tokenizer->Encode(request.prompt(), /*add_special_tokens=*/!continues, /*parse_special=*/false);
      break;
    case v1::GenerateRequest::kMessages:
      tokens = MessageTokens(core, request.messages(), continues);
      break;
    case v1::GenerateRequest::kTokenIds:
      tokens = std::vector<int32_t>(request.token_ids().ids().begin(), request.token_ids().ids().end());
      if (absl::Status status = CheckTokenIds(core, *tokens); !status.ok()) return status;
      break;
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  if (tokens.ok() && tokens->empty() && !continues) {
    return absl::InvalidArgumentError(
        "a new session needs input: give prompt, messages or token_ids with at least one token, or a session or node "
        "to go on from");
  }
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> TextTokens(const Core& core, const std::string& text) {
  return core.tokenizer->Encode(text, /*add_special_tokens=*/false, /*parse_special=*/false);
}

absl::Status CheckTokenIds(const Core& core, absl::Span<const int32_t> ids) {
  // The model's vocabulary may be padded: ids that the tokenizer lacks have no text.
  const int count = std::min(core.identity.vocab_size, core.tokenizer->vocab_size());
  for (const int32_t id : ids) {
    if (id < 0 || id >= count) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is not in the vocabulary; ids are from 0 to ", count - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace quicksave::server
