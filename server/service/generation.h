#ifndef QUICKSAVE_SERVER_SERVICE_GENERATION_H_
#define QUICKSAVE_SERVER_SERVICE_GENERATION_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/scheduler/generate_job.h"
#include "server/service/core.h"

namespace quicksave::server {

// Where the events of a generation go. Thread-safe; nothing blocks.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  // Whether the reader is so far behind that the generation should wait.
  virtual bool Full() const = 0;
  virtual void Write(v1::GenerateResponse event) = 0;
  // Last; the sink may be gone afterwards.
  virtual void Finish(const absl::Status& status) = 0;
};

// One Generate call, without gRPC: resolves where to start, runs the job, saves on the way and at the end, and reports.
// It keeps itself alive until it has finished the sink.
class Generation : public GenerateListener, public std::enable_shared_from_this<Generation> {
 public:
  // `client` is as in CallContext.
  Generation(Core* core, v1::GenerateRequest request, std::string client, absl::Time deadline, GenerateSink* sink)
      : core_(*core), request_(std::move(request)), client_(std::move(client)), deadline_(deadline), sink_(sink) {}

  // Starts it; on a worker. Everything wrong with the request is said before any work is done.
  void Start();
  // Stops its work within one step. Any thread.
  void Cancel();

  // From the engine thread.
  bool Full() const override;
  void OnTokens(std::string text, std::vector<GeneratedToken> tokens) override;
  void OnCheckpoint(SessionState state) override;
  void OnFinish(const absl::Status& status, const GenerateResult& result, SessionState state) override;

 private:
  struct Ending {
    absl::Status status;
    GenerateResult result;
    SessionState state;
  };

  bool IsCancelled() const;
  absl::Status Validate() const;
  // Reads the request's constraint, if it has one. INVALID_ARGUMENT with the place of the fault.
  absl::Status CompileConstraint();
  // Settles which constraint the state goes on under: the request's, or its own where it has no new input, or none.
  absl::Status ResumeConstraint(bool has_input, SessionState& state);
  // What holds the tokens to the state's constraint; null without one.
  std::unique_ptr<TokenConstraint> HeldBy(const SessionState& state);
  absl::Status Prepare();
  // Makes or takes the session to run in, with pages for all that may be appended; tokens of the input whose K and V
  // are known are taken off it.
  absl::StatusOr<TakenSession> OpenSession(std::vector<int32_t>& input);
  absl::StatusOr<TakenSession> StartNew(std::vector<int32_t>& input, SessionTable::Growth growth);
  // A new state, with what is known of the input's beginning.
  absl::StatusOr<TakenSession> StartEmpty(std::vector<int32_t>& input, SessionTable::Growth growth);
  absl::Status Launch(TakenSession taken, std::vector<int32_t> input);
  absl::Status Submit(const std::shared_ptr<GenerateJob>& job);
  CallContext Call() const;
  // Most tokens to generate after the input.
  int MaxAppended(int length, size_t input_tokens) const;
  GenerateOptions JobOptions(std::vector<int32_t> input, int length) const;
  void CloseSession();
  // Lets go of the request_id and finishes the sink.
  void Finish(const absl::Status& status);
  // Writes the event that comes first, once; before any other and only when the job was let in.
  void Announce();
  bool Replay(const std::string& answer);
  // Runs queued saves, then the ending when there is one. One worker at a time.
  void RunSaves();
  absl::Status SaveCheckpoint(SessionState state);
  void End(Ending ending);
  absl::Status SaveFinal(SessionState& state, const v1::GenerateFinished& finished);
  void NoteSaved(const SavedNode& saved, int tokens);

  Core& core_;
  const v1::GenerateRequest request_;
  const std::string client_;
  const absl::Time deadline_;
  GenerateSink* const sink_;

  // Set by Start, then only read, or touched by one worker at a time.
  RequestMemory::Attempt attempt_;
  ConstraintState constraint_;              // that the request brings
  std::unique_ptr<text::Grammar> grammar_;  // of the constraint to generate under
  std::string session_;                     // id
  bool owns_session_ = false;               // made by this call
  v1::GenerateStarted started_;
  std::shared_ptr<const Origin> origin_;
  int origin_tokens_ = 0;
  // What was given out, to be remembered, when the call has a request_id; engine thread until the end.
  v1::GenerateDelta answer_;

  absl::once_flag announced_;
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<GenerateJob> job_ ABSL_GUARDED_BY(mutex_);
  std::deque<SessionState> saves_ ABSL_GUARDED_BY(mutex_);
  bool saving_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Ending> ending_ ABSL_GUARDED_BY(mutex_);
  absl::Status save_error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_GENERATION_H_
