// JSON of encodings and profiles.

#include "client/cli/json_output.h"

namespace quicksave::cli {

Json ToJson(const client::Fidelity& fidelity) {
  Json json = {{"mean_kl", fidelity.mean_kl}, {"max_kl", fidelity.max_kl}, {"top1_agreement", fidelity.top1_agreement}};
  // The rest is in full answers only.
  if (fidelity.probe_tokens == 0) return json;
  json["next_token_kl"] = fidelity.next_token_kl;
  json["probe_tokens"] = fidelity.probe_tokens;
  json["key_relative_mse"] = fidelity.key_relative_mse;
  json["value_relative_mse"] = fidelity.value_relative_mse;
  json["key_cosine"] = fidelity.key_cosine;
  json["value_cosine"] = fidelity.value_cosine;
  json["cost_seconds"] = absl::ToDoubleSeconds(fidelity.cost);
  return json;
}

Json ToJson(const client::Encoding& encoding) {
  Json json = {{"codec", encoding.codec},
               {"profile", encoding.profile},
               {"split", encoding.split},
               {"step", encoding.step},
               {"has_residual", encoding.has_residual},
               {"raw_bytes", encoding.raw_bytes},
               {"stored_bytes", encoding.stored_bytes},
               {"residual_bytes", encoding.residual_bytes},
               {"ratio", encoding.ratio}};
  if (encoding.fidelity) json["fidelity"] = ToJson(*encoding.fidelity);
  return json;
}

Json ToJson(const client::EncodingTrial& trial) {
  Json json = Json::object();
  json["encoding"] = ToJson(trial.encoding);
  json["within_budget"] = trial.within_budget;
  json["encode_seconds"] = absl::ToDoubleSeconds(trial.encode);
  return json;
}

Json ToJson(const client::EncodeNodeResponse& response) {
  Json json = Json::object();
  json["node"] = ToJson(response.node);
  if (response.encoding) json["encoding"] = ToJson(*response.encoding);
  json["trials"] = ToJsonArray(response.trials);
  json["total_seconds"] = absl::ToDoubleSeconds(response.total);
  return json;
}

Json ToJson(const client::DialPoint& point) {
  return {{"name", point.name}, {"step", point.step}, {"ratio", point.ratio}, {"mean_kl", point.mean_kl}};
}

Json ToJson(const client::Profile& profile) {
  Json json = {
      {"id", profile.id}, {"codec", profile.codec}, {"split", profile.split}, {"size_bytes", profile.size_bytes}};
  json["points"] = ToJsonArray(profile.points);
  return json;
}

}  // namespace quicksave::cli
