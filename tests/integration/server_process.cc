#include "tests/integration/server_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace quicksave::integration {
namespace {

// Generous: a start may share the machine with a whole build.
constexpr absl::Duration kStartTimeout = absl::Minutes(2);
constexpr size_t kLogTail = 4000;
// "" says that the process lives, a service that it takes calls.
constexpr char kReadyService[] = "quicksave.v1.SnapshotService";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Tail(const std::string& text) { return text.substr(text.size() - std::min(text.size(), kLogTail)); }

bool HasFlag(const std::vector<std::string>& flags, const std::string& flag) {
  return std::any_of(flags.begin(), flags.end(), [&](const std::string& each) { return absl::StartsWith(each, flag); });
}

std::string ServerBinary() {
  const char* binary = std::getenv("QUICKSAVE_SERVER_BINARY");
  return binary != nullptr ? binary : QUICKSAVE_SERVER_BINARY;
}

std::vector<std::string> CommandLine(const ServerOptions& options, const std::string& port_file) {
  std::vector<std::string> arguments = {ServerBinary(), "--listen=127.0.0.1:0", "--port-file=" + port_file,
                                        "--data=" + options.data_dir, "--model=" + options.model_dir};
  for (const char* flag :
       {"--no-calibration", "--poison-kv", "--max-sessions=256", "--threads=1", "--no-prefix-cache"}) {
    const std::string name = std::string(flag).substr(0, std::string(flag).find('='));
    if (!HasFlag(options.flags, name)) arguments.emplace_back(flag);
  }
  // A flag that a test wants away is written `!--flag`.
  for (const std::string& flag : options.flags) {
    if (!absl::StartsWith(flag, "!")) {
      arguments.push_back(flag);
      continue;
    }
    arguments.erase(std::remove(arguments.begin(), arguments.end(), flag.substr(1)), arguments.end());
  }
  return arguments;
}

// In the child: becomes the server, with stdout and stderr in `log`. Only async-signal-safe calls.
[[noreturn]] void Become(char* const* arguments, const char* log) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int file = ::open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(file, STDOUT_FILENO);
  ::dup2(file, STDERR_FILENO);
  ::execv(arguments[0], arguments);
  ::_exit(127);
}

ServerOptions WithDefaults(ServerOptions options) {
  if (options.model_dir.empty()) options.model_dir = ModelDirectory();
  return options;
}

}  // namespace

ServerProcess::ServerProcess(const ServerOptions& options) : options_(WithDefaults(options)) { Spawn(); }

void ServerProcess::Spawn() {
  std::vector<std::string> arguments = CommandLine(options_, directory_ / "port");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const std::string log = directory_ / "log";
  pid_ = ::fork();
  if (pid_ == 0) Become(pointers.data(), log.c_str());
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const ServerOptions& options) {
  auto server = std::make_unique<ServerProcess>(options);
  if (absl::Status ready = server->WaitUntilReady(); !ready.ok()) {
    return absl::Status(ready.code(), absl::StrCat(ready.message(), "; the end of its log:\n", Tail(server->Log())));
  }
  return server;
}

absl::StatusOr<ProcessEnd> ServerProcess::RunToEnd(const ServerOptions& options, std::string* log) {
  auto server = std::make_unique<ServerProcess>(options);
  absl::StatusOr<ProcessEnd> end = server->WaitForEnd(kStartTimeout);
  *log = server->Log();
  return end;
}

ServerProcess::~ServerProcess() {
  Kill();
  if (::testing::Test::HasFailure()) std::cerr << "Log of the server:\n" << Tail(Log()) << "\n";
}

absl::Status ServerProcess::ReadEndpoint() {
  const std::string port = ReadFile(directory_ / "port");
  if (!absl::EndsWith(port, "\n")) return absl::UnavailableError("no port yet");
  endpoint_ = absl::StrCat("127.0.0.1:", port.substr(0, port.size() - 1));
  client_.emplace(ConnectTo(endpoint_));
  return absl::OkStatus();
}

absl::Status ServerProcess::WaitUntilReady() {
  const auto ready = [this] {
    if (CheckEnd()) return true;
    if (!client_ && !ReadEndpoint().ok()) return false;
    const absl::StatusOr<client::Health> health = client_->CheckHealth(kReadyService, {.timeout = absl::Seconds(1)});
    return health.ok() && *health == client::Health::kServing;
  };
  if (!Eventually(ready, kStartTimeout)) return absl::DeadlineExceededError("the server did not become ready");
  if (end_) return absl::InternalError("the server ended before it was ready");
  return absl::OkStatus();
}

std::string ServerProcess::Log() const { return ReadFile(directory_ / "log"); }

int64_t ServerProcess::ResidentBytes() const {
  for (absl::string_view line : absl::StrSplit(ReadFile(absl::StrCat("/proc/", pid_, "/status")), '\n')) {
    if (absl::ConsumePrefix(&line, "VmRSS:")) return std::atoll(std::string(line).c_str()) * 1024;
  }
  return 0;
}

void ServerProcess::Signal(int signal) const {
  if (!end_) ::kill(pid_, signal);
}

std::optional<ProcessEnd> ServerProcess::CheckEnd() {
  int status = 0;
  if (!end_ && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    end_.emplace();
    if (WIFEXITED(status)) end_->exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) end_->signal = WTERMSIG(status);
  }
  return end_;
}

absl::StatusOr<ProcessEnd> ServerProcess::WaitForEnd(absl::Duration timeout) {
  if (!Eventually([this] { return CheckEnd().has_value(); }, timeout)) {
    return absl::DeadlineExceededError("the server did not end");
  }
  return *end_;
}

void ServerProcess::Kill() {
  Signal(SIGKILL);
  while (!CheckEnd()) absl::SleepFor(absl::Milliseconds(1));
}

std::string ModelDirectory() {
  const char* directory = std::getenv("QUICKSAVE_MODEL_DIR");
  return directory != nullptr ? directory : QUICKSAVE_TEST_MODEL_DIR;
}

client::Client ConnectTo(const std::string& endpoint) {
  client::ClientOptions options;
  options.endpoint = endpoint;
  options.timeout = absl::Minutes(2);
  options.retry.max_attempts = 1;
  return client::Client::Connect(options).value();
}

}  // namespace quicksave::integration
