#ifndef QUICKSAVE_SERVER_SCHEDULER_TOKEN_CONSTRAINT_H_
#define QUICKSAVE_SERVER_SCHEDULER_TOKEN_CONSTRAINT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/text/grammar.h"
#include "server/worker_pool.h"

namespace quicksave::server {

// A grammar at work in one generation. What may follow a token is computed on a worker while the engine computes the
// token, so that a slow grammar delays its own generation only. Owned by the generation; used by one thread at a time.
class TokenConstraint {
 public:
  // Longest time that one token may take; a grammar that needs more is given up.
  static constexpr absl::Duration kMaxStepTime = absl::Seconds(1);
  // Longest time that the first step may take, in steps: it takes all tokens that came before.
  static constexpr int kFirstStep = 5;

  // What may follow the tokens so far.
  struct Allowed {
    // FAILED_PRECONDITION when the grammar is too complex or too slow, or does not allow the tokens that it began with;
    // then nothing else is set.
    absl::Status status;
    text::Grammar::Progress progress = text::Grammar::Progress::kOpen;
    // As text::Grammar::Mask. Without a bit when no token may follow.
    std::vector<uint32_t> mask;
    bool any = false;  // whether the mask has a bit
  };

  // Begins with what may follow `tokens`, which are the first that `grammar` takes. The pool must outlive this.
  TokenConstraint(std::unique_ptr<text::Grammar> grammar, std::vector<int32_t> tokens, WorkerPool* workers,
                  absl::Duration max_step_time = kMaxStepTime);
  ~TokenConstraint();
  TokenConstraint(const TokenConstraint&) = delete;
  TokenConstraint& operator=(const TokenConstraint&) = delete;

  // Whether `allowed` is there. Does not block; call it again after a while, which also ends a step that takes too
  // long.
  bool Ready();
  // Valid until Take. Only when Ready.
  const Allowed& allowed() const;
  // Takes an allowed token and begins with what may follow. Only when Ready.
  void Take(int32_t token);

 private:
  struct Work;

  void Begin(std::vector<int32_t> tokens);

  // Shared with the task that is running, which may outlive this.
  const std::shared_ptr<Work> work_;
  WorkerPool* const workers_;
  // Of the step that is running.
  absl::Duration limit_;
  const absl::Duration max_step_time_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_TOKEN_CONSTRAINT_H_
