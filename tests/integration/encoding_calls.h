// Calls about encodings, as text in and messages out.

#ifndef QUICKSAVE_TESTS_INTEGRATION_ENCODING_CALLS_H_
#define QUICKSAVE_TESTS_INTEGRATION_ENCODING_CALLS_H_

#include <google/protobuf/text_format.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "quicksave/v1/admin_service.pb.h"
#include "quicksave/v1/graph_service.pb.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "tests/integration/wire_call.h"

namespace quicksave::integration {

// Thread-safe. Errors have the reason before the message, in brackets.
class EncodingCalls {
 public:
  explicit EncodingCalls(const std::string& endpoint) : wire_(endpoint) {}

  // `options` are other fields of the request, in text format; here and below.
  absl::StatusOr<v1::EncodeNodeResponse> Encode(const std::string& node, const std::string& options = "",
                                                const WireOptions& wire = {}) const {
    return Call<v1::EncodeNodeResponse>("GraphService/EncodeNode", Named(node, options), wire);
  }
  // Without a budget every setting will do, so there is an encoding.
  absl::StatusOr<v1::Encoding> EncodeAndDropSaved(const std::string& node, const std::string& encoding = "") const;
  absl::StatusOr<v1::Node> Drop(const std::string& node, const std::string& what) const;
  // Names an encoding in `field` of a DropEncodingRequest.
  static std::string NameIn(const std::string& field, const v1::Encoding& encoding);
  absl::StatusOr<v1::RestoreResponse> Restore(const std::string& node, const std::string& options = "") const {
    return Call<v1::RestoreResponse>("SnapshotService/Restore", absl::StrCat("node: '", node, "' ", options));
  }
  // With everything.
  absl::StatusOr<v1::Node> Get(const std::string& node) const;
  absl::StatusOr<v1::VerifyNodeResponse> Verify(const std::string& node, bool replay) const;

  template <class Response>
  absl::StatusOr<Response> Call(const std::string& method, const std::string& request,
                                const WireOptions& options = {}) const {
    const WireAnswer answer = wire_.Call(method, request, options);
    if (answer.code != absl::StatusCode::kOk) {
      return absl::Status(answer.code, absl::StrCat("[", answer.reason, "] ", answer.message));
    }
    Response response;
    if (answer.responses.size() != 1 ||
        !google::protobuf::TextFormat::ParseFromString(answer.responses[0], &response)) {
      return absl::InternalError(absl::StrCat("no answer to ", method));
    }
    return response;
  }

 private:
  static std::string Named(const std::string& node, const std::string& options) {
    return absl::StrCat("name: '", node, "' ", options);
  }

  WireCaller wire_;
};

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_ENCODING_CALLS_H_
