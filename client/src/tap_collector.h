// Puts the messages of a ReadTaps together.

#ifndef QUICKSAVE_CLIENT_SRC_TAP_COLLECTOR_H_
#define QUICKSAVE_CLIENT_SRC_TAP_COLLECTOR_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quicksave/requests.h"
#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::client {

// Of one attempt of one call.
class TapCollector {
 public:
  // Takes the next message. False when it does not fit those before; status() then says why.
  bool Add(const v1::ReadTapsResponse& response);
  absl::Status status() const { return status_; }

  // Everything, when the stream has ended. DATA_LOSS when something is missing.
  absl::StatusOr<HiddenStates> Finish() &&;

 private:
  absl::Status AddHeader(const v1::TapHeader& header);
  absl::Status AddChunk(const v1::TapChunk& chunk);

  HiddenStates states_;
  bool has_header_ = false;
  int64_t total_bytes_ = 0;
  int64_t received_bytes_ = 0;
  absl::Status status_;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_TAP_COLLECTOR_H_
