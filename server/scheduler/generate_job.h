#ifndef QUICKSAVE_SERVER_SCHEDULER_GENERATE_JOB_H_
#define QUICKSAVE_SERVER_SCHEDULER_GENERATE_JOB_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/sampler.h"
#include "server/scheduler/job.h"
#include "server/scheduler/session_state.h"
#include "server/scheduler/token_constraint.h"
#include "server/text/stop_matcher.h"
#include "server/text/tokenizer.h"

namespace quicksave::server {

struct GeneratedToken {
  int32_t id = 0;
  std::optional<float> logprob;
  std::vector<engine::TokenLogprob> top;
};

enum class FinishReason { kNone, kEndOfTurn, kStop, kMaxTokens, kContextFull, kConstraintComplete };

struct GenerateResult {
  FinishReason reason = FinishReason::kNone;
  std::string stop;  // the stop string or the text of the stop token
  int generated_tokens = 0;
  std::string pending_text;
  absl::Duration prefill_time;
  absl::Duration decode_time;
};

// Hears of a generation's progress. All calls come from the engine thread and must not block.
class GenerateListener {
 public:
  virtual ~GenerateListener() = default;
  // Whether its buffer is full; the job is left out of steps while it is.
  virtual bool Full() const = 0;
  virtual void OnTokens(std::string text, std::vector<GeneratedToken> tokens) = 0;
  // The state after every so many tokens, when checkpoints were asked for. Without origin.
  virtual void OnCheckpoint(SessionState state) = 0;
  // Last. The state is whole whatever the status is. Without origin.
  virtual void OnFinish(const absl::Status& status, const GenerateResult& result, SessionState state) = 0;
};

struct GenerateOptions {
  std::vector<int32_t> input;  // appended first; may be empty when the state has tokens
  int max_tokens = 0;          // to generate
  int max_appended = 0;        // of these, as many as the context has room for
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  std::vector<int32_t> end_of_turn_ids;  // the model's own; empty to ignore them
  std::optional<int> top_logprobs;
  int checkpoint_tokens = 0;  // 0: none
  int context_length = 0;
};

// Appends the input to a state, then draws tokens until something ends it. A token is part of the state when it has
// been fed, so at the end K, V and next-token logits cover every token that was given out, and going on from there is
// going on as if never stopped.
class GenerateJob : public Job {
 public:
  // `state` brings the sampler settings, and the text state when there is no input. `constraint`, if any, is that of
  // the state, and has taken the state's tokens under it. INVALID_ARGUMENT for bad stop strings.
  static absl::StatusOr<std::shared_ptr<GenerateJob>> Create(SessionState state, GenerateOptions options,
                                                             const text::Tokenizer* tokenizer,
                                                             std::shared_ptr<GenerateListener> listener,
                                                             std::unique_ptr<TokenConstraint> constraint = nullptr);

  // Tokens that it may append, for Scheduler::Submit.
  int max_appended() const { return static_cast<int>(options_.input.size()) + options_.max_appended; }
  // Tokens of its sequence now. Any thread.
  int length() const { return length_.load(std::memory_order_relaxed); }
  // What is captured of it now. Any thread.
  engine::TapExtent tap_extent() const;
  // The state at a step boundary: on the engine thread, or before the job is submitted.
  SessionState Capture() const;

  engine::Sequence& sequence() override { return state_.sequence; }
  engine::Taps* taps() override { return state_.taps.on() ? &state_.taps : nullptr; }
  int backlog() const override;
  bool paused() const override { return listener_->Full() || AwaitsConstraint(); }
  Feed Next(int budget) override;
  void OnFed() override;
  void Consume(absl::Span<const float> logits) override;
  void Finish(const absl::Status& status) override;

 private:
  GenerateJob(SessionState state, GenerateOptions options, const text::Tokenizer* tokenizer, text::StopMatcher stops,
              std::shared_ptr<GenerateListener> listener, std::unique_ptr<TokenConstraint> constraint);
  // Whether the next token waits for what the constraint allows.
  bool AwaitsConstraint() const;
  // What the first Next does.
  void Begin();
  // Takes the last token away to feed it again, when its logits or hidden states are missing.
  void PutBackLastToken();
  // The input that the state has now is no part of the answer, whether more of it follows or not.
  void SkipInputText();
  // Gives out what was held back and need not be any more.
  void BeginText();
  // Decides what follows the logits that the state now has; nothing is given out yet.
  void Decide();
  // The end, before a token is drawn, if there is a reason for it.
  FinishReason WhyEnd();
  // The next token, under the constraint if there is one.
  int32_t Draw() const;
  // Ends it; a constraint that ended with its text goes out of force.
  void End(FinishReason reason);
  void Emit(int32_t token);

  SessionState state_;
  // The sequence as it was given, while its last token waits to be fed again.
  std::optional<engine::Sequence> whole_;
  // It is fed again for its hidden states only: the text is as it was.
  bool keeps_text_ = false;
  GenerateOptions options_;
  const text::Tokenizer* tokenizer_;
  text::StopMatcher stops_;
  text::Detokenizer detokenizer_;
  std::shared_ptr<GenerateListener> listener_;
  const std::unique_ptr<TokenConstraint> constraint_;

  size_t fed_input_ = 0;
  size_t feeding_ = 0;  // tokens handed out by the last Next
  int32_t next_token_ = 0;
  bool decided_ = false;  // next_token_ waits to be fed, or the end is known
  // Text after the stop string is dropped. The token that completed it is fed all the same, because it was given out.
  bool stopped_by_string_ = false;
  bool done_ = false;
  absl::Status error_;  // why it could not go on
  GenerateResult result_;
  std::atomic<int> length_;
  std::atomic<bool> evaluated_ = false;  // some token; length_ is from then on that of what was evaluated
  // As of the start.
  engine::TapExtent tap_extent_;
  // Where what is captured begins, once all tokens are and one was evaluated.
  int first_tapped_ = 0;
  absl::Time start_ = absl::InfinitePast();
  absl::Time prefilled_ = absl::InfinitePast();
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_GENERATE_JOB_H_
