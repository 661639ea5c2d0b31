// Calls by hand: any method of the server with a request in text format, also such as no client would send.

#ifndef QUICKSAVE_TESTS_INTEGRATION_WIRE_CALL_H_
#define QUICKSAVE_TESTS_INTEGRATION_WIRE_CALL_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace quicksave::integration {

// How a call is made.
struct WireOptions {
  absl::Duration deadline = absl::Minutes(1);
  // Cancel this long after the call has begun.
  absl::Duration cancel_after = absl::InfiniteDuration();
};

// How a call ended.
struct WireAnswer {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message;
  // Of google.rpc.ErrorInfo, empty when the error has none.
  std::string reason;
  std::string domain;
  std::map<std::string, std::string> metadata;
  // google.rpc.RetryInfo was there.
  bool has_retry_info = false;
  // Messages of the answer, in text format.
  std::vector<std::string> responses;
};

// Thread-safe.
class WireCaller {
 public:
  explicit WireCaller(const std::string& endpoint);
  ~WireCaller();

  // `method` is `Service/Method` of package quicksave.v1; `request` is text format of its request message.
  WireAnswer Call(const std::string& method, const std::string& request, const WireOptions& options = {}) const;
  // The same with the bytes of a request, which may be none.
  WireAnswer CallBytes(const std::string& method, const std::string& request, const WireOptions& options = {}) const;

  // All methods of package quicksave.v1, as `Service/Method`.
  static std::vector<std::string> Methods();

 private:
  struct Stub;

  std::unique_ptr<Stub> stub_;
};

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_WIRE_CALL_H_
