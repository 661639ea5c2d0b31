#include "client/cli/error_text.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/json_output.h"
#include "client/cli/text_format.h"

namespace quicksave::cli {
namespace {

// What to do about an error, where its message cannot know it.
std::string Advice(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return "Is quicksave-server running there, and ready? See --endpoint and `quicksave health`.";
    case absl::StatusCode::kNotFound:
      if (absl::StrContains(status.message(), "`quicksave ")) return "";
      return "`quicksave ls` lists nodes, `quicksave ls --sessions` sessions.";
    case absl::StatusCode::kDeadlineExceeded:
      return "--timeout gives more time.";
    case absl::StatusCode::kUnauthenticated:
      return "Give a token with --token-file or QUICKSAVE_TOKEN.";
    case absl::StatusCode::kUnimplemented:
      return "Is this a Quicksave server, and of this version?";
    case absl::StatusCode::kResourceExhausted:
      if (const auto delay = client::ErrorRetryDelay(status)) {
        return absl::StrCat("Try again in ", HumanDuration(*delay), ".");
      }
      return "";
    default:
      return "";
  }
}

}  // namespace

std::string ErrorText(const absl::Status& status, const Console& console) {
  if (console.json) return Line(ErrorToJson(status));
  const std::string code = absl::StatusCodeToString(status.code());
  const std::string reason = client::ErrorReason(status);
  const bool tells_more = !reason.empty() && reason != code;
  std::string text = absl::StrCat(code, tells_more ? absl::StrCat(" (", reason, ")") : "", ": ",
                                  OneLine(Shortened(status.message()), console.unicode));
  const std::string advice = Advice(status);
  if (!advice.empty()) absl::StrAppend(&text, absl::EndsWith(text, ".") ? " " : ". ", advice);
  return absl::StrCat(console.StyledForErr("quicksave: ", Style::kRed), text, "\n");
}

}  // namespace quicksave::cli
