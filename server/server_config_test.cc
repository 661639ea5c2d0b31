#include "server/server_config.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/kernels/cuda/cuda_device.h"

namespace quicksave::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// With the two flags that are required, unless told otherwise.
CommandLine Parse(std::vector<const char*> arguments, bool with_required = true) {
  std::vector<const char*> argv = {"quicksave-server"};
  if (with_required) argv.insert(argv.end(), {"--model", "/models/a", "--data", "/data"});
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return ParseCommandLine(static_cast<int>(argv.size()), argv.data());
}

void ExpectRefused(const CommandLine& command, const std::string& what) {
  EXPECT_FALSE(command.config.has_value());
  EXPECT_EQ(command.exit_code, 2);
  EXPECT_THAT(command.output, HasSubstr(what));
  EXPECT_THAT(command.output, StartsWith("quicksave-server: "));
  EXPECT_EQ(command.output.find('\n'), command.output.size() - 1) << command.output;
}

// Sets an environment variable while it lives.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) { setenv(name, value, /*overwrite=*/1); }
  ~ScopedVariable() { unsetenv(name_); }

 private:
  const char* name_;
};

class ConfigFileTest : public testing::Test {
 protected:
  ConfigFileTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/config-XXXXXX");
    dir_ = mkdtemp(name.data());
  }
  ~ConfigFileTest() override { std::filesystem::remove_all(dir_); }
  std::string Write(const std::string& content) {
    std::string path = dir_ + "/server.toml";
    std::ofstream(path) << content;
    return path;
  }
  std::string dir_;
};

TEST(ServerConfigTest, DefaultsAreComplete) {
  const CommandLine command = Parse({});
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->model_dir, "/models/a");
  EXPECT_EQ(command.config->data_dir, "/data");
  EXPECT_EQ(command.config->listen, "127.0.0.1:50333");
  EXPECT_EQ(command.config->durability, storage::Durability::kSync);
  EXPECT_TRUE(command.config->calibrate);
  EXPECT_FALSE(command.config->log_json);
  EXPECT_GT(command.config->kv_memory_bytes, 0u);
  EXPECT_EQ(command.config->max_tap_bytes, uint64_t{1} << 30);
  EXPECT_GE(command.config->threads, 1);
  EXPECT_GE(command.config->workers, 1);
}

TEST(ServerConfigTest, ReadsEveryKindOfFlag) {
  const CommandLine command =
      Parse({"--listen", "[::]:0", "--kv-memory", "96MiB", "--threads=1", "--durability=process", "--max-lease", "90m",
             "--default-lease=30s", "--no-calibration", "--poison-kv", "--log-format", "json", "--log-level=debug",
             "--max-message-bytes", "1MiB", "--min-free-disk=0", "--drain-timeout", "1500ms"});
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->listen, "[::]:0");
  EXPECT_EQ(command.config->kv_memory_bytes, uint64_t{96} << 20);
  EXPECT_EQ(command.config->threads, 1);
  EXPECT_EQ(command.config->durability, storage::Durability::kProcess);
  EXPECT_EQ(command.config->max_lease, absl::Minutes(90));
  EXPECT_EQ(command.config->default_lease, absl::Seconds(30));
  EXPECT_FALSE(command.config->calibrate);
  EXPECT_TRUE(command.config->poison_kv);
  EXPECT_TRUE(command.config->log_json);
  EXPECT_EQ(command.config->log_level, "debug");
  EXPECT_EQ(command.config->max_message_bytes, uint64_t{1} << 20);
  EXPECT_EQ(command.config->min_free_disk_bytes, 0u);
  EXPECT_EQ(command.config->drain_timeout, absl::Milliseconds(1500));
}

TEST(ServerConfigTest, ReadsTheLimitsOfHiddenStates) {
  const CommandLine command = Parse({"--max-tap-bytes-per-session=32MiB", "--max-tap-bytes", "300MiB"});
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->max_tap_bytes_per_session, uint64_t{32} << 20);
  EXPECT_EQ(command.config->max_tap_bytes, uint64_t{300} << 20);
}

TEST(ServerConfigTest, RefusesWhatCannotBe) {
  ExpectRefused(Parse({}, /*with_required=*/false), "--model");
  ExpectRefused(Parse({"--no-such-flag"}), "no-such-flag");
  ExpectRefused(Parse({"stray"}), "stray");
  ExpectRefused(Parse({"--threads", "0"}), "--threads");
  ExpectRefused(Parse({"--threads", "two"}), "--threads");
  ExpectRefused(Parse({"--kv-memory", "lots"}), "--kv-memory");
  ExpectRefused(Parse({"--kv-memory", "1024TiB"}), "--kv-memory");
  ExpectRefused(Parse({"--kv-memory", "99999999999999999999"}), "--kv-memory");
  ExpectRefused(Parse({"--durability", "none"}), "--durability");
  ExpectRefused(Parse({"--weights", "int4"}), "--weights");
  ExpectRefused(Parse({"--max-lease", "soon"}), "--max-lease");
  ExpectRefused(Parse({"--max-lease", "-1s"}), "--max-lease");
  ExpectRefused(Parse({"--default-lease", "48h"}), "--default-lease");
  ExpectRefused(Parse({"--default-max-tokens", "5000"}), "--default-max-tokens");
  ExpectRefused(Parse({"--max-message-bytes", "3GiB"}), "--max-message-bytes");
  ExpectRefused(Parse({"--max-tap-bytes-per-session", "100"}), "--max-tap-bytes-per-session");
  ExpectRefused(Parse({"--max-tap-bytes-per-session", "2GiB"}), "--max-tap-bytes-per-session");
  ExpectRefused(Parse({"--max-tap-bytes", "255MiB"}), "--max-tap-bytes: is less than --max-tap-bytes-per-session");
  ExpectRefused(Parse({"--max-tap-bytes", "lots"}), "--max-tap-bytes");
  ExpectRefused(Parse({"--log-level", "loud"}), "--log-level");
  ExpectRefused(Parse({"--listen", "50333"}), "--listen");
  ExpectRefused(Parse({"--listen", "localhost:99999"}), "--listen");
  ExpectRefused(Parse({"--listen", "::1:0"}), "--listen");
  ExpectRefused(Parse({"--tls-cert", "a.pem"}), "--tls-key");
  ExpectRefused(Parse({"--tls-client-ca", "a.pem"}), "--tls-client-ca");
}

TEST(ServerConfigTest, TakesAGpuOrSaysWhichBuildCan) {
  const CommandLine command = Parse({"--device", "cuda"});
  if (engine::HasCuda()) {
    EXPECT_TRUE(command.config.has_value()) << command.output;
  } else {
    ExpectRefused(command, "scripts/build_cuda.sh");
  }
}

TEST(ServerConfigTest, HelpNamesEveryFlagAndItsVariable) {
  const CommandLine command = Parse({"--help"}, /*with_required=*/false);
  EXPECT_EQ(command.exit_code, 0);
  EXPECT_FALSE(command.config.has_value());
  for (const char* flag : {"--model",
                           "--weights",
                           "--data",
                           "--listen",
                           "--port-file",
                           "--kv-memory",
                           "--threads",
                           "--workers",
                           "--durability",
                           "--max-sessions",
                           "--default-lease",
                           "--max-lease",
                           "--max-tokens-per-call",
                           "--default-max-tokens",
                           "--max-message-bytes",
                           "--max-concurrent-streams",
                           "--max-queued-requests",
                           "--max-tap-bytes-per-session",
                           "--drain-timeout",
                           "--log-level",
                           "--log-format",
                           "--device",
                           "--tls-cert",
                           "--tls-key",
                           "--tls-client-ca",
                           "--min-free-disk",
                           "--poison-kv",
                           "--no-calibration",
                           "--config",
                           "--version"}) {
    EXPECT_THAT(command.output, HasSubstr(flag));
  }
  EXPECT_THAT(command.output, HasSubstr("QUICKSAVE_KV_MEMORY"));
}

TEST(ServerConfigTest, PrintsItsVersion) {
  const CommandLine command = Parse({"--version"}, /*with_required=*/false);
  EXPECT_EQ(command.exit_code, 0);
  EXPECT_THAT(command.output, StartsWith("quicksave-server "));
  EXPECT_THAT(command.output, EndsWith("\n"));
}

TEST(ServerConfigTest, ReadsTheEnvironment) {
  const ScopedVariable model("QUICKSAVE_MODEL", "/models/b");
  const ScopedVariable data("QUICKSAVE_DATA", "/data/b");
  const ScopedVariable memory("QUICKSAVE_KV_MEMORY", "32MiB");
  const ScopedVariable poison("QUICKSAVE_POISON_KV", "true");
  const ScopedVariable calibration("QUICKSAVE_NO_CALIBRATION", "1");
  const ScopedVariable empty("QUICKSAVE_THREADS", "");
  const CommandLine command = Parse({"--kv-memory=64MiB"}, /*with_required=*/false);
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->model_dir, "/models/b");
  EXPECT_EQ(command.config->data_dir, "/data/b");
  EXPECT_EQ(command.config->kv_memory_bytes, uint64_t{64} << 20) << "the flag beats the environment";
  EXPECT_TRUE(command.config->poison_kv);
  EXPECT_FALSE(command.config->calibrate);
}

TEST(ServerConfigTest, NamesTheFlagOfAWrongVariable) {
  const ScopedVariable memory("QUICKSAVE_KV_MEMORY", "plenty");
  ExpectRefused(Parse({}), "--kv-memory");
}

TEST_F(ConfigFileTest, ReadsAFile) {
  const std::string path = Write("model = \"/models/c\"\ndata = \"/data/c\"\nthreads = 1\nkv-memory = \"48MiB\"\n");
  const ScopedVariable data("QUICKSAVE_DATA", "/data/b");
  const CommandLine command = Parse({"--config", path.c_str()}, /*with_required=*/false);
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->model_dir, "/models/c");
  EXPECT_EQ(command.config->data_dir, "/data/b") << "the environment beats the file";
  EXPECT_EQ(command.config->kv_memory_bytes, uint64_t{48} << 20);
  EXPECT_EQ(command.config->threads, 1);
}

TEST_F(ConfigFileTest, TheFlagBeatsTheVariableThatNamesTheFile) {
  const std::string path = Write("model = \"/models/c\"\ndata = \"/data/c\"\n");
  const ScopedVariable file("QUICKSAVE_CONFIG", "/absent");
  const CommandLine command = Parse({"--config", path.c_str()}, /*with_required=*/false);
  ASSERT_TRUE(command.config.has_value()) << command.output;
  EXPECT_EQ(command.config->model_dir, "/models/c");
}

TEST_F(ConfigFileTest, RefusesUnknownKeysAndMissingFiles) {
  const std::string path = Write("kv-memroy = \"48MiB\"\n");
  ExpectRefused(Parse({"--config", path.c_str()}), "kv-memroy");
  ExpectRefused(Parse({"--config", (dir_ + "/absent").c_str()}), "absent");
}

}  // namespace
}  // namespace quicksave::server
