// Translation of the requests and answers of SnapshotService.

#include "client/src/convert.h"

namespace quicksave::client {
namespace {

// Fills `start`, `at_token` and `skip_check` of a request that may start from a session or a node.
template <typename StartVariant, typename Request>
void StartToProto(const StartVariant& from, Request* to) {
  if (const auto* session = std::get_if<FromSession>(&from)) {
    to->set_session(session->name);
  } else if (const auto* node = std::get_if<FromNode>(&from)) {
    to->set_node(node->name);
    if (node->at_token) to->set_at_token(*node->at_token);
    to->set_skip_check(node->skip_check);
  }
}

template <typename Request>
void LeaseToProto(const std::optional<absl::Duration>& from, Request* to) {
  if (from) ToProto(*from, to->mutable_lease());
}

template <typename Request>
void SamplingToProto(const SamplingParameters& from, Request* to) {
  if (from != SamplingParameters{}) ToProto(from, to->mutable_sampling());
}

void TokensToProto(const std::vector<int32_t>& from, v1::TokenIds* to) {
  to->mutable_ids()->Assign(from.begin(), from.end());
}

void InputToProto(const Input& from, v1::GenerateRequest* to) {
  if (const auto* prompt = std::get_if<std::string>(&from)) {
    to->set_prompt(*prompt);
  } else if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&from)) {
    to->mutable_messages();
    for (const ChatMessage& message : *messages) {
      v1::ChatMessage* added = to->mutable_messages()->add_messages();
      added->set_role(message.role);
      added->set_content(message.content);
    }
  } else if (const auto* ids = std::get_if<std::vector<int32_t>>(&from)) {
    TokensToProto(*ids, to->mutable_token_ids());
  }
}

void ConstraintToProto(const Constraint& from, v1::Constraint* to) {
  if (const auto* schema = std::get_if<JsonSchema>(&from)) {
    to->set_json_schema(schema->text);
  } else if (const auto* regex = std::get_if<Regex>(&from)) {
    to->set_regex(regex->text);
  } else if (const auto* choices = std::get_if<Choices>(&from)) {
    to->mutable_choice()->mutable_texts()->Assign(choices->texts.begin(), choices->texts.end());
  } else if (const auto* grammar = std::get_if<LarkGrammar>(&from)) {
    to->set_lark(grammar->text);
  }
}

GenerateStarted StartedFromProto(const v1::GenerateStarted& from) {
  GenerateStarted to{.session = from.session(),
                     .reused_tokens = from.reused_tokens(),
                     .input_tokens = from.input_tokens(),
                     .shared_tokens = from.shared_tokens(),
                     .restored_tokens = from.restored_tokens(),
                     .restored_node = from.restored_node()};
  if (from.has_proof()) to.proof = FromProto(from.proof());
  return to;
}

GenerateDelta DeltaFromProto(const v1::GenerateDelta& from) {
  GenerateDelta to{.text = from.text()};
  for (const v1::Token& token : from.tokens()) to.tokens.push_back(FromProto(token));
  return to;
}

FinishReason ReasonFromProto(v1::GenerateFinished::Reason from) {
  const bool known =
      from >= v1::GenerateFinished::REASON_UNSPECIFIED && from <= v1::GenerateFinished::REASON_CONSTRAINT_COMPLETE;
  return known ? static_cast<FinishReason>(from) : FinishReason::kUnspecified;
}

}  // namespace

GenerateEvent FromProto(const v1::GenerateResponse& from) {
  switch (from.event_case()) {
    case v1::GenerateResponse::kStarted:
      return StartedFromProto(from.started());
    case v1::GenerateResponse::kDelta:
      return DeltaFromProto(from.delta());
    case v1::GenerateResponse::kSaved:
      return SavedNode{.node = FromProto(from.saved().node()), .report = FromProto(from.saved().report())};
    case v1::GenerateResponse::kFinished:
      return FromProto(from.finished());
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;
  }
  return std::monostate{};
}

GenerateFinished FromProto(const v1::GenerateFinished& from) {
  return {.reason = ReasonFromProto(from.reason()),
          .stop = from.stop(),
          .generated_tokens = from.generated_tokens(),
          .token_count = from.token_count(),
          .pending_text = from.pending_text(),
          .session = from.session(),
          .prefill_time = FromProto(from.prefill_time()),
          .decode_time = FromProto(from.decode_time()),
          .replayed = from.replayed()};
}

SavedNode FromProto(const v1::SnapshotResponse& from) {
  SavedNode to{.node = FromProto(from.node()), .report = FromProto(from.report())};
  if (from.has_encoding()) to.encoding = FromProto(from.encoding());
  to.encoding_error = from.encoding_error();
  return to;
}

RestoreResponse FromProto(const v1::RestoreResponse& from) {
  return {.session = FromProto(from.session()), .proof = FromProto(from.proof())};
}

BranchResponse FromProto(const v1::BranchResponse& from) {
  BranchResponse to;
  for (const v1::Session& session : from.sessions()) to.sessions.push_back(FromProto(session));
  if (from.has_proof()) to.proof = FromProto(from.proof());
  to.branch_time = FromProto(from.branch_time());
  return to;
}

ScoreResponse FromProto(const v1::ScoreResponse& from) {
  ScoreResponse to;
  for (const v1::ContinuationScore& score : from.scores()) {
    ContinuationScore& added = to.scores.emplace_back();
    for (const v1::Token& token : score.tokens()) added.tokens.push_back(FromProto(token));
    added.total_logprob = score.total_logprob();
  }
  if (from.has_proof()) to.proof = FromProto(from.proof());
  return to;
}

ListSessionsResponse FromProto(const v1::ListSessionsResponse& from) {
  ListSessionsResponse to;
  for (const v1::Session& session : from.sessions()) to.sessions.push_back(FromProto(session));
  to.next_page_token = from.next_page_token();
  return to;
}

v1::GenerateRequest ToProto(const GenerateRequest& from) {
  v1::GenerateRequest to;
  StartToProto(from.start, &to);
  InputToProto(from.input, &to);
  SamplingToProto(from.sampling, &to);
  if (from.stop != StopConditions{}) ToProto(from.stop, to.mutable_stop());
  if (from.constraint) ConstraintToProto(*from.constraint, to.mutable_constraint());
  if (from.taps) {
    to.mutable_taps()->mutable_layers()->Assign(from.taps->layers.begin(), from.taps->layers.end());
    to.mutable_taps()->set_tokens(from.taps->all_tokens ? v1::TapSpec::TOKENS_ALL : v1::TapSpec::TOKENS_LAST);
  }
  if (from.top_logprobs) to.set_top_logprobs(*from.top_logprobs);
  if (from.save) ToProto(*from.save, to.mutable_save());
  if (from.save_every_tokens) to.set_save_every_tokens(*from.save_every_tokens);
  to.set_keep_session(from.keep_session);
  LeaseToProto(from.lease, &to);
  to.set_request_id(from.request_id);
  return to;
}

v1::SnapshotRequest ToProto(const SnapshotRequest& from) {
  v1::SnapshotRequest to;
  to.set_session(from.session);
  ToProto(from.save, to.mutable_save());
  if (from.encoding) ToProto(*from.encoding, to.mutable_encoding());
  if (from.budget != FidelityBudget()) ToProto(from.budget, to.mutable_budget());
  to.set_drop_saved(from.drop_saved);
  to.set_request_id(from.request_id);
  return to;
}

v1::RestoreRequest ToProto(const RestoreRequest& from) {
  v1::RestoreRequest to;
  to.set_node(from.node);
  if (from.at_token) to.set_at_token(*from.at_token);
  SamplingToProto(from.sampling, &to);
  LeaseToProto(from.lease, &to);
  to.set_skip_check(from.skip_check);
  to.set_request_id(from.request_id);
  to.set_exact_only(from.exact_only);
  if (from.budget != FidelityBudget()) ToProto(from.budget, to.mutable_budget());
  return to;
}

v1::BranchRequest ToProto(const BranchRequest& from) {
  v1::BranchRequest to;
  StartToProto(from.start, &to);
  if (from.count) to.set_count(*from.count);
  to.mutable_seeds()->Assign(from.seeds.begin(), from.seeds.end());
  SamplingToProto(from.sampling, &to);
  LeaseToProto(from.lease, &to);
  to.set_request_id(from.request_id);
  return to;
}

v1::ScoreRequest ToProto(const ScoreRequest& from) {
  v1::ScoreRequest to;
  StartToProto(from.start, &to);
  for (const Continuation& continuation : from.continuations) {
    v1::Continuation* added = to.add_continuations();
    if (const auto* text = std::get_if<std::string>(&continuation)) {
      added->set_text(*text);
    } else {
      TokensToProto(std::get<std::vector<int32_t>>(continuation), added->mutable_token_ids());
    }
  }
  to.set_top_k(from.top_k);
  return to;
}

v1::GetSessionRequest ToProto(const GetSessionRequest& from) {
  v1::GetSessionRequest to;
  to.set_name(from.name);
  to.set_view(from.view == View::kFull ? v1::SESSION_VIEW_FULL : v1::SESSION_VIEW_BASIC);
  return to;
}

v1::ListSessionsRequest ToProto(const ListSessionsRequest& from) {
  v1::ListSessionsRequest to;
  to.set_page_size(from.page_size);
  to.set_page_token(from.page_token);
  return to;
}

v1::ReadTapsRequest ToProto(const ReadTapsRequest& from) {
  v1::ReadTapsRequest to;
  if (const auto* session = std::get_if<FromSession>(&from.source)) to.set_session(session->name);
  if (const auto* node = std::get_if<FromNode>(&from.source)) to.set_node(node->name);
  to.mutable_layers()->Assign(from.layers.begin(), from.layers.end());
  if (from.first_token) to.set_first_token(*from.first_token);
  if (from.token_count) to.set_token_count(*from.token_count);
  return to;
}

v1::DeleteSessionRequest ToProto(const DeleteSessionRequest& from) {
  v1::DeleteSessionRequest to;
  to.set_name(from.name);
  return to;
}

}  // namespace quicksave::client
