#ifndef QUICKSAVE_SERVER_SERVER_CONFIG_H_
#define QUICKSAVE_SERVER_SERVER_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/encoding_keeper.h"
#include "server/engine/model/weight_format.h"
#include "storage/store.h"

namespace quicksave::server {

// What a server is started with. Every field is a flag, an environment variable and a key of the configuration file;
// ParseCommandLine says what they mean in its help.
struct ServerConfig {
  std::string model_dir;
  std::string data_dir;
  std::string device = "cpu";
  engine::WeightFormat weights = engine::WeightFormat::kBf16;

  std::string listen = "127.0.0.1:50333";
  std::string port_file;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;

  uint64_t kv_memory_bytes = 0;
  absl::Duration kv_wait = absl::Seconds(30);
  int threads = 0;
  int workers = 0;
  bool poison_kv = false;
  bool prefix_cache = true;
  bool calibrate = true;
  std::vector<std::string> profiles;  // files
  EncodingPolicy encoding;

  storage::Durability durability = storage::Durability::kSync;
  uint64_t min_free_disk_bytes = uint64_t{256} << 20;

  int max_sessions = 1024;
  absl::Duration default_lease = absl::Minutes(10);
  absl::Duration max_lease = absl::Hours(24);
  int max_tokens_per_call = 4096;
  int default_max_tokens = 256;
  uint64_t max_message_bytes = uint64_t{16} << 20;
  int max_concurrent_streams = 256;
  int max_queued_requests = 256;
  uint64_t max_tap_bytes_per_session = uint64_t{256} << 20;
  uint64_t max_tap_bytes = uint64_t{1} << 30;
  absl::Duration drain_timeout = absl::Seconds(25);

  std::string log_level = "info";
  bool log_json = false;
};

// What a command line asks for: to run a server, or to print something and exit.
struct CommandLine {
  std::optional<ServerConfig> config;  // empty: print and exit
  std::string output;                  // help, version (exit code 0) or one line that says what is wrong
  int exit_code = 0;                   // 2 when the command line is wrong
};

// Reads flags, environment variables (QUICKSAVE_*) and the file named by --config, and checks all of them as far as is
// possible without opening anything. A flag beats the environment, which beats the configuration file.
CommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVER_CONFIG_H_
