// First answers to request ids.
#ifndef QUICKSAVE_STORAGE_REQUEST_LOG_H_
#define QUICKSAVE_STORAGE_REQUEST_LOG_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// ABORTED: the request was answered already. Everything is well without one.
absl::Status CheckUnanswered(const Database& database, absl::string_view tenant, const RequestIdentity* request);

// Adds the answer to a batch. INVALID_ARGUMENT: it is too big.
absl::Status PutAnswer(absl::string_view tenant, const RequestIdentity& request, absl::string_view answer,
                       int64_t time_us, Batch* batch);

// The same where there is a request.
template <class Outcome>
absl::Status PutAnswer(absl::string_view tenant, const std::optional<AnsweredRequest<Outcome>>& request,
                       const Outcome& outcome, int64_t time_us, Batch* batch) {
  if (!request) return absl::OkStatus();
  return PutAnswer(tenant, request->identity, request->answer(outcome), time_us, batch);
}

// As the methods of Store with these names.
absl::StatusOr<RememberedRequest> FindRequest(const Database& database, absl::string_view tenant,
                                              absl::string_view method, absl::string_view request_id);
absl::StatusOr<uint64_t> ForgetRequests(absl::Time time, WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_REQUEST_LOG_H_
