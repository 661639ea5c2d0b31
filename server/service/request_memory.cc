#include "server/service/request_memory.h"

#include <cctype>
#include <memory>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"

namespace quicksave::server {
namespace {

bool IsUuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  }
  return true;
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
  {
    absl::MutexLock lock(&mutex_);
    if (!in_progress_.insert({method, request_id}).second) {
      return absl::AbortedError(
          absl::StrCat("a call with request_id ", request_id, " is in progress; repeat this call when it has ended"));
    }
    attempt.memory_ = this;
    attempt.key_ = {method, request_id};
  }
  const absl::StatusOr<storage::RememberedRequest> remembered = store_->FindRequest(tenant_, method, request_id);
  if (absl::IsNotFound(remembered.status())) {
    attempt.request = storage::AnsweredRequest{
        .method = method, .request_id = request_id, .fingerprint = request.SerializeAsString()};
    return attempt;
  }
  if (!remembered.ok()) return remembered.status();
  const std::unique_ptr<google::protobuf::Message> first(request.New());
  if (!first->ParseFromString(remembered->fingerprint) ||
      !google::protobuf::util::MessageDifferencer::Equals(*first, request)) {
    return absl::InvalidArgumentError(absl::StrCat("request_id ", request_id, " was used for another ", method,
                                                   " request; make a new one for each request"));
  }
  attempt.answer = remembered->answer;
  return attempt;
}

absl::Status RequestMemory::Remember(const Attempt& attempt, const google::protobuf::Message& answer) {
  if (!attempt.request) return absl::OkStatus();
  const storage::AnsweredRequest& request = *attempt.request;
  return store_->RememberRequest(tenant_, request.method, request.request_id, request.fingerprint,
                                 answer.SerializeAsString());
}

absl::Status RequestMemory::Run(const std::string& method, const std::string& request_id,
                                const google::protobuf::Message& request, google::protobuf::Message* response,
                                absl::FunctionRef<absl::Status()> action) {
  absl::StatusOr<Attempt> attempt = Begin(method, request_id, request);
  if (!attempt.ok()) return attempt.status();
  if (attempt->answer) {
    return response->ParseFromString(*attempt->answer)
               ? absl::OkStatus()
               : absl::DataLossError(absl::StrCat("the remembered answer to request_id ", request_id, " is damaged"));
  }
  if (absl::Status status = action(); !status.ok()) return status;
  return Remember(*attempt, *response);
}

}  // namespace quicksave::server
