#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/scheduler/evaluate_job.h"
#include "server/service/input_tokens.h"
#include "server/service/restore.h"
#include "server/service/snapshot_handlers.h"
#include "server/service/start_state.h"

namespace quicksave::server {
namespace {

constexpr int kMaxTopK = 1000;
constexpr int kMaxContinuations = 1024;
// Bounds the response to a few MiB.
constexpr int64_t kMaxAlternatives = 100'000;

void AddToken(const Core& core, const engine::LogProbabilities& probabilities, int32_t id, int top_k,
              v1::ContinuationScore& score) {
  v1::Token* token = score.add_tokens();
  token->set_id(id);
  token->set_logprob(probabilities.of(id));
  score.set_total_logprob(score.total_logprob() + token->logprob());
  for (const engine::TokenLogprob& alternative : probabilities.Top(top_k)) {
    v1::TokenProbability* top = token->add_top();
    top->set_id(alternative.id);
    top->set_text(core.tokenizer->TokenText(alternative.id).value_or(""));
    top->set_logprob(alternative.logprob);
  }
}

absl::StatusOr<std::vector<std::vector<int32_t>>> Continuations(const Core& core, const v1::ScoreRequest& request) {
  if (request.continuations().empty()) return absl::InvalidArgumentError("give at least one continuation");
  if (request.continuations_size() > kMaxContinuations) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", request.continuations_size(),
                                                   " continuations; at most ", kMaxContinuations,
                                                   " are scored in one call"));
  }
  std::vector<std::vector<int32_t>> continuations;
  int64_t tokens = 0;
  for (const v1::Continuation& continuation : request.continuations()) {
    std::vector<int32_t> ids(continuation.token_ids().ids().begin(), continuation.token_ids().ids().end());
    if (continuation.has_text()) {
      absl::StatusOr<std::vector<int32_t>> encoded = TextTokens(core, continuation.text());
      if (!encoded.ok()) return encoded.status();
      ids = *std::move(encoded);
    }
    if (ids.empty()) return absl::InvalidArgumentError("a continuation has no tokens");
    if (absl::Status status = CheckTokenIds(core, ids); !status.ok()) return status;
    tokens += static_cast<int64_t>(ids.size());
    continuations.push_back(std::move(ids));
  }
  if (tokens > core.limits.max_tokens_per_call) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens_per_call: the continuations have ", tokens,
                                                   " tokens, the limit is ", core.limits.max_tokens_per_call));
  }
  if (tokens * request.top_k() > kMaxAlternatives) {
    return absl::InvalidArgumentError(absl::StrCat("top_k times tokens is ", tokens * request.top_k(),
                                                   "; the limit is ", kMaxAlternatives,
                                                   "; ask for fewer alternatives or score fewer tokens"));
  }
  return continuations;
}

absl::Status ScoreOne(Core& core, const CallContext& call, ProvenState& start, const std::vector<int32_t>& tokens,
                      int top_k, v1::ContinuationScore& score) {
  const SessionState& state = start.state;
  AddToken(core, engine::LogProbabilities(*state.sequence.next_logits()), tokens[0], top_k, score);
  if (tokens.size() == 1) return absl::OkStatus();
  const size_t vocabulary = core.identity.vocab_size;
  const auto job = std::make_shared<EvaluateJob>(
      state.sequence, std::vector<int32_t>(tokens.begin(), tokens.end() - 1), engine::LogitsWanted::kAll,
      [&](size_t first, absl::Span<const float> logits) {
        for (size_t row = 0; row * vocabulary < logits.size(); ++row) {
          AddToken(core, engine::LogProbabilities(logits.subspan(row * vocabulary, vocabulary)),
                   tokens[first + row + 1], top_k, score);
        }
      });
  job->client = call.client;
  job->deadline = call.deadline;
  job->set_cancelled(call.cancelled);
  const int pages = start.pages.pages();
  job->reservation = std::move(start.pages);
  absl::Status status = core.scheduler->Run(job, job->count());
  // The next continuation takes the same pages. The scheduler may have added some.
  job->sequence().Release(job->reservation);
  start.pages = job->reservation.Split(pages);
  return status;
}

}  // namespace

absl::Status Score(Core& core, const CallContext& call, const v1::ScoreRequest& request, v1::ScoreResponse& response) {
  if (request.top_k() < 0 || request.top_k() > kMaxTopK) {
    return absl::InvalidArgumentError(absl::StrCat("top_k is ", request.top_k(), "; it must be from 0 to ", kMaxTopK));
  }
  const auto continuations = Continuations(core, request);
  if (!continuations.ok()) return continuations.status();
  const auto pages = [&](int length) {
    int most = 0;
    for (const auto& tokens : *continuations)
      most = std::max(most, PagesToGrow(length, static_cast<int>(tokens.size())));
    return most;
  };
  absl::StatusOr<ProvenState> start = StartState(core, call, request, {.growth = pages, .taps = false});
  if (!start.ok()) return start.status();
  if (absl::Status status = EnsureLogits(core, start->state, call); !status.ok()) return status;
  for (const std::vector<int32_t>& tokens : *continuations) {
    if (start->state.sequence.length() + static_cast<int>(tokens.size()) > core.decoder->config().context_length) {
      return absl::InvalidArgumentError(absl::StrCat("a continuation of ", tokens.size(), " tokens after ",
                                                     start->state.sequence.length(), " exceeds the context length, ",
                                                     core.decoder->config().context_length));
    }
    if (absl::Status status = ScoreOne(core, call, *start, tokens, request.top_k(), *response.add_scores());
        !status.ok()) {
      return status;
    }
  }
  if (request.has_node()) *response.mutable_proof() = std::move(start->proof);
  return absl::OkStatus();
}

}  // namespace quicksave::server
