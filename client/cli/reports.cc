#include "client/cli/reports.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/encoding_text.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

std::string CheckText(const client::DistributionCheck& check) {
  switch (check.outcome) {
    case client::CheckOutcome::kIdentical:
      return absl::StrCat("next-token distribution identical (", HumanCount(check.logits_compared), " logits)");
    case client::CheckOutcome::kKvIdentical:
      return "K and V of the last token identical (its logits were not stored)";
    case client::CheckOutcome::kSkipped:
      return "next-token distribution not checked";
    case client::CheckOutcome::kAsMeasured:
      return absl::StrFormat("next-token distribution diverges as measured (KL %.4g nats)", check.kl_divergence);
    case client::CheckOutcome::kValuesAsMeasured:
      return "decoded values as measured (the logits were not stored)";
    case client::CheckOutcome::kUnspecified:
      break;
  }
  return "next-token distribution: the server does not say";
}

std::string ReasonText(const client::GenerateFinished& finished) {
  switch (finished.reason) {
    case client::FinishReason::kEndOfTurn:
      return "the model's end of turn";
    case client::FinishReason::kStop:
      return absl::StrCat("stop '", OneLine(finished.stop, /*unicode=*/true), "'");
    case client::FinishReason::kMaxTokens:
      return "max tokens";
    case client::FinishReason::kContextFull:
      return "a full context";
    case client::FinishReason::kConstraintComplete:
      return "the constraint";
    case client::FinishReason::kUnspecified:
      break;
  }
  return "the server";
}

// What was recomputed of the tokens that were reused.
std::string LayersText(const client::Proof& proof) {
  if (proof.layers_recomputed == 0) return "";
  return absl::StrCat(" (", proof.layers_recomputed, " layers of them recomputed)");
}

// Whether the state is the saved one, and else how far from it.
std::string StateText(const client::Proof& proof) {
  if (proof.exact) return "exact: every bit as saved";
  const bool measured = proof.encoding && proof.encoding->fidelity;
  return absl::StrCat("not exact: ",
                      measured ? FidelityText(*proof.encoding->fidelity) : std::string("how far was not measured"));
}

std::string TimeText(const client::Proof& proof) {
  const client::RestoreTiming& timing = proof.timing;
  std::string text = absl::StrCat(HumanDuration(timing.total), ": read ", HumanDuration(timing.read), ", decode ",
                                  HumanDuration(timing.decode), ", load ", HumanDuration(timing.load));
  if (timing.replay > absl::ZeroDuration()) absl::StrAppend(&text, ", replay ", HumanDuration(timing.replay));
  absl::StrAppend(&text, ", check ", HumanDuration(timing.check));
  if (proof.estimate > absl::ZeroDuration()) {
    absl::StrAppend(&text, "; estimated ", HumanDuration(proof.estimate), " without the check");
  }
  return text;
}

}  // namespace

std::string ProofLine(const client::Proof& proof) {
  return absl::StrCat(HumanCount(proof.tokens_reused), " tokens reused", LayersText(proof), ", ",
                      HumanCount(proof.tokens_recomputed), " recomputed; ", proof.exact ? "" : "not exact; ",
                      CheckText(proof.check), "; ", HumanBytes(proof.bytes_read), " read in ",
                      HumanDuration(proof.timing.total));
}

std::string PrefixLine(const client::GenerateStarted& started) {
  const int32_t known = started.shared_tokens + started.restored_tokens;
  if (known == 0) return "";
  std::string source = "shared with a sequence in memory";
  if (started.restored_tokens > 0) {
    source = absl::StrCat("restored from ", started.restored_node.empty() ? "a parked session" : started.restored_node);
  }
  return absl::StrCat(HumanCount(known), " of ", HumanCount(started.input_tokens), " tokens not computed: ", source);
}

std::string SavedLine(const client::SavedNode& saved) {
  const client::Storage& storage = saved.node.storage;
  return absl::StrCat("saved ", saved.node.name, ": ", HumanCount(saved.node.token_count), " tokens, ",
                      HumanBytes(storage.stored_bytes), " (", HumanRatio(storage.ratio), "), +",
                      HumanBytes(storage.added_bytes), " new, in ", HumanDuration(saved.report.total));
}

std::string FinishedLine(const client::GenerateFinished& finished) {
  const double seconds = absl::ToDoubleSeconds(finished.decode_time);
  const std::string rate =
      seconds > 0 ? absl::StrFormat(" (%.1f tokens/s)", finished.generated_tokens / seconds) : std::string();
  return absl::StrCat(HumanCount(finished.generated_tokens), " tokens in ", HumanDuration(finished.decode_time), rate,
                      ", ended by ", ReasonText(finished), finished.replayed ? "; answer of an earlier request" : "");
}

std::string UnreadableLine(const std::vector<std::string>& names) {
  return absl::StrCat(
      names.size() == 1 ? "the record of 1 node is" : absl::StrCat("the records of ", names.size(), " nodes are"),
      " damaged: ", absl::StrJoin(names, ", "), "; `quicksave show NODE` says how");
}

Fields ProofFields(const client::Proof& proof) {
  Fields fields = {
      {"reused", absl::StrCat(HumanCount(proof.tokens_reused), " tokens", LayersText(proof))},
      {"recomputed", absl::StrCat(HumanCount(proof.tokens_recomputed), " tokens")},
      {"check", CheckText(proof.check)},
      {"difference", absl::StrFormat("max %g, KL %g nats", proof.check.max_abs_difference, proof.check.kl_divergence)},
      {"read", absl::StrCat(HumanBytes(proof.bytes_read), " (", proof.codec, "), ", HumanBytes(proof.bytes_restored),
                            " of K and V in memory")},
      {"state", StateText(proof)}};
  if (proof.encoding && !proof.encoding->codec.empty()) {
    fields.emplace_back("encoding", absl::StrCat(EncodingName(*proof.encoding), proof.exact ? ", with residual" : ""));
  }
  fields.emplace_back("time", TimeText(proof));
  return fields;
}

std::string SamplingText(const client::SamplingParameters& sampling) {
  std::vector<std::string> parts;
  const auto add = [&parts](const char* name, const auto& value) {
    if (value.has_value()) parts.push_back(absl::StrCat(name, " ", *value));
  };
  add("temperature", sampling.temperature);
  add("top-k", sampling.top_k);
  add("top-p", sampling.top_p);
  add("min-p", sampling.min_p);
  add("repetition-penalty", sampling.repetition_penalty);
  add("presence-penalty", sampling.presence_penalty);
  add("frequency-penalty", sampling.frequency_penalty);
  if (sampling.logit_bias && !sampling.logit_bias->empty()) {
    parts.push_back(absl::StrCat("logit-bias of ", sampling.logit_bias->size(), " tokens"));
  }
  add("seed", sampling.seed);
  return parts.empty() ? "-" : absl::StrJoin(parts, ", ");
}

std::string SessionTable(const std::vector<client::Session>& sessions, const Console& console) {
  constexpr auto kRight = TextTable::Align::kRight;
  TextTable table({{.title = "SESSION", .style = Style::kYellow},
                   {.title = "TOKENS", .align = kRight},
                   {.title = "PAGES", .align = kRight},
                   {.title = "MADE"},
                   {.title = "LEASE"},
                   {.title = "SEED", .align = kRight},
                   {.title = "NODE"}});
  const absl::Time now = console.now();
  for (const client::Session& session : sessions) {
    const bool leased = session.expire_time != absl::InfinitePast();
    table.AddRow({session.name, HumanCount(session.token_count), HumanCount(session.pages),
                  HumanAge(session.create_time, now), leased ? HumanDuration(session.expire_time - now) : "-",
                  session.sampling.seed ? absl::StrCat(*session.sampling.seed) : "-",
                  session.node.empty() ? "-" : absl::StrCat(session.node, "@", session.node_token_count)});
  }
  return table.Render(console);
}

}  // namespace quicksave::cli
