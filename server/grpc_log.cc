#include "server/grpc_log.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grpc/support/log.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

void Log(gpr_log_func_args* message) {
  const absl::string_view file(message->file);
  LogEvent(message->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug, message->message,
           {{"source", absl::StrCat("grpc ", file.substr(file.rfind('/') + 1), ":", message->line)}});
}

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(Log); }

}  // namespace quicksave::server
