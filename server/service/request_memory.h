#ifndef QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_
#define QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/message.h"
#include "storage/store.h"

namespace quicksave::server {

// Makes mutations repeatable: a request_id that was answered gets the first answer again, also after a restart.
// Thread-safe.
class RequestMemory {
 public:
  // One call's hold on its request_id; lets go of it when destroyed.
  class Attempt {
   public:
    Attempt() = default;
    Attempt(Attempt&& other) noexcept { *this = std::move(other); }
    Attempt& operator=(Attempt&& other) noexcept {
      std::swap(memory_, other.memory_);
      std::swap(key_, other.key_);
      std::swap(request, other.request);
      std::swap(answer, other.answer);
      return *this;
    }
    ~Attempt();

    // The remembered answer, serialized; the call must do nothing but return it.
    std::optional<std::string> answer;
    // What to give to Store::CommitNode (with `answer` set) or, with Remember, to the store alone. Absent without a
    // request_id.
    std::optional<storage::AnsweredRequest> request;

   private:
    friend class RequestMemory;
    RequestMemory* memory_ = nullptr;
    std::pair<std::string, std::string> key_;
  };

  // Call Attach before anything else. The store must outlive this.
  void Attach(storage::Store* store, std::string tenant) {
    store_ = store;
    tenant_ = std::move(tenant);
  }

  // An empty request_id gives an Attempt that remembers nothing. INVALID_ARGUMENT when it is not a UUID or was used for
  // another request; ABORTED while another call with it is in progress.
  absl::StatusOr<Attempt> Begin(const std::string& method, const std::string& request_id,
                                const google::protobuf::Message& request);

  // Remembers the answer of a call that commits no node; nothing without a request_id.
  absl::Status Remember(const Attempt& attempt, const google::protobuf::Message& answer);

  // A unary mutation that commits no node: returns the remembered answer, or runs `action` and remembers its response.
  absl::Status Run(const std::string& method, const std::string& request_id, const google::protobuf::Message& request,
                   google::protobuf::Message* response, absl::FunctionRef<absl::Status()> action);

 private:
  storage::Store* store_ = nullptr;
  std::string tenant_;
  absl::Mutex mutex_;
  std::set<std::pair<std::string, std::string>> in_progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_
