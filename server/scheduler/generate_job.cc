#include "server/scheduler/generate_job.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace quicksave::server {

absl::StatusOr<std::shared_ptr<GenerateJob>> GenerateJob::Create(SessionState state, GenerateOptions options,
                                                                 const text::Tokenizer* tokenizer,
                                                                 std::shared_ptr<GenerateListener> listener) {
  absl::StatusOr<text::StopMatcher> stops = text::StopMatcher::Create(options.stop_strings);
  if (!stops.ok()) return stops.status();
  return std::shared_ptr<GenerateJob>(
      new GenerateJob(std::move(state), std::move(options), tokenizer, *std::move(stops), std::move(listener)));
}

GenerateJob::GenerateJob(SessionState state, GenerateOptions options, const text::Tokenizer* tokenizer,
                         text::StopMatcher stops, std::shared_ptr<GenerateListener> listener)
    : state_(std::move(state)),
      options_(std::move(options)),
      tokenizer_(tokenizer),
      stops_(std::move(stops)),
      detokenizer_(tokenizer, /*skip_special=*/true, state_.text.detokenizer),
      listener_(std::move(listener)),
      length_(state_.sequence.length()) {
  if (!options_.input.empty() || state_.sequence.next_logits() != nullptr || length() == 0) return;
  // Rewound: the last token is fed again for its logits, which are a function of the tokens alone.
  whole_ = state_.sequence;
  options_.input = {state_.sequence.tokens().back()};
  state_.sequence.Truncate(length() - 1);
}

SessionState GenerateJob::Capture() const {
  SessionState state = state_;
  if (whole_) state.sequence = *whole_;
  return state;
}

void GenerateJob::Begin() {
  start_ = absl::Now();
  if (!options_.input.empty()) {
    state_.text.held_text.clear();
  } else if (state_.text.detokenizer.prefix_offset == length()) {
    // Rewound: the archive cannot tell what the text after this place depends on.
    SkipInputText();
  }
}

int GenerateJob::backlog() const {
  return fed_input_ < options_.input.size() ? static_cast<int>(options_.input.size() - fed_input_) : 1;
}

Job::Feed GenerateJob::Next(int budget) {
  if (start_ == absl::InfinitePast()) Begin();
  const std::vector<int32_t>& input = options_.input;
  if (fed_input_ < input.size()) {
    feeding_ = std::min<size_t>(budget, input.size() - fed_input_);
    const bool last = fed_input_ + feeding_ == input.size();
    return {absl::MakeConstSpan(input).subspan(fed_input_, feeding_),
            last ? engine::LogitsWanted::kLast : engine::LogitsWanted::kNone};
  }
  if (!decided_) Decide();
  if (done_) return {};
  feeding_ = 1;
  return {absl::MakeConstSpan(&next_token_, 1), engine::LogitsWanted::kLast};
}

void GenerateJob::Consume(absl::Span<const float> logits) {
  length_.store(state_.sequence.length(), std::memory_order_relaxed);
  whole_.reset();
  if (fed_input_ < options_.input.size()) {
    fed_input_ += feeding_;
    SkipInputText();
  }
  if (logits.empty()) return;
  // Only now is the token given out by Decide part of the state, so only now is its text.
  if (decided_) state_.text.detokenizer = detokenizer_.state();
  if (decided_) state_.text.held_text = stops_.held_text();
  state_.sequence.set_next_logits(std::make_shared<const engine::Logits>(logits.begin(), logits.end()));
  if (options_.checkpoint_tokens > 0 && decided_ && result_.generated_tokens % options_.checkpoint_tokens == 0 &&
      !stopped_by_string_ && result_.generated_tokens < options_.max_tokens) {
    listener_->OnCheckpoint(state_);
  }
  decided_ = false;
}

void GenerateJob::Decide() {
  decided_ = true;
  if (prefilled_ == absl::InfinitePast()) {
    prefilled_ = absl::Now();
    BeginText();
  }
  if (stopped_by_string_ || done_) {
    done_ = true;
    return;
  }
  if (result_.generated_tokens >= options_.max_tokens) {
    result_.reason = FinishReason::kMaxTokens;
    done_ = true;
    return;
  }
  if (state_.sequence.length() >= options_.context_length) {
    result_.reason = FinishReason::kContextFull;
    done_ = true;
    return;
  }
  next_token_ = engine::Sample(*state_.sequence.next_logits(), state_.sampling, state_.sequence.tokens());
  const auto has_next = [this](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), next_token_) != ids.end();
  };
  const bool named = has_next(options_.stop_token_ids);
  if (named || has_next(options_.end_of_turn_ids)) {
    result_.reason = named ? FinishReason::kStop : FinishReason::kEndOfTurn;
    result_.stop = tokenizer_->TokenText(next_token_).value_or("");
    done_ = true;
    return;
  }
  ++result_.generated_tokens;
  Emit(next_token_);
}

void GenerateJob::SkipInputText() {
  detokenizer_.SkipTo(state_.sequence.tokens()).IgnoreError();
  state_.text.detokenizer = detokenizer_.state();
}

void GenerateJob::BeginText() {
  const text::StopMatcher::Result held = stops_.Restore(state_.text.held_text);
  if (!held.text.empty()) listener_->OnTokens(held.text, {});
  state_.text.held_text = stops_.held_text();
  if (held.stop) {
    result_.reason = FinishReason::kStop;
    result_.stop = options_.stop_strings[*held.stop];
    stopped_by_string_ = true;
    done_ = true;
  }
}

void GenerateJob::Emit(int32_t token) {
  GeneratedToken generated{.id = token};
  if (options_.top_logprobs) {
    const engine::LogProbabilities probabilities(*state_.sequence.next_logits());
    generated.logprob = probabilities.of(token);
    if (*options_.top_logprobs > 0) generated.top = probabilities.Top(*options_.top_logprobs);
  }
  std::vector<int32_t> tokens = state_.sequence.tokens();
  tokens.push_back(token);
  const std::string piece = detokenizer_.Append(tokens).value_or("");
  text::StopMatcher::Result matched = stops_.Push(piece);
  listener_->OnTokens(std::move(matched.text), {std::move(generated)});
  if (matched.stop) {
    result_.reason = FinishReason::kStop;
    result_.stop = options_.stop_strings[*matched.stop];
    stopped_by_string_ = true;
  }
}

void GenerateJob::Finish(const absl::Status& status) {
  if (whole_) state_.sequence = *std::move(whole_);
  const absl::Time now = absl::Now();
  if (start_ == absl::InfinitePast()) start_ = now;
  if (prefilled_ == absl::InfinitePast()) prefilled_ = now;
  result_.prefill_time = prefilled_ - start_;
  result_.decode_time = now - prefilled_;
  if (!stopped_by_string_) {
    const text::Detokenizer text(tokenizer_, /*skip_special=*/true, state_.text.detokenizer);
    result_.pending_text = state_.text.held_text + text.PendingText(state_.sequence.tokens()).value_or("");
  }
  listener_->OnFinish(status, result_, std::move(state_));
}

}  // namespace quicksave::server
