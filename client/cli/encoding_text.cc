#include "client/cli/encoding_text.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

using client::Encoding;

constexpr size_t kShownOfProfile = 8;
// Steps are shown with four digits; what is shown must find them.
constexpr float kStepTolerance = 1e-3f;

// A condition that an encoding meets or not.
using Condition = std::function<bool(const Encoding&)>;

absl::StatusOr<Condition> ParseCondition(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  const std::string value(parts.second);
  int32_t split = 0;
  float step = 0;
  if (parts.first == "split" && absl::SimpleAtoi(value, &split)) {
    return [split](const Encoding& encoding) { return encoding.split == split; };
  }
  if (parts.first == "step" && absl::SimpleAtof(value, &step)) {
    return [step](const Encoding& encoding) {
      return std::abs(encoding.step - step) <= kStepTolerance * std::abs(encoding.step);
    };
  }
  if (parts.first == "profile" && !value.empty()) {
    return [value](const Encoding& encoding) { return absl::StartsWith(encoding.profile, value); };
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text,
                   "' names no encoding; write its number, as `quicksave show NODE` counts them, or split=N, step=X, "
                   "profile=ID, or several of these with commas between them"));
}

std::string NumberedNames(const std::vector<Encoding>& encodings) {
  std::string text;
  for (size_t i = 0; i < encodings.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "; ", i + 1, ": ", EncodingName(encodings[i]));
  }
  return text;
}

absl::Status NotOne(const client::Node& node, const std::string& text, size_t count) {
  if (node.encodings.empty()) {
    return absl::NotFoundError(
        absl::StrCat(node.name, " has no encodings besides the blocks as saved; `quicksave encode` makes some"));
  }
  const std::string has =
      absl::StrCat("`quicksave show` lists what ", node.name, " has: ", NumberedNames(node.encodings));
  if (count == 0) return absl::NotFoundError(absl::StrCat("no encoding is '", text, "'; ", has));
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' means ", count, " encodings; ", has));
}

std::string OrDash(bool known, const std::string& text) { return known ? text : "-"; }

std::string Percent(double share) { return absl::StrFormat("%.1f%%", 100 * share); }

}  // namespace

std::string EncodingName(const Encoding& encoding) {
  return absl::StrCat(encoding.codec, ", split ", encoding.split, ", step ", absl::StrFormat("%.4g", encoding.step),
                      ", profile ", encoding.profile.substr(0, kShownOfProfile));
}

std::string FidelityText(const client::Fidelity& fidelity) {
  std::string text = absl::StrFormat("mean KL %.4g nats, largest %.4g, top-1 %s", fidelity.mean_kl, fidelity.max_kl,
                                     Percent(fidelity.top1_agreement));
  if (fidelity.probe_tokens == 0) return text;
  return absl::StrCat(text, " over ", HumanCount(fidelity.probe_tokens), " tokens, ",
                      absl::StrFormat("%.4g", fidelity.next_token_kl), " after the last");
}

std::string EncodingText(const Encoding& encoding) {
  std::string text = absl::StrCat(EncodingName(encoding), ": ", HumanBytes(encoding.stored_bytes), " (",
                                  HumanRatio(encoding.ratio), ")");
  if (encoding.has_residual) {
    absl::StrAppend(&text, ", with residual ", HumanBytes(encoding.stored_bytes + encoding.residual_bytes), " (",
                    HumanRatio(LayeredRatio(encoding)), ")");
  }
  return absl::StrCat(text, "; ", encoding.fidelity ? FidelityText(*encoding.fidelity) : "not measured");
}

double LayeredRatio(const Encoding& encoding) {
  const int64_t bytes = encoding.stored_bytes + encoding.residual_bytes;
  if (!encoding.has_residual || bytes == 0) return 0;
  return static_cast<double>(encoding.raw_bytes) / static_cast<double>(bytes);
}

int64_t StoredBytes(const client::Node& node) {
  int64_t bytes = node.saved_dropped ? 0 : node.storage.stored_bytes;
  for (const Encoding& encoding : node.encodings) bytes += encoding.stored_bytes + encoding.residual_bytes;
  return bytes;
}

double StoredRatio(const client::Node& node) {
  if (node.encodings.empty()) return node.storage.ratio;
  const int64_t bytes = StoredBytes(node);
  // That of an encoding is there when the blocks as saved are not.
  const int64_t raw = node.encodings.front().raw_bytes;
  return bytes > 0 ? static_cast<double>(raw) / static_cast<double>(bytes) : 0;
}

std::string TrialTable(const std::vector<client::EncodingTrial>& trials, const Console& console) {
  constexpr auto kRight = TextTable::Align::kRight;
  TextTable table({{.title = "STEP", .align = kRight, .style = Style::kYellow},
                   {.title = "SIZE", .align = kRight},
                   {.title = "RATIO", .align = kRight, .style = Style::kGreen},
                   {.title = "WITH RESIDUAL", .align = kRight},
                   {.title = "MEAN KL", .align = kRight},
                   {.title = "LARGEST", .align = kRight},
                   {.title = "NEXT TOKEN", .align = kRight},
                   {.title = "TOP-1", .align = kRight},
                   {.title = "CPU TIME", .align = kRight},
                   {.title = "IN BUDGET"}});
  for (const client::EncodingTrial& trial : trials) {
    const Encoding& encoding = trial.encoding;
    const bool measured = encoding.fidelity.has_value();
    const client::Fidelity fidelity = encoding.fidelity.value_or(client::Fidelity());
    table.AddRow({absl::StrFormat("%.4g", encoding.step), HumanBytes(encoding.stored_bytes), HumanRatio(encoding.ratio),
                  HumanRatio(LayeredRatio(encoding)), OrDash(measured, absl::StrFormat("%.4g", fidelity.mean_kl)),
                  OrDash(measured, absl::StrFormat("%.4g", fidelity.max_kl)),
                  OrDash(measured, absl::StrFormat("%.4g", fidelity.next_token_kl)),
                  OrDash(measured, Percent(fidelity.top1_agreement)), HumanDuration(trial.encode),
                  trial.within_budget ? "yes" : "no"});
  }
  return table.Render(console);
}

absl::StatusOr<Encoding> FindEncoding(const client::Node& node, const std::string& text) {
  size_t number = 0;
  if (absl::SimpleAtoi(text, &number)) {
    if (number >= 1 && number <= node.encodings.size()) return node.encodings[number - 1];
    return NotOne(node, text, 0);
  }
  std::vector<Encoding> matches = node.encodings;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const absl::StatusOr<Condition> condition = ParseCondition(part);
    if (!condition.ok()) return condition.status();
    matches.erase(std::remove_if(matches.begin(), matches.end(), std::not_fn(*condition)), matches.end());
  }
  if (matches.size() == 1) return matches[0];
  return NotOne(node, text, matches.size());
}

}  // namespace quicksave::cli
