// The real server as a child process of a test: started on a free port, waited for, killed, started again.

#ifndef QUICKSAVE_TESTS_INTEGRATION_SERVER_PROCESS_H_
#define QUICKSAVE_TESTS_INTEGRATION_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quicksave/client.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {

// How a process ended: by itself with `exit_code`, or by `signal`.
struct ProcessEnd {
  std::optional<int> exit_code;
  int signal = 0;
};

// What a server is started with. The data directory outlives the server, so that another one can open it.
struct ServerOptions {
  std::string data_dir;
  // Default: the model of the tests.
  std::string model_dir;
  // More flags. Unless they say otherwise: no calibration of the codec, poisoned KV pages, 256 sessions, no cache of
  // prefixes, and one thread for the engine, so that tests that share the machine do not wait for each other's threads.
  std::vector<std::string> flags;
};

// A running server and a client of it. It is killed when this goes out of scope; when the test has failed by then, the
// end of its log is printed. Start from the main thread: the server dies with the thread that started it.
class ServerProcess {
 public:
  // Starts a server and waits until it is ready. Fails when it ends first, or is not ready in time; the message has
  // the end of its log.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const ServerOptions& options);
  // Starts a server that does not become ready but ends, and returns how. `log` gets all that it wrote.
  static absl::StatusOr<ProcessEnd> RunToEnd(const ServerOptions& options, std::string* log);

  // Starts a server and does not wait for it; it has no client.
  explicit ServerProcess(const ServerOptions& options);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // A client that does not retry, so that every error is seen.
  const client::Client& client() const { return *client_; }
  // `host:port`.
  const std::string& endpoint() const { return endpoint_; }
  pid_t pid() const { return pid_; }
  // All that the server wrote so far.
  std::string Log() const;
  // Resident memory in bytes; 0 when the process is gone.
  int64_t ResidentBytes() const;

  // Sends a signal.
  void Signal(int signal) const;
  // Waits for the end. DEADLINE_EXCEEDED when it does not come within `timeout`.
  absl::StatusOr<ProcessEnd> WaitForEnd(absl::Duration timeout = absl::Seconds(60));
  // Sends SIGKILL and waits.
  void Kill();

 private:
  void Spawn();
  absl::Status WaitUntilReady();
  // Returns how the process ended, nothing while it runs.
  std::optional<ProcessEnd> CheckEnd();
  absl::Status ReadEndpoint();

  const ServerOptions options_;
  TemporaryDirectory directory_;  // of log and port file
  std::string endpoint_;
  pid_t pid_ = 0;
  std::optional<ProcessEnd> end_;
  std::optional<client::Client> client_;
};

// The model that tests run: environment variable QUICKSAVE_MODEL_DIR, or the one that the build was configured with.
std::string ModelDirectory();

// Returns a client of the server at `endpoint` that does not retry.
client::Client ConnectTo(const std::string& endpoint);

// Asks again every few milliseconds until `condition` holds; returns whether it did within `timeout`.
template <class Condition>
bool Eventually(Condition condition, absl::Duration timeout = absl::Seconds(30));

}  // namespace quicksave::integration

#include "absl/time/clock.h"

namespace quicksave::integration {

template <class Condition>
bool Eventually(Condition condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_SERVER_PROCESS_H_
