#ifndef QUICKSAVE_SERVER_SERVICE_STATUS_MAPPING_H_
#define QUICKSAVE_SERVER_SERVICE_STATUS_MAPPING_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace quicksave::server {

// The one place where our errors become gRPC's. Each carries google.rpc.ErrorInfo {reason: the code's name or a finer
// one, domain: "quicksave", metadata}, and RESOURCE_EXHAUSTED and UNAVAILABLE also google.rpc.RetryInfo, in the
// status's details.
grpc::Status ToGrpc(const absl::Status& given);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_STATUS_MAPPING_H_
