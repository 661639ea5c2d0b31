#ifndef QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_
#define QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/message.h"
#include "storage/store.h"

namespace quicksave::server {

// Makes mutations repeatable: a request_id that was answered gets the first answer again. Answers about nodes are
// stored with the change itself, and so survive a restart; answers about sessions are kept in memory, and die with the
// sessions. Thread-safe.
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
    // What to give to the store with the change. Absent without a request_id.
    std::optional<storage::RequestIdentity> request;

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

  // A unary change of nodes: returns the remembered answer, or runs `action`, which must give the request to the store
  // with the change.
  absl::Status RunOnNodes(const std::string& method, const std::string& request_id,
                          const google::protobuf::Message& request, google::protobuf::Message* response,
                          absl::FunctionRef<absl::Status(const std::optional<storage::RequestIdentity>&)> action);

  // A unary change of sessions: returns the remembered answer, or runs `action` and remembers its response.
  absl::Status RunOnSessions(const std::string& method, const std::string& request_id,
                             const google::protobuf::Message& request, google::protobuf::Message* response,
                             absl::FunctionRef<absl::Status()> action);

 private:
  using Key = std::pair<std::string, std::string>;  // Method, request id.

  // A remembered answer; nothing if there is none.
  absl::StatusOr<std::optional<storage::RememberedRequest>> Find(const Key& key);
  void Remember(const Key& key, storage::RememberedRequest&& answered);

  storage::Store* store_ = nullptr;
  std::string tenant_;
  absl::Mutex mutex_;
  absl::flat_hash_set<Key> in_progress_ ABSL_GUARDED_BY(mutex_);
  // Answers about sessions, and their keys from the oldest on.
  absl::flat_hash_map<Key, storage::RememberedRequest> recent_ ABSL_GUARDED_BY(mutex_);
  std::deque<Key> recent_order_ ABSL_GUARDED_BY(mutex_);
  size_t recent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_REQUEST_MEMORY_H_
