#include "server/scheduler/generate_job.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace quicksave::server {

absl::StatusOr<std::shared_ptr<GenerateJob>> GenerateJob::Create(SessionState state, GenerateOptions options,
                                                                 const text::Tokenizer* tokenizer,
                                                                 std::shared_ptr<GenerateListener> listener,
                                                                 std::unique_ptr<TokenConstraint> constraint) {
  absl::StatusOr<text::StopMatcher> stops = text::StopMatcher::Create(options.stop_strings);
  if (!stops.ok()) return stops.status();
  return std::shared_ptr<GenerateJob>(new GenerateJob(std::move(state), std::move(options), tokenizer,
                                                      *std::move(stops), std::move(listener), std::move(constraint)));
}

GenerateJob::GenerateJob(SessionState state, GenerateOptions options, const text::Tokenizer* tokenizer,
                         text::StopMatcher stops, std::shared_ptr<GenerateListener> listener,
                         std::unique_ptr<TokenConstraint> constraint)
    : state_(std::move(state)),
      options_(std::move(options)),
      tokenizer_(tokenizer),
      stops_(std::move(stops)),
      detokenizer_(tokenizer, /*skip_special=*/true, state_.text.detokenizer),
      listener_(std::move(listener)),
      constraint_(std::move(constraint)),
      length_(state_.sequence.length()) {
  if (options_.input.empty() && length() > 0) PutBackLastToken();
  tap_extent_ = state_.taps.extent();
  // A token that is put back has its hidden states meanwhile, where a rewound state has them.
  const bool goes_on = tap_extent_.first_token + tap_extent_.token_count >= state_.sequence.length();
  first_tapped_ = goes_on && tap_extent_.token_count > 0 ? tap_extent_.first_token : state_.sequence.length();
}

void GenerateJob::PutBackLastToken() {
  const bool rewound = state_.sequence.next_logits() == nullptr;
  if (!rewound && (!state_.taps.on() || state_.taps.Has(length() - 1))) return;
  // Logits and hidden states are a function of the tokens alone.
  whole_ = state_.sequence;
  keeps_text_ = !rewound;
  options_.input = {state_.sequence.tokens().back()};
  state_.sequence.Truncate(length() - 1);
}

engine::TapExtent GenerateJob::tap_extent() const {
  engine::TapExtent extent = tap_extent_;
  if (!extent.on() || !evaluated_.load(std::memory_order_acquire)) return extent;
  extent.first_token = extent.spec.all_tokens ? first_tapped_ : length() - 1;
  extent.token_count = length() - extent.first_token;
  return extent;
}

SessionState GenerateJob::Capture() const {
  SessionState state = state_;
  if (whole_) state.sequence = *whole_;
  return state;
}

void GenerateJob::Begin() {
  start_ = absl::Now();
  if (keeps_text_) return;
  if (!options_.input.empty()) {
    state_.text.held_text.clear();
  } else if (state_.text.detokenizer.prefix_offset == length()) {
    // Rewound: the archive cannot tell what the text after this place depends on.
    SkipInputText();
  }
}

bool GenerateJob::AwaitsConstraint() const {
  return constraint_ != nullptr && fed_input_ == options_.input.size() && !constraint_->Ready();
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
  evaluated_.store(true, std::memory_order_release);
  whole_.reset();
  if (fed_input_ < options_.input.size()) {
    fed_input_ += feeding_;
    if (!keeps_text_ || state_.text.detokenizer.prefix_offset == length()) SkipInputText();
  }
  if (logits.empty()) return;
  // Only now is the token given out by Decide part of the state, so only now is its text.
  if (decided_) state_.text.detokenizer = detokenizer_.state();
  if (decided_) state_.text.held_text = stops_.held_text();
  if (decided_ && constraint_ != nullptr) ++state_.constraint.tokens;
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
  if (const FinishReason reason = WhyEnd(); reason != FinishReason::kNone || !error_.ok()) return End(reason);
  next_token_ = Draw();
  const auto has_next = [this](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), next_token_) != ids.end();
  };
  const bool named = has_next(options_.stop_token_ids);
  if (named || has_next(options_.end_of_turn_ids)) {
    result_.stop = tokenizer_->TokenText(next_token_).value_or("");
    return End(named ? FinishReason::kStop : FinishReason::kEndOfTurn);
  }
}

void GenerateJob::OnFed() {
  if (!decided_) return;
  ++result_.generated_tokens;
  if (constraint_ != nullptr) constraint_->Take(next_token_);
  Emit(next_token_);
}

FinishReason GenerateJob::WhyEnd() {
  if (constraint_ != nullptr) {
    const TokenConstraint::Allowed& allowed = constraint_->allowed();
    error_ = allowed.status;
    if (error_.ok() && !allowed.any) {
      if (allowed.progress != text::Grammar::Progress::kOpen) return FinishReason::kConstraintComplete;
      error_ =
          absl::FailedPreconditionError("constraint: its text is not complete, but no token of the model may follow");
    }
    if (!error_.ok()) return FinishReason::kNone;
  }
  if (result_.generated_tokens >= options_.max_tokens) return FinishReason::kMaxTokens;
  if (state_.sequence.length() >= options_.context_length) return FinishReason::kContextFull;
  return FinishReason::kNone;
}

int32_t GenerateJob::Draw() const {
  // A model may have more rows than its tokenizer has tokens; what fills them up has no text.
  const absl::Span<const float> logits =
      absl::MakeConstSpan(*state_.sequence.next_logits()).subspan(0, tokenizer_->vocab_size());
  if (constraint_ == nullptr) return engine::Sample(logits, state_.sampling, state_.sequence.tokens());
  std::vector<uint32_t> mask = constraint_->allowed().mask;
  if (constraint_->allowed().progress == text::Grammar::Progress::kWhole) {
    mask.resize((logits.size() + 31) / 32);
    for (const std::vector<int32_t>* ends : {&options_.end_of_turn_ids, &options_.stop_token_ids}) {
      for (const int32_t id : *ends) {
        if (static_cast<size_t>(id) < logits.size()) mask[id / 32] |= uint32_t{1} << (id % 32);
      }
    }
  }
  return engine::Sample(logits, state_.sampling, state_.sequence.tokens(), mask);
}

void GenerateJob::End(FinishReason reason) {
  result_.reason = reason;
  done_ = true;
  if (reason == FinishReason::kConstraintComplete || reason == FinishReason::kEndOfTurn) state_.constraint = {};
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
  reservation = {};
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
  listener_->OnFinish(status.ok() ? error_ : status, result_, std::move(state_));
}

}  // namespace quicksave::server
