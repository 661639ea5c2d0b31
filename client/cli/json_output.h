// The tool's JSON: names as in the proto files, durations in seconds (`read_seconds`), times as RFC 3339 text, unset
// values left out. Keys keep the order of the proto files.

#ifndef QUICKSAVE_CLIENT_CLI_JSON_OUTPUT_H_
#define QUICKSAVE_CLIENT_CLI_JSON_OUTPUT_H_

#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "quicksave/client.h"

namespace quicksave::cli {

using Json = nlohmann::ordered_json;

// Names of enumeration values in lower case, for example `counterfactual`; `unspecified` for what is not known.
std::string EdgeTypeName(client::EdgeType type);
std::string OutcomeName(client::CheckOutcome outcome);
std::string ReasonName(client::FinishReason reason);
std::string HealthName(client::Health health);

Json ToJson(const client::SamplingParameters& sampling);
Json ToJson(const client::TokenProbability& token);
Json ToJson(const client::Token& token);
Json ToJson(const client::Fidelity& fidelity);
Json ToJson(const client::Encoding& encoding);
Json ToJson(const client::Proof& proof);
Json ToJson(const client::Taps& taps);
Json ToJson(const client::Session& session);
Json ToJson(const client::Edge& edge);
Json ToJson(const client::Storage& storage);
Json ToJson(const client::Block& block);
Json ToJson(const client::Node& node);
Json ToJson(const client::SaveReport& report);
Json ToJson(const client::SavedNode& saved);
Json ToJson(const client::ServerStatus& status);
Json ToJson(const client::ContinuationScore& score);
Json ToJson(const client::ScoreResponse& response);
Json ToJson(const client::EncodingTrial& trial);
Json ToJson(const client::EncodeNodeResponse& response);
Json ToJson(const client::DialPoint& point);
Json ToJson(const client::Profile& profile);
Json ToJson(const client::BranchResponse& response);
// One object with its kind in `event`: `started`, `delta`, `saved`, `finished`, or `unknown`.
Json ToJson(const client::GenerateEvent& event);
// {"error": {"code", "message", "reason", "metadata", "retry_after_seconds"}}.
Json ErrorToJson(const absl::Status& status);

template <typename Values>
Json ToJsonArray(const Values& values) {
  Json array = Json::array();
  for (const auto& value : values) array.push_back(ToJson(value));
  return array;
}

// Text of a document over several lines, or of one line; invalid UTF-8 is replaced. Both end with a line end.
std::string Document(const Json& json);
std::string Line(const Json& json);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_JSON_OUTPUT_H_
