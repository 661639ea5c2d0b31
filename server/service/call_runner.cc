#include "server/service/call_runner.h"

#include "spdlog/spdlog.h"

namespace quicksave::server {

void CallRunner::Log(const char* method, const absl::Status& status, absl::Time start) {
  const double milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  const std::string code = absl::StatusCodeToString(status.code());
  if (absl::IsInternal(status) || absl::IsDataLoss(status)) {
    spdlog::error("call method={} code={} ms={:.1f} error=\"{}\"", method, code, milliseconds, status.message());
  } else {
    spdlog::info("call method={} code={} ms={:.1f}", method, code, milliseconds);
  }
}

}  // namespace quicksave::server
