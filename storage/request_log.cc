#include "storage/request_log.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

constexpr uint64_t kForgottenAtOnce = 10000;

absl::Status Validate(const RequestName& name) {
  for (auto [kind, text] :
       {std::pair("tenant", name.tenant), std::pair("method", name.method), std::pair("request id", name.request_id)}) {
    if (absl::Status status = ValidateIdentifier(kind, text); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string NameOf(const RequestName& name) {
  return absl::StrCat("request ", name.request_id, " to ", name.method, " of tenant ", name.tenant);
}

std::string KeyOf(const RequestName& name) { return RequestKey(name.tenant, name.method, name.request_id); }

// Forgets the oldest, up to a number; returns how many.
absl::StatusOr<uint64_t> ForgetSome(absl::string_view end, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  Batch batch(state->database);
  uint64_t count = 0;
  const std::unique_ptr<Scan> scan = state->database->NewScan(Family::kRequestIds, kRequestTimePrefix);
  for (; scan->Valid() && scan->key() < end && count < kForgottenAtOnce; scan->Next(), ++count) {
    batch.Delete(Family::kRequestIds, scan->key());
    batch.Delete(Family::kRequestIds, scan->suffix().substr(kIndexTimeBytes));
  }
  if (!scan->status().ok()) return scan->status();
  if (count == 0) return count;
  if (absl::Status written = state->database->Write(&batch, Database::Room::kMakes); !written.ok()) return written;
  return count;
}

}  // namespace

absl::Status PutAnswer(const RequestName& name, absl::string_view fingerprint, absl::string_view answer,
                       int64_t time_us, Batch* batch) {
  if (fingerprint.size() + answer.size() > kMaxAnswerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(name), ": the answer has ", answer.size(), " bytes, the limit is ", kMaxAnswerBytes));
  }
  v1::RequestEntry entry;
  entry.set_fingerprint(fingerprint.data(), fingerprint.size());
  entry.set_answer(answer.data(), answer.size());
  entry.set_time_us(time_us);
  const std::string key = KeyOf(name);
  batch->PutMessage(Family::kRequestIds, key, entry);
  batch->PutKey(Family::kRequestIds, RequestTimeKey(time_us, key));
  return absl::OkStatus();
}

absl::StatusOr<RememberedRequest> FindRequest(const Database& database, const RequestName& name) {
  if (absl::Status status = Validate(name); !status.ok()) return status;
  v1::RequestEntry entry;
  absl::Status status = database.GetMessage(Family::kRequestIds, KeyOf(name), NameOf(name), &entry);
  if (!status.ok()) return status;
  return RememberedRequest{entry.fingerprint(), entry.answer(), absl::FromUnixMicros(entry.time_us())};
}

absl::Status RememberRequest(const RequestName& name, absl::string_view fingerprint, absl::string_view answer,
                             WriterState* state) {
  if (absl::Status status = Validate(name); !status.ok()) return status;
  absl::MutexLock lock(&state->mutex);
  absl::StatusOr<bool> answered = state->database->Has(Family::kRequestIds, KeyOf(name));
  if (!answered.ok()) return answered.status();
  if (*answered) return absl::AlreadyExistsError(absl::StrCat(NameOf(name), " was answered before"));
  Batch batch(state->database);
  absl::Status put = PutAnswer(name, fingerprint, answer, state->NextTimeUs(), &batch);
  if (!put.ok()) return put;
  return state->database->Write(&batch, Database::Room::kNeeds);
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
