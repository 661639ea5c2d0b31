#include "server/text/grammar.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/text/rust_call.h"

namespace quicksave::text {
namespace {

int32_t KindOf(Constraint::Kind kind) {
  switch (kind) {
    case Constraint::Kind::kJsonSchema:
      return QUICKSAVE_GRAMMAR_JSON_SCHEMA;
    case Constraint::Kind::kRegex:
      return QUICKSAVE_GRAMMAR_REGEX;
    case Constraint::Kind::kChoices:
      return QUICKSAVE_GRAMMAR_CHOICES;
    case Constraint::Kind::kLark:
      break;
  }
  return QUICKSAVE_GRAMMAR_LARK;
}

absl::string_view NameOf(Constraint::Kind kind) {
  switch (kind) {
    case Constraint::Kind::kJsonSchema:
      return "constraint.json_schema";
    case Constraint::Kind::kRegex:
      return "constraint.regex";
    case Constraint::Kind::kChoices:
      return "constraint.choice";
    case Constraint::Kind::kLark:
      break;
  }
  return "constraint.lark";
}

absl::Status Failure(int32_t code, absl::string_view prefix, quicksave_text error) {
  if (code == 0) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(code), absl::StrCat(prefix, ": ", Take(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Grammar>> Grammar::Create(const Tokenizer* tokenizer, const Constraint& constraint) {
  std::vector<quicksave_view> texts;
  for (const std::string& text : constraint.texts) texts.push_back(ViewOf(text));
  quicksave_grammar* handle = nullptr;
  quicksave_text error{};
  const int32_t code =
      quicksave_grammar_new(tokenizer->handle_, KindOf(constraint.kind), texts.data(), texts.size(), &handle, &error);
  if (absl::Status status = Failure(code, NameOf(constraint.kind), error); !status.ok()) return status;
  return absl::WrapUnique(new Grammar(handle, tokenizer->vocab_size()));
}

Grammar::Grammar(quicksave_grammar* handle, int vocab_size) : handle_(handle), mask_((vocab_size + 31) / 32) {}

Grammar::~Grammar() { quicksave_grammar_free(handle_); }

Grammar::Progress Grammar::progress() const {
  switch (quicksave_grammar_progress(handle_)) {
    case QUICKSAVE_GRAMMAR_OPEN:
      return Progress::kOpen;
    case QUICKSAVE_GRAMMAR_WHOLE:
      return Progress::kWhole;
    default:
      return Progress::kComplete;
  }
}

absl::StatusOr<absl::Span<const uint32_t>> Grammar::Mask() {
  quicksave_text error{};
  const int32_t code = quicksave_grammar_mask(handle_, mask_.data(), mask_.size(), &error);
  if (absl::Status status = Failure(code, "constraint", error); !status.ok()) return status;
  return absl::MakeConstSpan(mask_);
}

absl::Status Grammar::Consume(absl::Span<const int32_t> ids) {
  quicksave_text error{};
  return Failure(quicksave_grammar_consume(handle_, ids.data(), ids.size(), &error), "constraint", error);
}

void Grammar::Cancel() { quicksave_grammar_cancel(handle_); }

}  // namespace quicksave::text
