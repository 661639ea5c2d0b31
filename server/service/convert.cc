#include "server/service/convert.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/archive/node_record.h"
#include "server/archive/tap_blocks.h"
#include "server/service/tap_request.h"

namespace quicksave::server {
namespace {

constexpr int kTailTokens = 24;
constexpr size_t kTailBytes = 80;

constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
constexpr int64_t kMinTimestampSeconds = -62'135'596'800;
constexpr int64_t kMaxTimestampSeconds = 253'402'300'799;
constexpr int32_t kNanosPerSecond = 1'000'000'000;

// Nanoseconds of a duration have the sign of its seconds.
bool IsWellFormed(const google::protobuf::Duration& duration) {
  const int64_t seconds = duration.seconds();
  const int32_t nanos = duration.nanos();
  return seconds >= -kMaxDurationSeconds && seconds <= kMaxDurationSeconds && nanos > -kNanosPerSecond &&
         nanos < kNanosPerSecond && !(seconds > 0 && nanos < 0) && !(seconds < 0 && nanos > 0);
}

// Nanoseconds of a timestamp count forward, also before 1970.
bool IsWellFormed(const google::protobuf::Timestamp& time) {
  return time.seconds() >= kMinTimestampSeconds && time.seconds() <= kMaxTimestampSeconds && time.nanos() >= 0 &&
         time.nanos() < kNanosPerSecond;
}

void ContentsToProto(const storage::NodeRecord& record, const Core& core, v1::Node* out) {
  std::vector<int32_t> tokens(record.contents().token_ids().begin(), record.contents().token_ids().end());
  out->mutable_token_ids()->Assign(tokens.begin(), tokens.end());
  // Only a model's own tokenizer makes text of its tokens.
  if (record.model_fingerprint() == core.identity.fingerprint) out->set_text(TextOf(core, tokens));
  for (const storage::BlockRef& block : record.contents().blocks()) {
    v1::Block* to = out->add_blocks();
    to->set_id(absl::BytesToHexString(block.id()));
    to->set_first_token(static_cast<int32_t>(block.first_token()));
    to->set_token_count(static_cast<int32_t>(block.token_count()));
    to->set_raw_bytes(static_cast<int64_t>(block.raw_bytes()));
    to->set_stored_bytes(static_cast<int64_t>(block.stored_bytes()));
  }
  const ConstraintState constraint = ConstraintOf(record, static_cast<int>(record.token_count()));
  if (constraint.constraint != nullptr) ToProto(constraint, out->mutable_constraint());
}

}  // namespace

void ToProto(absl::Duration duration, google::protobuf::Duration* out) {
  const int64_t seconds = absl::IDivDuration(duration, absl::Seconds(1), &duration);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

void ToProto(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);  // rounds down, so that nanoseconds count forward before 1970 too
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

void ToProto(const engine::SamplingParameters& sampling, v1::SamplingParameters* out) {
  out->set_temperature(sampling.temperature);
  out->set_top_k(sampling.top_k);
  out->set_top_p(sampling.top_p);
  out->set_min_p(sampling.min_p);
  out->set_repetition_penalty(sampling.repetition_penalty);
  out->set_seed(sampling.seed);
  out->set_presence_penalty(sampling.presence_penalty);
  out->set_frequency_penalty(sampling.frequency_penalty);
  out->mutable_logit_bias()->mutable_biases()->insert(sampling.logit_bias.begin(), sampling.logit_bias.end());
}

void ToProto(const SaveReport& report, v1::SaveReport* out) {
  out->set_written_bytes(report.written_bytes);
  out->set_encoded_bytes(report.encoded_bytes);
  out->set_new_blocks(report.new_blocks);
  out->set_shared_blocks(report.shared_blocks);
  ToProto(report.gather, out->mutable_gather());
  ToProto(report.encode, out->mutable_encode());
  ToProto(report.commit, out->mutable_commit());
  ToProto(report.total, out->mutable_total());
}

void ToProto(const ConstraintState& constraint, v1::ActiveConstraint* out) {
  using Kind = text::Constraint::Kind;
  const std::vector<std::string>& texts = constraint.constraint->texts;
  v1::Constraint* definition = out->mutable_definition();
  switch (constraint.constraint->kind) {
    case Kind::kJsonSchema:
      definition->set_json_schema(absl::StrJoin(texts, ""));
      break;
    case Kind::kRegex:
      definition->set_regex(absl::StrJoin(texts, ""));
      break;
    case Kind::kChoices:
      definition->mutable_choice()->mutable_texts()->Assign(texts.begin(), texts.end());
      break;
    case Kind::kLark:
      definition->set_lark(absl::StrJoin(texts, ""));
      break;
  }
  out->set_token_count(constraint.tokens);
}

void ToProto(const SessionInfo& info, const Core& core, v1::Session* out) {
  out->set_name(absl::StrCat("sessions/", info.id));
  out->set_model_fingerprint(core.identity.fingerprint);
  out->set_token_count(info.token_count);
  out->set_pages(info.pages);
  out->set_parked(info.parked);
  if (!info.node_id.empty()) {
    out->set_node(absl::StrCat("nodes/", info.node_id));
    out->set_node_token_count(info.node_tokens);
  }
  ToProto(info.sampling, out->mutable_sampling());
  TapsToProto(info.taps, out);
  ToProto(info.create_time, out->mutable_create_time());
  ToProto(info.expire_time, out->mutable_expire_time());
}

void ToProto(const storage::v1::Fidelity& fidelity, v1::NodeView view, v1::Fidelity* out) {
  out->set_probe_tokens(static_cast<int32_t>(fidelity.probe_tokens()));
  out->set_mean_kl(fidelity.mean_kl());
  out->set_max_kl(fidelity.max_kl());
  out->set_top1_agreement(fidelity.top1_agreement());
  out->set_next_token_kl(fidelity.next_token_kl());
  ToProto(absl::Microseconds(fidelity.cost_us()), out->mutable_cost());
  if (view != v1::NODE_VIEW_FULL) return;
  *out->mutable_key_relative_mse() = fidelity.key_relative_mse();
  *out->mutable_value_relative_mse() = fidelity.value_relative_mse();
  *out->mutable_key_cosine() = fidelity.key_cosine();
  *out->mutable_value_cosine() = fidelity.value_cosine();
}

namespace {

// What an encoding and its summary say alike.
template <typename Message>
void SizesToProto(const Message& from, v1::Encoding* out) {
  out->set_codec(from.codec());
  out->set_profile(from.profile_id());
  out->set_split(static_cast<int32_t>(from.split()));
  out->set_step(from.step());
  out->set_raw_bytes(static_cast<int64_t>(from.raw_bytes()));
  out->set_stored_bytes(static_cast<int64_t>(from.stored_bytes()));
  out->set_residual_bytes(static_cast<int64_t>(from.residual_bytes()));
  if (from.stored_bytes() > 0) {
    out->set_ratio(static_cast<double>(from.raw_bytes()) / static_cast<double>(from.stored_bytes()));
  }
}

}  // namespace

void ToProto(const storage::v1::Encoding& encoding, v1::NodeView view, v1::Encoding* out) {
  SizesToProto(encoding, out);
  out->set_has_residual(encoding.residuals_size() > 0);
  if (encoding.has_fidelity()) ToProto(encoding.fidelity(), view, out->mutable_fidelity());
}

void ToProto(const storage::v1::EncodingSummary& summary, v1::Encoding* out) {
  SizesToProto(summary, out);
  out->set_has_residual(summary.has_residual());
  if (!summary.has_mean_kl()) return;
  out->mutable_fidelity()->set_mean_kl(summary.mean_kl());
  out->mutable_fidelity()->set_max_kl(summary.max_kl());
  out->mutable_fidelity()->set_top1_agreement(summary.top1_agreement());
}

v1::EdgeType ToProto(storage::EdgeType type) {
  switch (type) {
    case storage::v1::EDGE_TYPE_CONTINUATION:
      return v1::EDGE_TYPE_CONTINUATION;
    case storage::v1::EDGE_TYPE_INTERVENTION:
      return v1::EDGE_TYPE_INTERVENTION;
    case storage::v1::EDGE_TYPE_COUNTERFACTUAL:
      return v1::EDGE_TYPE_COUNTERFACTUAL;
    case storage::v1::EDGE_TYPE_MERGE:
      return v1::EDGE_TYPE_MERGE;
    default:
      return v1::EDGE_TYPE_UNSPECIFIED;
  }
}

void ToProto(const storage::NodeRecord& record, const Core& core, v1::NodeView view, v1::Node* out) {
  out->set_name(absl::StrCat("nodes/", record.node_id()));
  out->set_model_fingerprint(record.model_fingerprint());
  out->set_token_count(static_cast<int32_t>(record.token_count()));
  for (const storage::ParentEdge& parent : record.parents()) {
    v1::Edge* edge = out->add_parents();
    edge->set_parent(absl::StrCat("nodes/", parent.node_id()));
    edge->set_type(ToProto(parent.type()));
    edge->set_at_token(static_cast<int32_t>(parent.at_token()));
  }
  *out->mutable_labels() = record.annotations().labels();
  *out->mutable_rewards() = record.annotations().rewards();
  out->set_note(record.annotations().note());
  out->set_etag(storage::EtagOf(record));
  ToProto(absl::FromUnixMicros(record.create_time_us()), out->mutable_create_time());
  ToProto(absl::FromUnixMicros(record.update_time_us()), out->mutable_update_time());
  v1::Storage* storage = out->mutable_storage();
  if (!record.no_saved_blocks()) storage->set_codec(record.codec());
  storage->set_raw_bytes(static_cast<int64_t>(record.raw_bytes()));
  storage->set_stored_bytes(static_cast<int64_t>(record.stored_bytes()));
  storage->set_added_bytes(static_cast<int64_t>(record.new_stored_bytes()));
  if (record.stored_bytes() > 0) {
    storage->set_ratio(static_cast<double>(record.raw_bytes()) / static_cast<double>(record.stored_bytes()));
  }
  storage->set_blocks(static_cast<int32_t>(record.block_count()));
  for (const storage::v1::StateRef& state : record.state()) {
    if (state.name() == "logits") storage->set_logits_bytes(static_cast<int64_t>(state.size_bytes()));
  }
  TapsToProto(TapExtentOf(record), out);
  if (record.has_taps()) out->mutable_taps()->set_stored_bytes(static_cast<int64_t>(record.taps().stored_bytes()));
  *out->mutable_lacks() = record.lacks();
  out->set_text_tail(record.text_tail());
  ToProto(SamplingOf(record), out->mutable_sampling());
  out->set_saved_dropped(record.no_saved_blocks());
  out->set_lossy_tokens(static_cast<int32_t>(record.lossy_tokens()));
  const bool full = view == v1::NODE_VIEW_FULL && record.has_contents();
  if (full) {
    for (const storage::v1::Encoding& encoding : record.contents().encodings()) {
      ToProto(encoding, view, out->add_encodings());
    }
  } else {
    for (const storage::v1::EncodingSummary& summary : record.encodings()) ToProto(summary, out->add_encodings());
  }
  if (full) ContentsToProto(record, core, out);
}

absl::Status CheckBudget(const v1::FidelityBudget& budget) {
  // Written so that a NaN fails.
  if (budget.has_max_kl() && !(budget.max_kl() >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat("budget.max_kl is ", budget.max_kl(), "; it must be 0 or more"));
  }
  if (budget.has_min_top1() && !(budget.min_top1() >= 0 && budget.min_top1() <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("budget.min_top1 is ", budget.min_top1(), "; it must be 0 to 1"));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> FromProto(const google::protobuf::Duration& duration) {
  if (!IsWellFormed(duration)) return absl::InvalidArgumentError("not a valid duration");
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::StatusOr<absl::Time> FromProto(const google::protobuf::Timestamp& time) {
  if (!IsWellFormed(time)) return absl::InvalidArgumentError("not a valid time");
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

absl::StatusOr<engine::SamplingParameters> FromProto(const v1::SamplingParameters& sampling,
                                                     engine::SamplingParameters base, int vocab_size) {
  if (sampling.has_temperature()) base.temperature = sampling.temperature();
  if (sampling.has_top_k()) base.top_k = sampling.top_k();
  if (sampling.has_top_p()) base.top_p = sampling.top_p();
  if (sampling.has_min_p()) base.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) base.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_seed()) base.seed = sampling.seed();
  if (sampling.has_presence_penalty()) base.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) base.frequency_penalty = sampling.frequency_penalty();
  if (sampling.has_logit_bias()) {
    const auto& biases = sampling.logit_bias().biases();
    base.logit_bias = {biases.begin(), biases.end()};
  }
  if (absl::Status status = engine::Validate(base, vocab_size); !status.ok()) return status;
  return base;
}

std::shared_ptr<const text::Constraint> FromProto(const v1::Constraint& constraint) {
  using Kind = text::Constraint::Kind;
  const auto make = [](Kind kind, std::vector<std::string> texts) {
    return std::make_shared<const text::Constraint>(text::Constraint{kind, std::move(texts)});
  };
  switch (constraint.kind_case()) {
    case v1::Constraint::kJsonSchema:
      return make(Kind::kJsonSchema, {constraint.json_schema()});
    case v1::Constraint::kRegex:
      return make(Kind::kRegex, {constraint.regex()});
    case v1::Constraint::kChoice:
      return make(Kind::kChoices, {constraint.choice().texts().begin(), constraint.choice().texts().end()});
    case v1::Constraint::kLark:
      return make(Kind::kLark, {constraint.lark()});
    case v1::Constraint::KIND_NOT_SET:
      break;
  }
  return nullptr;
}

absl::StatusOr<std::string> ParseName(const std::string& name, const char* collection) {
  const std::string prefix = absl::StrCat(collection, "/");
  const std::string id = absl::StartsWith(name, prefix) ? name.substr(prefix.size()) : "";
  const bool valid = !id.empty() && id.size() <= 63 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (valid) return id;
  return absl::InvalidArgumentError(absl::StrCat("'", absl::CEscape(name.substr(0, 80)),
                                                 "' is not a resource name of the form ", collection,
                                                 "/ID, with an ID of at most 63 of [a-z0-9-]"));
}

std::string TextOf(const Core& core, absl::Span<const int32_t> tokens) {
  return core.tokenizer->Decode(tokens, /*skip_special=*/false).value_or("");
}

std::string TextTail(const Core& core, absl::Span<const int32_t> tokens) {
  const size_t first = tokens.size() > kTailTokens ? tokens.size() - kTailTokens : 0;
  std::string text = core.tokenizer->Decode(tokens.subspan(first), /*skip_special=*/true).value_or("");
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  if (text.size() > kTailBytes) {
    size_t begin = text.size() - kTailBytes;
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
    text.erase(0, begin);
  }
  return text;
}

}  // namespace quicksave::server
