#include "server/service/request_memory.h"

#include <cctype>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/util/message_differencer.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

// Of answers about sessions; the oldest go first.
constexpr size_t kMaxRecentBytes = size_t{16} << 20;

bool IsUuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  }
  return true;
}

absl::Status Parse(const std::string& answer, const std::string& request_id, google::protobuf::Message* response) {
  if (response->ParseFromString(answer)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the remembered answer to request_id ", request_id, " is damaged"));
}

}  // namespace

RequestMemory::Attempt::~Attempt() {
  if (memory_ == nullptr) return;
  absl::MutexLock lock(&memory_->mutex_);
  memory_->in_progress_.erase(key_);
}

absl::StatusOr<RequestMemory::Attempt> RequestMemory::Begin(const std::string& method, const std::string& request_id,
                                                            const google::protobuf::Message& request) {
  Attempt attempt;
  if (request_id.empty()) return attempt;
  if (!IsUuid(request_id)) {
    return absl::InvalidArgumentError("request_id is not a UUID, such as 123e4567-e89b-42d3-a456-426614174000");
  }
  const Key key(method, request_id);
  {
    absl::MutexLock lock(&mutex_);
    if (!in_progress_.insert(key).second) {
      return storage::WithReason("REQUEST_IN_PROGRESS", absl::AbortedError(absl::StrCat(
                                                            "a call with request_id ", request_id,
                                                            " is in progress; repeat this call when it has ended")));
    }
    attempt.memory_ = this;
    attempt.key_ = key;
  }
  absl::StatusOr<std::optional<storage::RememberedRequest>> remembered = Find(key);
  if (!remembered.ok()) return remembered.status();
  if (!remembered->has_value()) {
    attempt.request = storage::RequestIdentity{
        .method = method, .request_id = request_id, .fingerprint = request.SerializeAsString()};
    return attempt;
  }
  const std::unique_ptr<google::protobuf::Message> first(request.New());
  if (!first->ParseFromString((*remembered)->fingerprint) ||
      !google::protobuf::util::MessageDifferencer::Equals(*first, request)) {
    return storage::WithReason("REQUEST_ID_REUSED", absl::InvalidArgumentError(absl::StrCat(
                                                        "request_id ", request_id, " was used for another ", method,
                                                        " request; make a new one for each request")));
  }
  attempt.answer = std::move((*remembered)->answer);
  return attempt;
}

absl::StatusOr<std::optional<storage::RememberedRequest>> RequestMemory::Find(const Key& key) {
  {
    absl::MutexLock lock(&mutex_);
    if (const auto recent = recent_.find(key); recent != recent_.end()) return recent->second;
  }
  absl::StatusOr<storage::RememberedRequest> stored = store_->FindRequest(tenant_, key.first, key.second);
  if (absl::IsNotFound(stored.status())) return std::nullopt;
  if (!stored.ok()) return stored.status();
  return *std::move(stored);
}

void RequestMemory::Remember(const Key& key, storage::RememberedRequest&& answered) {
  const auto bytes = [](const storage::RememberedRequest& some) {
    return some.fingerprint.size() + some.answer.size();
  };
  absl::MutexLock lock(&mutex_);
  recent_bytes_ += bytes(answered);
  recent_.emplace(key, std::move(answered));
  recent_order_.push_back(key);
  while (recent_bytes_ > kMaxRecentBytes) {
    const auto oldest = recent_.find(recent_order_.front());
    recent_bytes_ -= bytes(oldest->second);
    recent_.erase(oldest);
    recent_order_.pop_front();
  }
}

absl::Status RequestMemory::RunOnNodes(
    const std::string& method, const std::string& request_id, const google::protobuf::Message& request,
    google::protobuf::Message* response,
    absl::FunctionRef<absl::Status(const std::optional<storage::RequestIdentity>&)> action) {
  absl::StatusOr<Attempt> attempt = Begin(method, request_id, request);
  if (!attempt.ok()) return attempt.status();
  if (attempt->answer) return Parse(*attempt->answer, request_id, response);
  return action(attempt->request);
}

absl::Status RequestMemory::RunOnSessions(const std::string& method, const std::string& request_id,
                                          const google::protobuf::Message& request, google::protobuf::Message* response,
                                          absl::FunctionRef<absl::Status()> action) {
  absl::StatusOr<Attempt> attempt = Begin(method, request_id, request);
  if (!attempt.ok()) return attempt.status();
  if (attempt->answer) return Parse(*attempt->answer, request_id, response);
  if (absl::Status status = action(); !status.ok()) return status;
  if (attempt->request) {
    Remember({method, request_id}, {attempt->request->fingerprint, response->SerializeAsString(), absl::Now()});
  }
  return absl::OkStatus();
}

}  // namespace quicksave::server
