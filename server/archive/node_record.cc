#include "server/archive/node_record.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/archive/block_coder.h"
#include "server/archive/block_plan.h"
#include "server/archive/tap_blocks.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

storage::EdgeType EdgeTypeOf(const SaveRequest& request) {
  if (request.edge_type.has_value()) return *request.edge_type;
  const bool whole = request.state.origin_tokens == request.state.origin->node_token_count;
  return whole ? storage::v1::EDGE_TYPE_CONTINUATION : storage::v1::EDGE_TYPE_COUNTERFACTUAL;
}

void SetSampler(const engine::SamplingParameters& from, storage::v1::SamplerState& sampler) {
  sampler.set_temperature(from.temperature);
  sampler.set_top_k(static_cast<uint32_t>(from.top_k));
  sampler.set_top_p(from.top_p);
  sampler.set_min_p(from.min_p);
  sampler.set_repetition_penalty(from.repetition_penalty);
  sampler.set_presence_penalty(from.presence_penalty);
  sampler.set_frequency_penalty(from.frequency_penalty);
  for (const auto& [id, bias] : from.logit_bias) (*sampler.mutable_logit_bias())[static_cast<uint32_t>(id)] = bias;
  sampler.set_seed(from.seed);
}

storage::v1::ConstraintState::Kind KindOf(text::Constraint::Kind kind) {
  switch (kind) {
    case text::Constraint::Kind::kJsonSchema:
      return storage::v1::ConstraintState::KIND_JSON_SCHEMA;
    case text::Constraint::Kind::kRegex:
      return storage::v1::ConstraintState::KIND_REGEX;
    case text::Constraint::Kind::kChoices:
      return storage::v1::ConstraintState::KIND_CHOICES;
    case text::Constraint::Kind::kLark:
      break;
  }
  return storage::v1::ConstraintState::KIND_LARK;
}

text::Constraint::Kind KindOf(storage::v1::ConstraintState::Kind kind) {
  switch (kind) {
    case storage::v1::ConstraintState::KIND_JSON_SCHEMA:
      return text::Constraint::Kind::kJsonSchema;
    case storage::v1::ConstraintState::KIND_REGEX:
      return text::Constraint::Kind::kRegex;
    case storage::v1::ConstraintState::KIND_CHOICES:
      return text::Constraint::Kind::kChoices;
    default:
      return text::Constraint::Kind::kLark;
  }
}

void SetConstraint(const ConstraintState& from, storage::v1::TextState& text) {
  if (from.constraint == nullptr) return;
  storage::v1::ConstraintState& constraint = *text.mutable_constraint();
  constraint.set_kind(KindOf(from.constraint->kind));
  constraint.mutable_texts()->Assign(from.constraint->texts.begin(), from.constraint->texts.end());
  constraint.set_token_count(static_cast<uint32_t>(from.tokens));
}

void SetText(const TextState& from, storage::v1::TextState& text) {
  text.set_detokenizer_prefix_offset(from.detokenizer.prefix_offset);
  text.set_detokenizer_read_offset(from.detokenizer.read_offset);
  text.set_detokenizer_emitted_bytes(from.detokenizer.emitted_bytes);
  text.set_held_back(from.held_text);
}

absl::Status Inconsistent(const storage::NodeRecord& record, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("nodes/", record.node_id(), ": its record is damaged: ", what));
}

// Residuals stand in the order of the blocks that they belong to. Either every latent has one or none has.
bool ResidualsFit(const storage::v1::Encoding& encoding) {
  if (encoding.residuals_size() == 0) return true;
  int next = 0;
  for (const storage::BlockRef& block : encoding.blocks()) {
    const bool here = next < encoding.residuals_size() && encoding.residuals(next).first_token() == block.first_token();
    if (!here) {
      const std::optional<LatentKey> key = ParseLatentKey(block.codec());
      // Latents of an ancestor, which are part of what was saved, have none.
      if (key && key->kind == LatentKey::Kind::kLatent && block.first_token() >= encoding.residuals(0).first_token()) {
        return false;
      }
      continue;
    }
    const storage::BlockRef& residual = encoding.residuals(next++);
    if (residual.id() != block.id() || residual.token_count() != block.token_count()) return false;
  }
  return next == encoding.residuals_size();
}

// Blocks follow each other from the first token to the last, and end at windows.
template <typename Refs>
absl::Status CheckTiles(const storage::NodeRecord& record, const Refs& blocks) {
  uint64_t next = 0;
  for (const storage::BlockRef& ref : blocks) {
    const uint64_t end = uint64_t{ref.first_token()} + ref.token_count();
    if (ref.first_token() != next || end <= next || next / kWindowTokens != (end - 1) / kWindowTokens) {
      return Inconsistent(record, absl::StrCat("a block of tokens ", ref.first_token(), " to ", end, " where token ",
                                               next, " comes next"));
    }
    next = end;
  }
  if (next != record.token_count()) {
    return Inconsistent(record, absl::StrCat("blocks hold ", next, " of ", record.token_count(), " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

storage::NodeRecord MakeRecord(const SaveRequest& request, const ModelIdentity& model) {
  const SessionState& state = request.state;
  storage::NodeRecord record;
  record.set_tenant(request.tenant);
  record.set_model_fingerprint(model.fingerprint);
  record.set_numerics_version(model.numerics);
  record.set_token_count(static_cast<uint32_t>(state.sequence.length()));
  record.set_lossy_tokens(static_cast<uint32_t>(state.sequence.lossy_tokens()));
  if (state.origin != nullptr) {
    storage::ParentEdge* parent = record.add_parents();
    parent->set_node_id(state.origin->node_id);
    parent->set_type(EdgeTypeOf(request));
    parent->set_at_token(static_cast<uint32_t>(state.origin_tokens));
  }
  record.mutable_annotations()->mutable_labels()->insert(request.labels.begin(), request.labels.end());
  record.mutable_annotations()->set_note(request.note);
  record.set_text_tail(request.text_tail);
  SetSampler(state.sampling, *record.mutable_sampler());
  SetTaps(state.taps.extent(), record);
  storage::NodeContents& contents = *record.mutable_contents();
  contents.mutable_token_ids()->Assign(state.sequence.tokens().begin(), state.sequence.tokens().end());
  SetText(state.text, *contents.mutable_text());
  SetConstraint(state.constraint, *contents.mutable_text());
  return record;
}

std::string LogitsToBytes(const engine::Logits& logits) {
  return std::string(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float));
}

std::shared_ptr<const engine::Logits> LogitsFromBytes(std::string_view bytes) {
  auto logits = std::make_shared<engine::Logits>(bytes.size() / sizeof(float));
  std::memcpy(logits->data(), bytes.data(), logits->size() * sizeof(float));
  return logits;
}

absl::Status CheckRestorable(const storage::NodeRecord& record, const ModelIdentity& model) {
  if (record.model_fingerprint() != model.fingerprint || record.numerics_version() != model.numerics) {
    return storage::WithReason(
        "MODEL_MISMATCH",
        absl::FailedPreconditionError(absl::StrCat(
            "nodes/", record.node_id(), " was saved by model ", record.model_fingerprint(), " with numerics ",
            record.numerics_version(), ", but this server runs model ", model.fingerprint, " with numerics ",
            model.numerics, "; start a server with the model, --weights and version that saved it")));
  }
  if (record.lacks_size() == 0) return absl::OkStatus();
  return storage::WithReason("NODE_INCOMPLETE", absl::FailedPreconditionError(absl::StrCat(
                                                    "nodes/", record.node_id(), " cannot be restored: it lacks ",
                                                    absl::StrJoin(record.lacks(), ", "))));
}

absl::Status CheckConsistent(const storage::NodeRecord& record) {
  const storage::NodeContents& contents = record.contents();
  const uint32_t count = record.token_count();
  if (count == 0 || static_cast<uint32_t>(contents.token_ids_size()) != count) {
    return Inconsistent(record, absl::StrCat(contents.token_ids_size(), " token ids for ", count, " tokens"));
  }
  if (record.lossy_tokens() > count) return Inconsistent(record, "it has more lossy tokens than tokens");
  if (record.no_saved_blocks() ? contents.encodings_size() == 0 || contents.blocks_size() != 0
                               : contents.blocks_size() == 0) {
    return Inconsistent(record, "it has no blocks");
  }
  if (!record.no_saved_blocks()) {
    if (absl::Status tiles = CheckTiles(record, contents.blocks()); !tiles.ok()) return tiles;
  }
  for (const storage::v1::Encoding& encoding : contents.encodings()) {
    if (absl::Status tiles = CheckTiles(record, encoding.blocks()); !tiles.ok()) return tiles;
    if (!ResidualsFit(encoding)) return Inconsistent(record, "an encoding's residuals are not those of its blocks");
  }
  if (absl::Status taps = CheckTaps(record); !taps.ok()) return Inconsistent(record, taps.message());
  const storage::v1::TextState& text = contents.text();
  if (text.detokenizer_prefix_offset() < 0 || text.detokenizer_emitted_bytes() < 0 ||
      text.detokenizer_read_offset() < text.detokenizer_prefix_offset() ||
      text.detokenizer_read_offset() > int64_t{count}) {
    return Inconsistent(record, "the detokenizer is not within the tokens");
  }
  if (!text.has_constraint()) return absl::OkStatus();
  const storage::v1::ConstraintState& constraint = text.constraint();
  const bool has_texts =
      constraint.kind() == storage::v1::ConstraintState::KIND_CHOICES || constraint.texts_size() == 1;
  if (constraint.kind() < storage::v1::ConstraintState::KIND_JSON_SCHEMA ||
      constraint.kind() > storage::v1::ConstraintState::KIND_LARK || !has_texts || constraint.token_count() > count) {
    return Inconsistent(record, "its constraint has another kind than its texts, or more tokens than the node");
  }
  return absl::OkStatus();
}

absl::Status CheckFitsModel(const storage::NodeRecord& record, const ModelIdentity& model,
                            const engine::KvShape& shape) {
  for (const uint32_t id : record.contents().token_ids()) {
    if (id >= static_cast<uint32_t>(model.vocab_size)) {
      return Inconsistent(record, absl::StrCat("token id ", id, " is not in the vocabulary of ", model.vocab_size));
    }
  }
  for (const auto& [id, bias] : record.sampler().logit_bias()) {
    if (id >= static_cast<uint32_t>(model.vocab_size)) {
      return Inconsistent(record, absl::StrCat("biased token id ", id, " is not in the vocabulary"));
    }
  }
  const engine::TapExtent taps = TapExtentOf(record);
  if (taps.on() && (taps.hidden_size != model.hidden_size || !engine::Validate(taps.spec, shape.layers).ok())) {
    return Inconsistent(record, "its hidden states are not the model's");
  }
  const uint64_t token_bytes = shape.page_bytes() / engine::cpu::kPageTokens;
  absl::Status fits;
  const auto check = [&](const storage::BlockRef& ref) {
    if (ref.raw_bytes() == ref.token_count() * token_bytes) return;
    fits.Update(Inconsistent(record, absl::StrCat("a block of ", ref.token_count(), " tokens with ", ref.raw_bytes(),
                                                  " bytes, the model has ", token_bytes, " bytes a token")));
  };
  for (const storage::BlockRef& ref : record.contents().blocks()) check(ref);
  for (const storage::v1::Encoding& encoding : record.contents().encodings()) {
    for (const storage::BlockRef& ref : encoding.blocks()) check(ref);
    for (const storage::BlockRef& ref : encoding.residuals()) check(ref);
  }
  return fits;
}

std::shared_ptr<const Origin> OriginOf(const storage::NodeRecord& record, const RestoreSource& source) {
  auto origin = std::make_shared<Origin>();
  origin->node_id = record.node_id();
  origin->node_token_count = static_cast<int>(record.token_count());
  // A latent with its residual has the same bits as the blocks as saved. Where these are gone, a descendant stores its
  // own.
  const auto& blocks = source.exact ? record.contents().blocks() : source.encoding->blocks();
  for (const storage::BlockRef& ref : blocks) {
    origin->blocks.push_back({.content_id = ref.id(),
                              .codec = ref.codec(),
                              .first_token = static_cast<int>(ref.first_token()),
                              .token_count = static_cast<int>(ref.token_count()),
                              .raw_bytes = static_cast<int64_t>(ref.raw_bytes()),
                              .stored_bytes = static_cast<int64_t>(ref.stored_bytes())});
  }
  return origin;
}

std::vector<int32_t> TokensOf(const storage::NodeRecord& record, int tokens) {
  const auto& ids = record.contents().token_ids();
  return {ids.begin(), ids.begin() + tokens};
}

engine::SamplingParameters SamplingOf(const storage::NodeRecord& record) {
  const storage::v1::SamplerState& sampler = record.sampler();
  engine::SamplingParameters sampling{.temperature = sampler.temperature(),
                                      .top_k = static_cast<int32_t>(sampler.top_k()),
                                      .top_p = sampler.top_p(),
                                      .min_p = sampler.min_p(),
                                      .repetition_penalty = sampler.repetition_penalty(),
                                      .presence_penalty = sampler.presence_penalty(),
                                      .frequency_penalty = sampler.frequency_penalty(),
                                      .seed = sampler.seed()};
  for (const auto& [id, bias] : sampler.logit_bias()) sampling.logit_bias[static_cast<int32_t>(id)] = bias;
  return sampling;
}

TextState TextStateOf(const storage::NodeRecord& record, int tokens) {
  if (static_cast<uint32_t>(tokens) < record.token_count()) {
    return {.detokenizer = {.prefix_offset = tokens, .read_offset = tokens}};
  }
  const storage::v1::TextState& text = record.contents().text();
  return {.detokenizer = {.prefix_offset = text.detokenizer_prefix_offset(),
                          .read_offset = text.detokenizer_read_offset(),
                          .emitted_bytes = text.detokenizer_emitted_bytes()},
          .held_text = text.held_back()};
}

ConstraintState ConstraintOf(const storage::NodeRecord& record, int tokens) {
  const storage::v1::TextState& text = record.contents().text();
  if (!text.has_constraint()) return {};
  const storage::v1::ConstraintState& from = text.constraint();
  const int begin = static_cast<int>(record.token_count() - from.token_count());
  if (tokens < begin) return {};
  auto constraint = std::make_shared<text::Constraint>();
  constraint->kind = KindOf(from.kind());
  constraint->texts.assign(from.texts().begin(), from.texts().end());
  return {.constraint = std::move(constraint), .tokens = tokens - begin};
}

}  // namespace quicksave::server
