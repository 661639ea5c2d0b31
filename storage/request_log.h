// First answers to request ids.
#ifndef QUICKSAVE_STORAGE_REQUEST_LOG_H_
#define QUICKSAVE_STORAGE_REQUEST_LOG_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// Names a request.
struct RequestName {
  absl::string_view tenant;
  absl::string_view method;
  absl::string_view request_id;
};

// Adds the answer to a batch. INVALID_ARGUMENT: it is too big.
absl::Status PutAnswer(const RequestName& name, absl::string_view fingerprint, absl::string_view answer,
                       int64_t time_us, Batch* batch);

// As the methods of Store with these names.
absl::StatusOr<RememberedRequest> FindRequest(const Database& database, const RequestName& name);
absl::Status RememberRequest(const RequestName& name, absl::string_view fingerprint, absl::string_view answer,
                             WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);
absl::StatusOr<uint64_t> ForgetRequests(absl::Time time, WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_REQUEST_LOG_H_
