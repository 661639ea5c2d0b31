// quicksave-server: flags to a configuration, and a server that runs until a signal.

#include <malloc.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "server/grpc_log.h"
#include "server/server.h"
#include "server/server_config.h"
#include "server/stop_signal.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

// Buffers that each step or block takes and gives back stay with the process instead of being mapped, and faulted in,
// anew each time.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

// Returns the exit code.
int Run(const ServerConfig& config) {
  KeepFreedMemory();
  SetUpLogging({.level = config.log_level, .json = config.log_json});
  RouteGrpcLog();
  std::signal(SIGPIPE, SIG_IGN);
  StopSignal stop;
  Server server(config);
  absl::Status status = server.Listen();
  if (status.ok()) status = server.Load([&stop] { return stop.requested(); });
  if (status.ok()) stop.Wait();
  if (!status.ok() && !stop.requested()) {
    LogEvent(spdlog::level::err, "cannot start",
             {{"error", std::string(status.message())}, {"code", absl::StatusCodeToString(status.code())}});
    return 1;
  }
  server.Stop();
  return 0;
}

}  // namespace
}  // namespace quicksave::server

int main(int argc, char** argv) {
  const quicksave::server::CommandLine command = quicksave::server::ParseCommandLine(argc, argv);
  if (command.config) return quicksave::server::Run(*command.config);
  std::fputs(command.output.c_str(), command.exit_code == 0 ? stdout : stderr);
  return command.exit_code;
}
