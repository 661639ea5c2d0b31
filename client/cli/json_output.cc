#include "client/cli/json_output.h"

#include "absl/strings/str_cat.h"
#include "client/cli/text_format.h"

namespace quicksave::cli {
namespace {

void SetTime(Json* json, const char* key, absl::Time time) {
  if (time != absl::InfinitePast()) (*json)[key] = HumanTime(time);
}

template <typename Value>
void SetOptional(Json* json, const char* key, const std::optional<Value>& value) {
  if (value.has_value()) (*json)[key] = *value;
}

Json EventToJson(const client::GenerateStarted& event) {
  Json json = {{"event", "started"},
               {"session", event.session},
               {"reused_tokens", event.reused_tokens},
               {"shared_tokens", event.shared_tokens},
               {"input_tokens", event.input_tokens}};
  if (event.proof) json["proof"] = ToJson(*event.proof);
  return json;
}

Json EventToJson(const client::GenerateDelta& event) {
  Json json = {{"event", "delta"}, {"text", event.text}};
  json["tokens"] = ToJsonArray(event.tokens);
  return json;
}

Json EventToJson(const client::SavedNode& event) {
  Json json = {{"event", "saved"}};
  json.update(ToJson(event));
  return json;
}

Json EventToJson(const client::GenerateFinished& event) {
  Json json = {{"event", "finished"},
               {"reason", ReasonName(event.reason)},
               {"stop", event.stop},
               {"generated_tokens", event.generated_tokens},
               {"token_count", event.token_count},
               {"pending_text", event.pending_text},
               {"prefill_seconds", absl::ToDoubleSeconds(event.prefill_time)},
               {"decode_seconds", absl::ToDoubleSeconds(event.decode_time)},
               {"replayed", event.replayed}};
  if (!event.session.empty()) json["session"] = event.session;
  return json;
}

Json EventToJson(std::monostate) { return {{"event", "unknown"}}; }

}  // namespace

std::string EdgeTypeName(client::EdgeType type) {
  switch (type) {
    case client::EdgeType::kContinuation:
      return "continuation";
    case client::EdgeType::kIntervention:
      return "intervention";
    case client::EdgeType::kCounterfactual:
      return "counterfactual";
    case client::EdgeType::kMerge:
      return "merge";
    case client::EdgeType::kUnspecified:
      break;
  }
  return "unspecified";
}

std::string OutcomeName(client::CheckOutcome outcome) {
  switch (outcome) {
    case client::CheckOutcome::kIdentical:
      return "identical";
    case client::CheckOutcome::kSkipped:
      return "skipped";
    case client::CheckOutcome::kKvIdentical:
      return "kv_identical";
    case client::CheckOutcome::kAsMeasured:
      return "as_measured";
    case client::CheckOutcome::kValuesAsMeasured:
      return "values_as_measured";
    case client::CheckOutcome::kUnspecified:
      break;
  }
  return "unspecified";
}

std::string ReasonName(client::FinishReason reason) {
  switch (reason) {
    case client::FinishReason::kEndOfTurn:
      return "end_of_turn";
    case client::FinishReason::kStop:
      return "stop";
    case client::FinishReason::kMaxTokens:
      return "max_tokens";
    case client::FinishReason::kContextFull:
      return "context_full";
    case client::FinishReason::kConstraintComplete:
      return "constraint_complete";
    case client::FinishReason::kUnspecified:
      break;
  }
  return "unspecified";
}

std::string HealthName(client::Health health) {
  switch (health) {
    case client::Health::kServing:
      return "serving";
    case client::Health::kNotServing:
      return "not_serving";
    case client::Health::kUnknown:
      break;
  }
  return "unknown";
}

Json ToJson(const client::Storage& storage) {
  return {{"codec", storage.codec},
          {"raw_bytes", storage.raw_bytes},
          {"stored_bytes", storage.stored_bytes},
          {"added_bytes", storage.added_bytes},
          {"ratio", storage.ratio},
          {"blocks", storage.blocks},
          {"logits_bytes", storage.logits_bytes}};
}

Json ToJson(const client::Edge& edge) {
  return {{"parent", edge.parent}, {"type", EdgeTypeName(edge.type)}, {"at_token", edge.at_token}};
}

Json ToJson(const client::Block& block) {
  return {{"id", block.id},
          {"first_token", block.first_token},
          {"token_count", block.token_count},
          {"raw_bytes", block.raw_bytes},
          {"stored_bytes", block.stored_bytes}};
}

Json ToJson(const client::SaveReport& report) {
  return {{"written_bytes", report.written_bytes},
          {"encoded_bytes", report.encoded_bytes},
          {"new_blocks", report.new_blocks},
          {"shared_blocks", report.shared_blocks},
          {"gather_seconds", absl::ToDoubleSeconds(report.gather)},
          {"encode_seconds", absl::ToDoubleSeconds(report.encode)},
          {"commit_seconds", absl::ToDoubleSeconds(report.commit)},
          {"total_seconds", absl::ToDoubleSeconds(report.total)}};
}

Json ToJson(const client::TokenProbability& token) {
  return {{"id", token.id}, {"text", token.text}, {"logprob", token.logprob}};
}

Json ToJson(const client::ContinuationScore& score) {
  Json json = {{"total_logprob", score.total_logprob}};
  json["tokens"] = ToJsonArray(score.tokens);
  return json;
}

Json ToJson(const client::SamplingParameters& sampling) {
  Json json = Json::object();
  SetOptional(&json, "temperature", sampling.temperature);
  SetOptional(&json, "top_k", sampling.top_k);
  SetOptional(&json, "top_p", sampling.top_p);
  SetOptional(&json, "min_p", sampling.min_p);
  SetOptional(&json, "repetition_penalty", sampling.repetition_penalty);
  SetOptional(&json, "presence_penalty", sampling.presence_penalty);
  SetOptional(&json, "frequency_penalty", sampling.frequency_penalty);
  if (sampling.logit_bias) {
    json["logit_bias"] = Json::object();
    for (const auto& [id, bias] : *sampling.logit_bias) json["logit_bias"][absl::StrCat(id)] = bias;
  }
  SetOptional(&json, "seed", sampling.seed);
  return json;
}

Json ToJson(const client::Token& token) {
  Json json = {{"id", token.id}};
  SetOptional(&json, "logprob", token.logprob);
  if (!token.top.empty()) json["top"] = ToJsonArray(token.top);
  return json;
}

Json ToJson(const client::Proof& proof) {
  Json json = {{"tokens_reused", proof.tokens_reused},
               {"tokens_recomputed", proof.tokens_recomputed},
               {"bytes_read", proof.bytes_read},
               {"bytes_restored", proof.bytes_restored},
               {"codec", proof.codec},
               {"check",
                {{"outcome", OutcomeName(proof.check.outcome)},
                 {"logits_compared", proof.check.logits_compared},
                 {"max_abs_difference", proof.check.max_abs_difference},
                 {"kl_divergence", proof.check.kl_divergence}}},
               {"timing",
                {{"read_seconds", absl::ToDoubleSeconds(proof.timing.read)},
                 {"decode_seconds", absl::ToDoubleSeconds(proof.timing.decode)},
                 {"load_seconds", absl::ToDoubleSeconds(proof.timing.load)},
                 {"check_seconds", absl::ToDoubleSeconds(proof.timing.check)},
                 {"total_seconds", absl::ToDoubleSeconds(proof.timing.total)},
                 {"replay_seconds", absl::ToDoubleSeconds(proof.timing.replay)}}}};
  if (proof.encoding) json["encoding"] = ToJson(*proof.encoding);
  json["exact"] = proof.exact;
  json["layers_recomputed"] = proof.layers_recomputed;
  json["estimate_seconds"] = absl::ToDoubleSeconds(proof.estimate);
  return json;
}

Json ToJson(const client::Taps& taps) {
  return {{"layers", taps.spec.layers},       {"tokens", taps.spec.all_tokens ? "all" : "last"},
          {"first_token", taps.first_token},  {"token_count", taps.token_count},
          {"hidden_size", taps.hidden_size},  {"bytes", taps.bytes},
          {"stored_bytes", taps.stored_bytes}};
}

Json ToJson(const client::ActiveConstraint& constraint) {
  Json json = {{"token_count", constraint.token_count}};
  if (const auto* schema = std::get_if<client::JsonSchema>(&constraint.definition)) json["json_schema"] = schema->text;
  if (const auto* regex = std::get_if<client::Regex>(&constraint.definition)) json["regex"] = regex->text;
  if (const auto* choices = std::get_if<client::Choices>(&constraint.definition)) json["choices"] = choices->texts;
  if (const auto* lark = std::get_if<client::LarkGrammar>(&constraint.definition)) json["lark"] = lark->text;
  return json;
}

Json ToJson(const client::Session& session) {
  Json json = {{"name", session.name},
               {"model_fingerprint", session.model_fingerprint},
               {"token_count", session.token_count},
               {"node", session.node},
               {"node_token_count", session.node_token_count}};
  json["sampling"] = ToJson(session.sampling);
  SetTime(&json, "create_time", session.create_time);
  SetTime(&json, "expire_time", session.expire_time);
  json["pages"] = session.pages;
  json["parked"] = session.parked;
  if (session.taps) json["taps"] = ToJson(*session.taps);
  if (session.constraint) json["constraint"] = ToJson(*session.constraint);
  if (!session.token_ids.empty()) json["token_ids"] = session.token_ids;
  if (!session.text.empty()) json["text"] = session.text;
  return json;
}

Json ToJson(const client::Node& node) {
  Json json = {{"name", node.name}, {"model_fingerprint", node.model_fingerprint}, {"token_count", node.token_count}};
  json["parents"] = ToJsonArray(node.parents);
  json["labels"] = Json::object();
  for (const auto& [key, value] : node.labels) json["labels"][key] = value;
  json["rewards"] = Json::object();
  for (const auto& [key, value] : node.rewards) json["rewards"][key] = value;
  json["note"] = node.note;
  json["etag"] = node.etag;
  SetTime(&json, "create_time", node.create_time);
  SetTime(&json, "update_time", node.update_time);
  json["sampling"] = ToJson(node.sampling);
  json["storage"] = ToJson(node.storage);
  if (!node.encodings.empty()) json["encodings"] = ToJsonArray(node.encodings);
  json["saved_dropped"] = node.saved_dropped;
  if (node.taps) json["taps"] = ToJson(*node.taps);
  if (node.constraint) json["constraint"] = ToJson(*node.constraint);
  json["lacks"] = node.lacks;
  if (!node.token_ids.empty()) json["token_ids"] = node.token_ids;
  if (!node.text.empty()) json["text"] = node.text;
  json["text_tail"] = node.text_tail;
  if (!node.blocks.empty()) json["blocks"] = ToJsonArray(node.blocks);
  return json;
}

Json ToJson(const client::SavedNode& saved) {
  Json json = Json::object();
  json["node"] = ToJson(saved.node);
  json["report"] = ToJson(saved.report);
  return json;
}

Json ToJson(const client::ScoreResponse& response) {
  Json json = Json::object();
  json["scores"] = ToJsonArray(response.scores);
  if (response.proof) json["proof"] = ToJson(*response.proof);
  return json;
}

Json ToJson(const client::BranchResponse& response) {
  Json json = Json::object();
  json["sessions"] = ToJsonArray(response.sessions);
  if (response.proof) json["proof"] = ToJson(*response.proof);
  json["branch_seconds"] = absl::ToDoubleSeconds(response.branch_time);
  return json;
}

Json ToJson(const client::GenerateEvent& event) {
  return std::visit([](const auto& one) { return EventToJson(one); }, event);
}

Json ErrorToJson(const absl::Status& status) {
  Json error = {{"code", absl::StatusCodeToString(status.code())}, {"message", std::string(status.message())}};
  error["reason"] = client::ErrorReason(status);
  error["metadata"] = Json::object();
  for (const auto& [key, value] : client::ErrorMetadata(status)) error["metadata"][key] = value;
  if (const auto delay = client::ErrorRetryDelay(status)) error["retry_after_seconds"] = absl::ToDoubleSeconds(*delay);
  Json json = Json::object();
  json["error"] = error;
  return json;
}

std::string Document(const Json& json) {
  return absl::StrCat(json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace), "\n");
}

std::string Line(const Json& json) {
  return absl::StrCat(json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace), "\n");
}

}  // namespace quicksave::cli
