#include "storage/request_log.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

constexpr uint64_t kForgottenAtOnce = 10000;

std::string NameOf(absl::string_view tenant, absl::string_view method, absl::string_view request_id) {
  return absl::StrCat("request ", request_id, " to ", method, " of tenant ", tenant);
}

// Forgets the oldest, up to a number; returns how many.
absl::StatusOr<uint64_t> ForgetSome(absl::string_view end, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  Batch batch(state->database);
  uint64_t count = 0;
  std::unique_ptr<Scan> scan = state->database->NewScan(Family::kRequestIds, kRequestTimePrefix);
  for (; scan->Valid() && scan->key() < end && count < kForgottenAtOnce; scan->Next(), ++count) {
    batch.Delete(Family::kRequestIds, scan->key());
    batch.Delete(Family::kRequestIds, scan->suffix().substr(kIndexTimeBytes));
  }
  if (!scan->status().ok()) return scan->status();
  if (count == 0) return count;
  scan = nullptr;  // see Database::Write
  if (absl::Status written = state->database->Write(&batch, Database::Room::kMakes); !written.ok()) return written;
  return count;
}

}  // namespace

absl::Status CheckUnanswered(const Database& database, absl::string_view tenant, const RequestIdentity* request) {
  if (request == nullptr) return absl::OkStatus();
  const absl::StatusOr<RememberedRequest> answered =
      FindRequest(database, tenant, request->method, request->request_id);
  if (absl::IsNotFound(answered.status())) return absl::OkStatus();
  if (!answered.ok()) return answered.status();
  return absl::AbortedError(
      absl::StrCat(NameOf(tenant, request->method, request->request_id), " was answered meanwhile"));
}

absl::Status PutAnswer(absl::string_view tenant, const RequestIdentity& request, absl::string_view answer,
                       int64_t time_us, Batch* batch) {
  if (request.fingerprint.size() + answer.size() > kMaxAnswerBytes) {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(tenant, request.method, request.request_id),
                                                   ": the answer has ", answer.size(), " bytes, the limit is ",
                                                   kMaxAnswerBytes));
  }
  v1::RequestEntry entry;
  entry.set_fingerprint(request.fingerprint);
  entry.set_answer(answer.data(), answer.size());
  entry.set_time_us(time_us);
  const std::string key = RequestKey(tenant, request.method, request.request_id);
  batch->PutMessage(Family::kRequestIds, key, entry);
  batch->PutKey(Family::kRequestIds, RequestTimeKey(time_us, key));
  return absl::OkStatus();
}

absl::StatusOr<RememberedRequest> FindRequest(const Database& database, absl::string_view tenant,
                                              absl::string_view method, absl::string_view request_id) {
  for (auto [kind, text] :
       {std::pair("tenant", tenant), std::pair("method", method), std::pair("request id", request_id)}) {
    if (absl::Status status = ValidateIdentifier(kind, text); !status.ok()) return status;
  }
  v1::RequestEntry entry;
  absl::Status status = database.GetMessage(Family::kRequestIds, RequestKey(tenant, method, request_id),
                                            NameOf(tenant, method, request_id), &entry);
  if (!status.ok()) return status;
  return RememberedRequest{entry.fingerprint(), entry.answer(), absl::FromUnixMicros(entry.time_us())};
}

absl::StatusOr<uint64_t> ForgetRequests(absl::Time time, WriterState* state) {
  const std::string end = RequestTimeKey(absl::ToUnixMicros(time), "");
  uint64_t total = 0;
  for (;;) {
    absl::StatusOr<uint64_t> count = ForgetSome(end, state);
    if (!count.ok()) return count.status();
    total += *count;
    if (*count < kForgottenAtOnce) return total;
  }
}

}  // namespace quicksave::storage
