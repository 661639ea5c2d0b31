#include "server/service/generation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "server/service/convert.h"
#include "server/service/input_tokens.h"
#include "server/service/known_prefix.h"
#include "server/service/restore.h"
#include "server/service/saving.h"
#include "server/service/start_state.h"
#include "server/service/tap_request.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

constexpr int kMaxTopLogprobs = 100;
constexpr int kMaxStopTokenIds = 64;
// Checkpoints that wait to be saved before the generation waits for them.
constexpr size_t kMaxPendingSaves = 2;
constexpr char kConstraintFailed[] = "CONSTRAINT_FAILED";

v1::GenerateFinished::Reason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfTurn:
      return v1::GenerateFinished::REASON_END_OF_TURN;
    case FinishReason::kStop:
      return v1::GenerateFinished::REASON_STOP;
    case FinishReason::kMaxTokens:
      return v1::GenerateFinished::REASON_MAX_TOKENS;
    case FinishReason::kContextFull:
      return v1::GenerateFinished::REASON_CONTEXT_FULL;
    case FinishReason::kConstraintComplete:
      return v1::GenerateFinished::REASON_CONSTRAINT_COMPLETE;
    case FinishReason::kNone:
      break;
  }
  return v1::GenerateFinished::REASON_UNSPECIFIED;
}

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; it must be from ", low, " to ", high));
}

}  // namespace

void Generation::Start() {
  // The caller may have given up while this waited for a worker.
  absl::Status status = IsCancelled() ? absl::CancelledError("the caller cancelled the call") : Validate();
  if (status.ok()) status = CompileConstraint();
  if (status.ok()) {
    absl::StatusOr<RequestMemory::Attempt> attempt = core_.requests.Begin("Generate", request_.request_id(), request_);
    status = attempt.status();
    if (attempt.ok()) attempt_ = *std::move(attempt);
  }
  if (status.ok() && attempt_.answer) {
    status = Replay(*attempt_.answer) ? absl::OkStatus() : absl::DataLossError("the remembered answer is damaged");
    return Finish(status);
  }
  if (status.ok()) status = Prepare();
  if (!status.ok()) Finish(status);
}

void Generation::Finish(const absl::Status& status) {
  // First, so that a repeat which comes at once finds the request_id free.
  attempt_ = {};
  sink_->Finish(status);
}

absl::Status Generation::Validate() const {
  const v1::StopConditions& stop = request_.stop();
  const bool saves_often = request_.has_save_every_tokens();
  const absl::Status checks[] = {
      CheckRange("max_tokens_per_call: stop.max_tokens", stop.max_tokens(), 0, core_.limits.max_tokens_per_call),
      CheckRange("top_logprobs", request_.top_logprobs(), 0, kMaxTopLogprobs),
      saves_often ? CheckRange("save_every_tokens", request_.save_every_tokens(), 1, INT32_MAX) : absl::OkStatus(),
      CheckRange("number of stop.token_ids", stop.token_ids_size(), 0, kMaxStopTokenIds),
      CheckTokenIds(core_, stop.token_ids()),
      CheckSaveOptions(request_.save()),
      FromProto(request_.sampling(), {}, core_.identity.vocab_size).status(),
      FromProto(request_.taps(), core_.decoder->config().layers).status(),
      text::StopMatcher::Create({stop.strings().begin(), stop.strings().end()}).status(),
      Lease(core_, request_.has_lease(), request_.lease()).status(),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  if (saves_often && !request_.has_save()) return absl::InvalidArgumentError("save_every_tokens needs save");
  if (!request_.request_id().empty() && !request_.has_save()) {
    return absl::InvalidArgumentError(
        "request_id needs save: without it a Generate changes nothing that a repeat could find");
  }
  if (request_.has_at_token() && !request_.has_node()) return absl::InvalidArgumentError("at_token goes with a node");
  return absl::OkStatus();
}

absl::Status Generation::CompileConstraint() {
  if (!request_.has_constraint()) return absl::OkStatus();
  constraint_.constraint = FromProto(request_.constraint());
  if (constraint_.constraint == nullptr) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<text::Grammar>> grammar =
      text::Grammar::Create(core_.tokenizer.get(), *constraint_.constraint);
  if (!grammar.ok()) return grammar.status();
  grammar_ = *std::move(grammar);
  return absl::OkStatus();
}

// The constraint that this call generates under: its own, or the one that is in force.
absl::Status Generation::ResumeConstraint(bool has_input, SessionState& state) {
  if (request_.has_constraint() || has_input) {
    state.constraint = constraint_;
    return absl::OkStatus();
  }
  if (state.constraint.constraint == nullptr) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<text::Grammar>> grammar =
      text::Grammar::Create(core_.tokenizer.get(), *state.constraint.constraint);
  if (grammar.ok()) {
    grammar_ = *std::move(grammar);
    return absl::OkStatus();
  }
  return storage::WithReason(
      kConstraintFailed,
      absl::FailedPreconditionError(
          absl::StrCat("the constraint in force cannot be gone on with; give another one, or one without a kind: ",
                       grammar.status().message())));
}

std::unique_ptr<TokenConstraint> Generation::HeldBy(const SessionState& state) {
  if (grammar_ == nullptr) return nullptr;
  const std::vector<int32_t>& tokens = state.sequence.tokens();
  return std::make_unique<TokenConstraint>(std::move(grammar_),
                                           std::vector<int32_t>(tokens.end() - state.constraint.tokens, tokens.end()),
                                           core_.constraint_workers.get());
}

absl::Status Generation::Prepare() {
  absl::StatusOr<std::vector<int32_t>> input =
      InputTokens(core_, request_, request_.start_case() != v1::GenerateRequest::START_NOT_SET);
  if (!input.ok()) return input.status();
  started_.set_input_tokens(static_cast<int32_t>(input->size()));
  absl::StatusOr<TakenSession> taken = OpenSession(*input);
  if (!taken.ok()) return taken.status();
  started_.set_session(absl::StrCat("sessions/", session_));
  started_.set_reused_tokens(taken->state.sequence.length() - started_.shared_tokens() - started_.restored_tokens());
  absl::Status status = Launch(*std::move(taken), *std::move(input));
  if (status.ok()) Announce();
  // Nobody knows the session of a call that was not let in.
  if (!status.ok() && owns_session_) core_.sessions->Delete(session_).IgnoreError();
  return status;
}

absl::StatusOr<TakenSession> Generation::OpenSession(std::vector<int32_t>& input) {
  const auto growth = [&](int length) {
    const int generated = MaxAppended(length, input.size());
    // Without room for the input, Launch says so.
    return generated < 0 ? 0 : PagesToGrow(length, static_cast<int>(input.size()) + generated);
  };
  if (!request_.has_session()) return StartNew(input, growth);
  const absl::StatusOr<std::string> id = ParseName(request_.session(), "sessions");
  if (!id.ok()) return id.status();
  session_ = *id;
  const bool has_lease = request_.has_lease();
  const auto lease = has_lease ? std::optional(*Lease(core_, has_lease, request_.lease())) : std::nullopt;
  absl::StatusOr<TakenSession> taken = core_.sessions->Take(session_, lease, Call(), growth);
  if (absl::IsFailedPrecondition(taken.status())) return storage::WithReason("SESSION_BUSY", taken.status());
  return taken;
}

absl::StatusOr<TakenSession> Generation::StartEmpty(std::vector<int32_t>& input, SessionTable::Growth growth) {
  // What is known is not computed, so nothing of it could be captured.
  const auto sought = CapturesAllTokens(request_) ? absl::Span<const int32_t>() : absl::MakeConstSpan(input);
  absl::StatusOr<KnownPrefix> known = TakeKnownPrefix(core_, sought, growth(0), Call());
  if (!known.ok()) return known.status();
  TakenSession taken{{.sequence = std::move(known->sequence)}, std::move(known->pages)};
  const int length = taken.state.sequence.length();
  if (length == 0) return taken;
  input.erase(input.begin(), input.begin() + length);
  taken.state.text.detokenizer = {.prefix_offset = length, .read_offset = length};
  if (known->restored) {
    started_.set_restored_tokens(length);
    started_.set_restored_node(known->node);
  } else {
    started_.set_shared_tokens(length);
  }
  return taken;
}

absl::StatusOr<TakenSession> Generation::StartNew(std::vector<int32_t>& input, SessionTable::Growth growth) {
  TakenSession taken;
  if (request_.has_node()) {
    absl::StatusOr<ProvenState> proven =
        RestoreWithProof(core_, request_.node(), AtToken(request_), request_.skip_check(), Call(),
                         {.growth = growth, .taps = !EndsTaps(request_)});
    if (!proven.ok()) return proven.status();
    taken = {std::move(proven->state), std::move(proven->pages)};
    *started_.mutable_proof() = std::move(proven->proof);
  } else {
    absl::StatusOr<TakenSession> begun = StartEmpty(input, growth);
    if (!begun.ok()) return begun.status();
    taken = *std::move(begun);
  }
  const auto added = core_.sessions->AddTaken(taken.state, *Lease(core_, request_.has_lease(), request_.lease()));
  if (!added.ok()) return added.status();
  session_ = added->id;
  owns_session_ = true;
  return taken;
}

CallContext Generation::Call() const {
  return {.client = client_, .deadline = deadline_, .cancelled = [this] { return IsCancelled(); }};
}

int Generation::MaxAppended(int length, size_t input_tokens) const {
  const v1::StopConditions& stop = request_.stop();
  const int wanted = stop.has_max_tokens() ? stop.max_tokens() : core_.limits.default_max_tokens;
  return std::min(wanted, core_.decoder->config().context_length - length - static_cast<int>(input_tokens));
}

absl::Status Generation::Launch(TakenSession taken, std::vector<int32_t> input) {
  SessionState& state = taken.state;
  origin_ = state.origin;
  origin_tokens_ = state.origin_tokens;
  const int length = state.sequence.length();
  const int context = core_.decoder->config().context_length;
  absl::Status status;
  if (length + static_cast<int>(input.size()) > context) {
    status = absl::InvalidArgumentError(absl::StrCat("context_length: ", input.size(), " tokens of input after ",
                                                     length, " exceed the model's context of ", context));
  } else if (length == 0 && input.empty()) {
    status = absl::FailedPreconditionError(absl::StrCat("sessions/", session_, " has no tokens; give input"));
  }
  const engine::SamplingParameters sampling = state.sampling;
  const ConstraintState constraint = state.constraint;
  const engine::Taps taps = state.taps;
  if (status.ok()) status = ResumeConstraint(!input.empty(), state);
  if (status.ok()) {
    const auto wanted = FromProto(request_.sampling(), sampling, core_.identity.vocab_size);
    status = wanted.status();
    if (wanted.ok()) state.sampling = *wanted;
  }
  if (status.ok()) {
    const int input_tokens = static_cast<int>(input.size());
    status = ResumeTaps(core_, request_, input_tokens + MaxAppended(length, input.size()), state);
  }
  if (status.ok() && input.empty()) status = CompleteDecoded(core_, state, Call());
  std::shared_ptr<GenerateJob> job;
  if (status.ok()) {
    // Its only other error, bad stop strings, was excluded by Validate.
    std::unique_ptr<TokenConstraint> held = HeldBy(state);
    auto created = GenerateJob::Create(std::move(state), JobOptions(std::move(input), length), core_.tokenizer.get(),
                                       shared_from_this(), std::move(held));
    if (!created.ok()) return created.status();
    job = *std::move(created);
    job->reservation = std::move(taken.pages);
    status = Submit(job);
    if (!status.ok()) state = job->Capture();  // NOLINT(bugprone-use-after-move): it is given back
  }
  if (!status.ok()) {
    state.sampling = sampling;  // NOLINT(bugprone-use-after-move): as above
    state.constraint = constraint;
    state.taps = taps;
    core_.sessions->GiveBack(session_, std::move(state));
  }
  return status;
}

absl::Status Generation::Submit(const std::shared_ptr<GenerateJob>& job) {
  job->client = client_;
  job->deadline = deadline_;
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the caller cancelled the call");
    job_ = job;
  }
  core_.sessions->SetJob(session_, job);
  absl::Status status = core_.scheduler->Submit(job, job->max_appended());
  if (status.ok()) return status;
  // The job holds this; a job that does not run must not be held by it.
  absl::MutexLock lock(&mutex_);
  job_ = nullptr;
  return status;
}

GenerateOptions Generation::JobOptions(std::vector<int32_t> input, int length) const {
  const v1::StopConditions& stop = request_.stop();
  const int max_appended = MaxAppended(length, input.size());
  return {.input = std::move(input),
          .max_tokens = stop.has_max_tokens() ? stop.max_tokens() : core_.limits.default_max_tokens,
          .max_appended = max_appended,
          .stop_strings = {stop.strings().begin(), stop.strings().end()},
          .stop_token_ids = {stop.token_ids().begin(), stop.token_ids().end()},
          .end_of_turn_ids = stop.ignore_eos() ? std::vector<int32_t>() : core_.decoder->config().end_of_turn_ids,
          .top_logprobs = request_.has_top_logprobs() ? std::optional<int>(request_.top_logprobs()) : std::nullopt,
          .checkpoint_tokens = request_.save_every_tokens(),
          .context_length = core_.decoder->config().context_length};
}

void Generation::Announce() {
  absl::call_once(announced_, [this] {
    v1::GenerateResponse event;
    *event.mutable_started() = started_;
    sink_->Write(std::move(event));
  });
}

void Generation::CloseSession() {
  if (owns_session_ && !request_.keep_session()) core_.sessions->End(session_);
}

void Generation::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (job_ != nullptr) job_->Cancel();
}

bool Generation::IsCancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

bool Generation::Full() const {
  if (sink_->Full()) return true;
  absl::MutexLock lock(&mutex_);
  return saves_.size() > kMaxPendingSaves;
}

void Generation::OnTokens(std::string text, std::vector<GeneratedToken> tokens) {
  Announce();
  v1::GenerateResponse event;
  v1::GenerateDelta& delta = *event.mutable_delta();
  delta.set_text(std::move(text));
  for (const GeneratedToken& generated : tokens) {
    v1::Token* token = delta.add_tokens();
    token->set_id(generated.id);
    if (generated.logprob) token->set_logprob(*generated.logprob);
    // Without the alternatives, which may be more than the store remembers.
    if (attempt_.request) *answer_.add_tokens() = *token;
    for (const engine::TokenLogprob& alternative : generated.top) {
      v1::TokenProbability* top = token->add_top();
      top->set_id(alternative.id);
      top->set_text(core_.tokenizer->TokenText(alternative.id).value_or(""));
      top->set_logprob(alternative.logprob);
    }
  }
  if (attempt_.request) answer_.mutable_text()->append(delta.text());
  sink_->Write(std::move(event));
}

void Generation::OnCheckpoint(SessionState state) {
  absl::MutexLock lock(&mutex_);
  saves_.push_back(std::move(state));
  if (std::exchange(saving_, true)) return;
  core_.callers->Schedule([self = shared_from_this()] { self->RunSaves(); });
}

void Generation::OnFinish(const absl::Status& status, const GenerateResult& result, SessionState state) {
  core_.sessions->GiveBack(session_, state);
  absl::MutexLock lock(&mutex_);
  // Of a job only the constraint gives this error.
  const bool constraint_failed = absl::IsFailedPrecondition(status);
  ending_ =
      Ending{constraint_failed ? storage::WithReason(kConstraintFailed, status) : status, result, std::move(state)};
  if (std::exchange(saving_, true)) return;
  core_.callers->Schedule([self = shared_from_this()] { self->RunSaves(); });
}

void Generation::RunSaves() {
  for (;;) {
    SessionState state;
    std::optional<Ending> ending;
    {
      absl::MutexLock lock(&mutex_);
      if (!saves_.empty()) {
        state = std::move(saves_.front());
        saves_.pop_front();
      } else if (ending_) {
        ending = std::move(ending_);
        if (!save_error_.ok()) ending->status = save_error_;
      } else {
        saving_ = false;
        return;
      }
    }
    if (ending) return End(*std::move(ending));
    if (absl::Status status = SaveCheckpoint(std::move(state)); !status.ok()) {
      absl::MutexLock lock(&mutex_);
      if (save_error_.ok()) save_error_ = status;
      job_->Cancel();
    }
  }
}

absl::Status Generation::SaveCheckpoint(SessionState state) {
  state.origin = origin_;
  state.origin_tokens = origin_tokens_;
  absl::StatusOr<SavedNode> saved = SaveState(core_, state, request_.save(), std::nullopt);
  if (!saved.ok()) return saved.status();
  NoteSaved(*saved, state.sequence.length());
  return absl::OkStatus();
}

void Generation::NoteSaved(const SavedNode& saved, int tokens) {
  origin_ = saved.origin;
  origin_tokens_ = tokens;
  core_.sessions->SetOrigin(session_, saved.origin, tokens);
  Announce();
  v1::GenerateResponse event;
  ToProto(saved.record, core_, v1::NODE_VIEW_BASIC, event.mutable_saved()->mutable_node());
  ToProto(saved.report, event.mutable_saved()->mutable_report());
  sink_->Write(std::move(event));
}

void Generation::End(Ending ending) {
  Announce();
  v1::GenerateResponse event;
  v1::GenerateFinished& finished = *event.mutable_finished();
  finished.set_reason(ToProto(ending.result.reason));
  finished.set_stop(ending.result.stop);
  finished.set_generated_tokens(ending.result.generated_tokens);
  finished.set_token_count(ending.state.sequence.length());
  finished.set_pending_text(ending.result.pending_text);
  if (!owns_session_ || request_.keep_session()) finished.set_session(absl::StrCat("sessions/", session_));
  server::ToProto(ending.result.prefill_time, finished.mutable_prefill_time());
  server::ToProto(ending.result.decode_time, finished.mutable_decode_time());
  absl::Status status = ending.status;
  if (status.ok() && request_.has_save()) status = SaveFinal(ending.state, finished);
  CloseSession();
  {
    // The job holds this; here the circle ends.
    absl::MutexLock lock(&mutex_);
    job_ = nullptr;
  }
  if (status.ok()) sink_->Write(std::move(event));
  Finish(status);
}

absl::Status Generation::SaveFinal(SessionState& state, const v1::GenerateFinished& finished) {
  state.origin = origin_;
  state.origin_tokens = origin_tokens_;
  std::optional<storage::AnsweredRequest<storage::NodeRecord>> request;
  if (attempt_.request) {
    request.emplace().identity = *attempt_.request;
    request->answer = [this, finished](const storage::NodeRecord& record) {
      v1::GenerateResponse events[4];
      *events[0].mutable_started() = started_;
      *events[1].mutable_delta() = answer_;
      ToProto(record, core_, v1::NODE_VIEW_BASIC, events[2].mutable_saved()->mutable_node());
      *events[3].mutable_finished() = finished;
      events[3].mutable_finished()->set_replayed(true);
      std::string bytes;
      google::protobuf::io::StringOutputStream stream(&bytes);
      for (const v1::GenerateResponse& event : events) {
        google::protobuf::util::SerializeDelimitedToZeroCopyStream(event, &stream);
      }
      return bytes;
    };
  }
  absl::StatusOr<SavedNode> saved = SaveState(core_, state, request_.save(), std::move(request));
  if (!saved.ok()) return saved.status();
  NoteSaved(*saved, state.sequence.length());
  return absl::OkStatus();
}

bool Generation::Replay(const std::string& answer) {
  google::protobuf::io::ArrayInputStream stream(answer.data(), static_cast<int>(answer.size()));
  for (;;) {
    v1::GenerateResponse event;
    bool clean_eof = false;
    if (!google::protobuf::util::ParseDelimitedFromZeroCopyStream(&event, &stream, &clean_eof)) return clean_eof;
    sink_->Write(std::move(event));
  }
}

}  // namespace quicksave::server
