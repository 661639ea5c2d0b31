#include "server/text/tokenizer.h"

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/model_files.h"
#include "server/text/rust_call.h"

namespace quicksave::text {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  absl::StatusOr<std::string> json = ReadModelFile(model_dir, "tokenizer.json");
  if (!json.ok()) return json.status();
  quicksave_tokenizer* handle = nullptr;
  quicksave_text error{};
  const int32_t code = quicksave_tokenizer_new(ViewOf(*json), &handle, &error);
  if (code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(code), absl::StrCat(model_dir, "/tokenizer.json ", Take(error)));
  }
  return absl::WrapUnique(new Tokenizer(handle));
}

Tokenizer::Tokenizer(quicksave_tokenizer* handle)
    : handle_(handle), vocab_size_(quicksave_tokenizer_vocab_size(handle)) {}

Tokenizer::~Tokenizer() { quicksave_tokenizer_free(handle_); }

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text, bool add_special_tokens,
                                                       bool parse_special) const {
  return TakeResult<quicksave_ids>("tokenizer: ", [&](quicksave_ids* ids, quicksave_text* error) {
    return quicksave_tokenizer_encode(handle_, ViewOf(text), add_special_tokens, parse_special, ids, error);
  });
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  return TakeResult<quicksave_text>("tokenizer: ", [&](quicksave_text* text, quicksave_text* error) {
    return quicksave_tokenizer_decode(handle_, ids.data(), ids.size(), skip_special, text, error);
  });
}

absl::StatusOr<std::string> Tokenizer::TokenText(int32_t id) const {
  return TakeResult<quicksave_text>("tokenizer: ", [&](quicksave_text* text, quicksave_text* error) {
    return quicksave_tokenizer_token_text(handle_, id, text, error);
  });
}

Tokenizer::Kind Tokenizer::KindOf(int32_t id) const {
  switch (quicksave_tokenizer_kind(handle_, id)) {
    case QUICKSAVE_TOKEN_ORDINARY:
      return Kind::kOrdinary;
    case QUICKSAVE_TOKEN_SPECIAL:
      return Kind::kSpecial;
    case QUICKSAVE_TOKEN_BYTE_FALLBACK:
      return Kind::kByteFallback;
    default:
      return Kind::kNone;
  }
}

}  // namespace quicksave::text
