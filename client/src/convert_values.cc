// Translation of the values that several calls share: times, sampling, tokens, proofs, sessions and nodes.

#include <algorithm>

#include "client/src/convert.h"

namespace quicksave::client {
namespace {

// The range of google.protobuf.Duration and the years 1 to 9999 of google.protobuf.Timestamp.
constexpr absl::Duration kLongestDuration = absl::Seconds(315'576'000'000);
constexpr absl::Time kFirstTime = absl::FromUnixSeconds(-62'135'596'800);
constexpr absl::Time kLastTime = absl::FromUnixSeconds(253'402'300'799);

CheckOutcome OutcomeFromProto(v1::DistributionCheck::Outcome from) {
  switch (from) {
    case v1::DistributionCheck::OUTCOME_IDENTICAL:
      return CheckOutcome::kIdentical;
    case v1::DistributionCheck::OUTCOME_SKIPPED:
      return CheckOutcome::kSkipped;
    case v1::DistributionCheck::OUTCOME_KV_IDENTICAL:
      return CheckOutcome::kKvIdentical;
    case v1::DistributionCheck::OUTCOME_AS_MEASURED:
      return CheckOutcome::kAsMeasured;
    case v1::DistributionCheck::OUTCOME_VALUES_AS_MEASURED:
      return CheckOutcome::kValuesAsMeasured;
    default:
      return CheckOutcome::kUnspecified;
  }
}

RestoreTiming TimingFromProto(const v1::RestoreTiming& from) {
  return {.read = FromProto(from.read()),
          .decode = FromProto(from.decode()),
          .load = FromProto(from.load()),
          .check = FromProto(from.check()),
          .total = FromProto(from.total()),
          .replay = FromProto(from.replay())};
}

Edge EdgeFromProto(const v1::Edge& from) {
  const bool known = from.type() >= v1::EDGE_TYPE_UNSPECIFIED && from.type() <= v1::EDGE_TYPE_MERGE;
  return {.parent = from.parent(),
          .type = known ? static_cast<EdgeType>(from.type()) : EdgeType::kUnspecified,
          .at_token = from.at_token()};
}

Storage StorageFromProto(const v1::Storage& from) {
  return {.codec = from.codec(),
          .raw_bytes = from.raw_bytes(),
          .stored_bytes = from.stored_bytes(),
          .added_bytes = from.added_bytes(),
          .ratio = from.ratio(),
          .blocks = from.blocks(),
          .logits_bytes = from.logits_bytes()};
}

absl::Time TimeOrUnknown(bool present, const google::protobuf::Timestamp& from) {
  return present ? FromProto(from) : absl::InfinitePast();
}

// Those of a session or a node.
template <typename Resource>
std::optional<Taps> TapsFromProto(const Resource& from) {
  if (!from.has_taps()) return std::nullopt;
  const v1::Taps& taps = from.taps();
  return Taps{.spec = {.layers = {taps.spec().layers().begin(), taps.spec().layers().end()},
                       .all_tokens = taps.spec().tokens() == v1::TapSpec::TOKENS_ALL},
              .first_token = taps.first_token(),
              .token_count = taps.token_count(),
              .hidden_size = taps.hidden_size(),
              .bytes = taps.bytes(),
              .stored_bytes = taps.stored_bytes()};
}

Constraint DefinitionFromProto(const v1::Constraint& from) {
  switch (from.kind_case()) {
    case v1::Constraint::kJsonSchema:
      return JsonSchema{from.json_schema()};
    case v1::Constraint::kRegex:
      return Regex{from.regex()};
    case v1::Constraint::kChoice:
      return Choices{{from.choice().texts().begin(), from.choice().texts().end()}};
    case v1::Constraint::kLark:
      return LarkGrammar{from.lark()};
    case v1::Constraint::KIND_NOT_SET:
      break;
  }
  return {};
}

// That of a session or a node.
template <typename Resource>
std::optional<ActiveConstraint> ConstraintFromProto(const Resource& from) {
  if (!from.has_constraint()) return std::nullopt;
  return ActiveConstraint{.definition = DefinitionFromProto(from.constraint().definition()),
                          .token_count = from.constraint().token_count()};
}

}  // namespace

absl::Duration FromProto(const google::protobuf::Duration& from) {
  return absl::Seconds(from.seconds()) + absl::Nanoseconds(from.nanos());
}

absl::Time FromProto(const google::protobuf::Timestamp& from) {
  return absl::FromUnixSeconds(from.seconds()) + absl::Nanoseconds(from.nanos());
}

void ToProto(absl::Duration from, google::protobuf::Duration* to) {
  const absl::Duration clamped = std::clamp(from, -kLongestDuration, kLongestDuration);
  absl::Duration rest;
  to->set_seconds(absl::IDivDuration(clamped, absl::Seconds(1), &rest));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

void ToProto(absl::Time from, google::protobuf::Timestamp* to) {
  const absl::Time clamped = std::clamp(from, kFirstTime, kLastTime);
  const int64_t seconds = absl::ToUnixSeconds(clamped);  // Rounds down, as the wire wants it.
  to->set_seconds(seconds);
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(clamped - absl::FromUnixSeconds(seconds))));
}

SamplingParameters FromProto(const v1::SamplingParameters& from) {
  SamplingParameters to;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_seed()) to.seed = from.seed();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  if (from.has_logit_bias()) {
    to.logit_bias.emplace(from.logit_bias().biases().begin(), from.logit_bias().biases().end());
  }
  return to;
}

void ToProto(const SamplingParameters& from, v1::SamplingParameters* to) {
  if (from.temperature) to->set_temperature(*from.temperature);
  if (from.top_k) to->set_top_k(*from.top_k);
  if (from.top_p) to->set_top_p(*from.top_p);
  if (from.min_p) to->set_min_p(*from.min_p);
  if (from.repetition_penalty) to->set_repetition_penalty(*from.repetition_penalty);
  if (from.seed) to->set_seed(*from.seed);
  if (from.presence_penalty) to->set_presence_penalty(*from.presence_penalty);
  if (from.frequency_penalty) to->set_frequency_penalty(*from.frequency_penalty);
  if (from.logit_bias) {
    to->mutable_logit_bias()->mutable_biases()->insert(from.logit_bias->begin(), from.logit_bias->end());
  }
}

void ToProto(const StopConditions& from, v1::StopConditions* to) {
  if (from.max_tokens) to->set_max_tokens(*from.max_tokens);
  to->mutable_strings()->Assign(from.strings.begin(), from.strings.end());
  to->mutable_token_ids()->Assign(from.token_ids.begin(), from.token_ids.end());
  to->set_ignore_eos(from.ignore_eos);
}

void ToProto(const SaveOptions& from, v1::SaveOptions* to) {
  to->mutable_labels()->insert(from.labels.begin(), from.labels.end());
  to->set_note(from.note);
  to->set_edge_type(static_cast<v1::EdgeType>(from.edge_type));
}

Token FromProto(const v1::Token& from) {
  Token to;
  to.id = from.id();
  if (from.has_logprob()) to.logprob = from.logprob();
  to.top.reserve(from.top_size());
  for (const v1::TokenProbability& token : from.top()) {
    to.top.push_back({.id = token.id(), .text = token.text(), .logprob = token.logprob()});
  }
  return to;
}

Proof FromProto(const v1::Proof& from) {
  const v1::DistributionCheck& check = from.check();
  Proof to{.tokens_reused = from.tokens_reused(),
           .tokens_recomputed = from.tokens_recomputed(),
           .bytes_read = from.bytes_read(),
           .bytes_restored = from.bytes_restored(),
           .codec = from.codec(),
           .check = {.outcome = OutcomeFromProto(check.outcome()),
                     .logits_compared = check.logits_compared(),
                     .max_abs_difference = check.max_abs_difference(),
                     .kl_divergence = check.kl_divergence()},
           .timing = TimingFromProto(from.timing()),
           .exact = from.exact(),
           .layers_recomputed = from.layers_recomputed(),
           .estimate = FromProto(from.estimate())};
  if (from.has_encoding()) to.encoding = FromProto(from.encoding());
  return to;
}

Session FromProto(const v1::Session& from) {
  return {.name = from.name(),
          .model_fingerprint = from.model_fingerprint(),
          .token_count = from.token_count(),
          .node = from.node(),
          .node_token_count = from.node_token_count(),
          .sampling = FromProto(from.sampling()),
          .create_time = TimeOrUnknown(from.has_create_time(), from.create_time()),
          .expire_time = TimeOrUnknown(from.has_expire_time(), from.expire_time()),
          .pages = from.pages(),
          .token_ids = {from.token_ids().begin(), from.token_ids().end()},
          .text = from.text(),
          .parked = from.parked(),
          .taps = TapsFromProto(from),
          .constraint = ConstraintFromProto(from)};
}

Node FromProto(const v1::Node& from) {
  Node to{.name = from.name(),
          .model_fingerprint = from.model_fingerprint(),
          .token_count = from.token_count(),
          .labels = {from.labels().begin(), from.labels().end()},
          .rewards = {from.rewards().begin(), from.rewards().end()},
          .note = from.note(),
          .etag = from.etag(),
          .create_time = TimeOrUnknown(from.has_create_time(), from.create_time()),
          .update_time = TimeOrUnknown(from.has_update_time(), from.update_time()),
          .sampling = FromProto(from.sampling()),
          .storage = StorageFromProto(from.storage()),
          .lacks = {from.lacks().begin(), from.lacks().end()},
          .token_ids = {from.token_ids().begin(), from.token_ids().end()},
          .text = from.text(),
          .text_tail = from.text_tail(),
          .taps = TapsFromProto(from),
          .saved_dropped = from.saved_dropped(),
          .lossy_tokens = from.lossy_tokens(),
          .constraint = ConstraintFromProto(from)};
  for (const v1::Encoding& encoding : from.encodings()) to.encodings.push_back(FromProto(encoding));
  for (const v1::Edge& edge : from.parents()) to.parents.push_back(EdgeFromProto(edge));
  for (const v1::Block& block : from.blocks()) {
    to.blocks.push_back({.id = block.id(),
                         .first_token = block.first_token(),
                         .token_count = block.token_count(),
                         .raw_bytes = block.raw_bytes(),
                         .stored_bytes = block.stored_bytes()});
  }
  return to;
}

SaveReport FromProto(const v1::SaveReport& from) {
  return {.written_bytes = from.written_bytes(),
          .encoded_bytes = from.encoded_bytes(),
          .new_blocks = from.new_blocks(),
          .shared_blocks = from.shared_blocks(),
          .gather = FromProto(from.gather()),
          .encode = FromProto(from.encode()),
          .commit = FromProto(from.commit()),
          .total = FromProto(from.total())};
}

}  // namespace quicksave::client
