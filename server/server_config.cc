#include "server/server_config.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "server/engine/kernels/cuda/cuda_device.h"
#include "server/listen_address.h"
#include "server/machine_resources.h"

namespace quicksave::server {
namespace {

constexpr int kMost = 1'000'000;
// What one commit of the store takes.
constexpr uint64_t kMostTapBytes = uint64_t{1} << 30;
constexpr uint64_t kMostTapBytesOfAll = uint64_t{1} << 40;
constexpr uint64_t kMostMessageBytes = std::numeric_limits<int32_t>::max();

// Help with the default and the environment variable of each option below what it does.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(32); }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return "";
    return absl::StrCat(" ", option->get_type_name());
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    const std::string& initial = option->get_default_str();
    std::string description = option->get_description();
    if (option->get_envname().empty()) return description;
    return absl::StrCat(description, "\n[", option->get_required() ? "required, " : "",
                        initial.empty() ? "" : absl::StrCat("default ", initial, ", "), option->get_envname(), "]");
  }
};

// For people: "16MiB".
std::string FormatSize(uint64_t bytes) {
  for (const auto& [shift, unit] : {std::pair(30, "GiB"), std::pair(20, "MiB"), std::pair(10, "KiB")}) {
    if (bytes != 0 && bytes % (uint64_t{1} << shift) == 0) return absl::StrCat(bytes >> shift, unit);
  }
  return absl::StrCat(bytes);
}

// The options of one group, with what CLI11 has no type for.
class OptionGroup {
 public:
  OptionGroup(CLI::App& app, std::string group) : app_(app), group_(std::move(group)) {}

  template <class Value>
  CLI::Option* Add(const std::string& flag, Value& value, const std::string& help) {
    return Finish(app_.add_option(flag, value, help)->capture_default_str());
  }
  CLI::Option* AddFlag(const std::string& flag, bool& value, const std::string& help) {
    return Finish(app_.add_flag(flag, value, help));
  }
  void AddCount(const std::string& flag, int& value, const std::string& help) {
    Add(flag, value, help)->check(CLI::Range(1, kMost).description(""))->type_name("N");
  }
  CLI::Option* AddSize(const std::string& flag, uint64_t& value, const std::string& help) {
    return Add(flag, value, help)
        ->transform(CLI::AsSizeValue(false).description(""))
        ->default_str(FormatSize(value))
        ->type_name("SIZE");
  }
  void AddDuration(const std::string& flag, absl::Duration& value, const std::string& help) {
    const auto parse = [&value, flag](const std::string& text) {
      if (!absl::ParseDuration(text, &value) || value <= absl::ZeroDuration() || value > absl::Hours(24 * 3650)) {
        throw CLI::ValidationError(flag, absl::StrCat("'", text, "' is not a duration such as 90s, 10m or 24h"));
      }
    };
    const std::string initial = value == absl::InfiniteDuration() ? "never" : absl::FormatDuration(value);
    Finish(app_.add_option_function<std::string>(flag, parse, help)->default_str(initial))->type_name("DURATION");
  }

 private:
  // The last one counts, so that what was put before the arguments, from the environment, can be overruled.
  CLI::Option* Finish(CLI::Option* option) {
    return option->group(group_)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
        ->envname("QUICKSAVE_" + absl::AsciiStrToUpper(absl::StrReplaceAll(option->get_single_name(), {{"-", "_"}})));
  }

  CLI::App& app_;
  const std::string group_;
};

void AddModelOptions(CLI::App& app, ServerConfig& config) {
  OptionGroup group(app, "Model");
  group.Add("--model", config.model_dir, "Hugging Face directory of a model with safetensors")
      ->required()
      ->type_name("DIR");
  const std::map<std::string, engine::WeightFormat> formats = {{"bf16", engine::WeightFormat::kBf16},
                                                               {"int8", engine::WeightFormat::kInt8},
                                                               {"fp32", engine::WeightFormat::kFp32}};
  group
      .Add("--weights", config.weights,
           "How weights are held: bf16 (exactly those of checkpoints in\n"
           "bf16), int8 (half the memory, faster, a little less exact),\n"
           "fp32 (exactly those of any checkpoint, inputs not rounded:\n"
           "the reference). K and V are bf16 in all. A node can be\n"
           "restored only with the weights that it was saved with")
      ->transform(CLI::CheckedTransformer(formats).description(""))
      ->default_str("bf16")
      ->type_name("bf16|int8|fp32");
  group.Add("--device", config.device, "Where the model runs: cpu, or cuda (an NVIDIA GPU; the bits are\nthe same)")
      ->check(CLI::IsMember({"cpu", "cuda"}).description(""))
      ->type_name("cpu|cuda");
  group.AddSize("--kv-memory", config.kv_memory_bytes, "Memory for the KV cache")
      ->default_str("a quarter of the memory");
  group.AddDuration(
      "--kv-wait", config.kv_wait,
      "How long calls wait for KV memory that others use (idle\nsessions are parked in the store at once)");
  group.AddCount("--threads", config.threads, "Threads of the engine; one for each processor");
  group.AddCount("--workers", config.workers, "Threads for encoding and decoding");
  app.add_flag_callback(
         "--no-prefix-cache", [&config] { config.prefix_cache = false; },
         "Compute every prompt from its first token, whatever is known\nof its beginning")
      ->group("Model")
      ->envname("QUICKSAVE_NO_PREFIX_CACHE");
  group.AddFlag("--poison-kv", config.poison_kv, "Fill pages with NaN before use (for tests)");
}

void AddStoreOptions(CLI::App& app, ServerConfig& config) {
  OptionGroup group(app, "Store");
  group.Add("--data", config.data_dir, "Directory of the store; made if absent")->required()->type_name("DIR");
  const std::map<std::string, storage::Durability> durabilities = {{"sync", storage::Durability::kSync},
                                                                   {"process", storage::Durability::kProcess}};
  group
      .Add("--durability", config.durability,
           "What an acknowledged save survives: sync (loss of power),\nprocess (death of this process only)")
      ->transform(CLI::CheckedTransformer(durabilities).description(""))
      ->default_str("sync")
      ->type_name("sync|process");
  group.AddSize("--min-free-disk", config.min_free_disk_bytes, "Refuse saves when the disk has less free space");
  app.add_flag_callback(
         "--no-calibration", [&config] { config.calibrate = false; },
         "Do not calibrate the exact codec when the store has no profile\nof it for this model")
      ->group("Store")
      ->envname("QUICKSAVE_NO_CALIBRATION");
}

void AddEncodingOptions(CLI::App& app, ServerConfig& config) {
  // Several may be given, so the last one does not count alone.
  app.add_option("--profile", config.profiles,
                 "Latent profiles that quicksave-calibrate wrote, loaded at start\nand kept in the store for good")
      ->group("Encoding")
      ->envname("QUICKSAVE_PROFILE")
      ->delimiter(',')
      ->type_name("FILE");
  OptionGroup group(app, "Encoding");
  group.AddDuration("--encode-after", config.encoding.after,
                    "Encode nodes as latents that were saved so long ago, the oldest\n"
                    "first, but for those labelled quicksave.encode=never");
  group.AddSize("--encode-above", config.encoding.above_bytes,
                "Do so only while the store's blocks take more than this");
  group.Add("--encode-split", config.encoding.split, "Layers that a restore recomputes: a profile with it is needed")
      ->check(CLI::Range(0, kMost).description(""))
      ->type_name("N");
  group
      .Add("--encode-point", config.encoding.point,
           "Point of the profile; without it the coarsest setting that\nkeeps to --encode-max-kl is looked for")
      ->type_name("POINT");
  app.add_option("--encode-max-kl", config.encoding.max_kl,
                 "Leave nodes as they are whose encoding diverges more than\nthis, in nats")
      ->group("Encoding")
      ->envname("QUICKSAVE_ENCODE_MAX_KL")
      ->check(CLI::Validator(CLI::NonNegativeNumber).description(""))
      ->type_name("KL");
  const std::map<std::string, EncodingPolicy::Keep> keeps = {{"saved", EncodingPolicy::Keep::kSaved},
                                                             {"residual", EncodingPolicy::Keep::kResidual},
                                                             {"nothing", EncodingPolicy::Keep::kNothing}};
  group
      .Add("--encode-keep", config.encoding.keep,
           "What stays of the bits that were saved: saved (all of it),\n"
           "residual (the bits, in less space), nothing")
      ->transform(CLI::CheckedTransformer(keeps).description(""))
      ->default_str("saved")
      ->type_name("saved|residual|nothing");
}

void AddNetworkOptions(CLI::App& app, ServerConfig& config) {
  OptionGroup group(app, "Network");
  group.Add("--listen", config.listen, "Address and port; port 0 takes a free one")->type_name("HOST:PORT");
  group.Add("--port-file", config.port_file, "Write the port to this file as soon as it is open")->type_name("FILE");
  group.Add("--tls-cert", config.tls_cert, "Certificate chain (PEM); with --tls-key")->type_name("FILE");
  group.Add("--tls-key", config.tls_key, "Private key (PEM); with --tls-cert")->type_name("FILE");
  group.Add("--tls-client-ca", config.tls_client_ca, "Ask clients for certificates of these authorities (PEM)")
      ->type_name("FILE");
  group.AddDuration("--drain-timeout", config.drain_timeout, "After SIGTERM, time for running calls to end");
}

void AddLimitOptions(CLI::App& app, ServerConfig& config) {
  OptionGroup group(app, "Limits");
  group.AddCount("--max-sessions", config.max_sessions, "Most live sessions");
  group.AddDuration("--default-lease", config.default_lease, "Lease of a session when none is asked for");
  group.AddDuration("--max-lease", config.max_lease, "Longest lease");
  group.AddCount("--max-tokens-per-call", config.max_tokens_per_call, "Most tokens that one Generate may ask for");
  group.AddCount("--default-max-tokens", config.default_max_tokens, "Most tokens of a Generate that does not say");
  group.AddSize("--max-message-bytes", config.max_message_bytes, "Most bytes of a request")
      ->check(CLI::Range(uint64_t{1024}, kMostMessageBytes).description(""));
  group.AddCount("--max-concurrent-streams", config.max_concurrent_streams, "Most calls at once on one connection");
  group.AddCount("--max-queued-requests", config.max_queued_requests, "Most calls that compute or wait for it");
  group
      .AddSize("--max-tap-bytes-per-session", config.max_tap_bytes_per_session,
               "Most bytes of hidden states that one session may hold")
      ->check(CLI::Range(uint64_t{1024}, kMostTapBytes).description(""));
  group.AddSize("--max-tap-bytes", config.max_tap_bytes, "Most bytes of hidden states that all sessions may hold")
      ->check(CLI::Range(uint64_t{1024}, kMostTapBytesOfAll).description(""));
}

void AddLogOptions(CLI::App& app, ServerConfig& config) {
  OptionGroup group(app, "Log (to stderr)");
  group.Add("--log-level", config.log_level, "Least severity")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}).description(""))
      ->type_name("trace|debug|info|warn|error");
  const std::map<std::string, bool> formats = {{"text", false}, {"json", true}};
  group.Add("--log-format", config.log_json, "One line for each event, as text or as JSON")
      ->transform(CLI::CheckedTransformer(formats).description(""))
      ->default_str("text")
      ->type_name("text|json");
}

// What no single option can check; empty when all is well.
std::string FindContradiction(const ServerConfig& config) {
  if (config.device == "cuda" && !engine::HasCuda()) {
    return "--device: this build cannot run on GPUs; scripts/build_cuda.sh makes one that can, --device cpu runs here";
  }
  if (absl::Status status = ParseListenAddress(config.listen).status(); !status.ok()) {
    return absl::StrCat("--listen: ", status.message());
  }
  if (const uint64_t limit = MemoryLimit(); config.kv_memory_bytes > limit) {
    return absl::StrFormat("--kv-memory: %d MiB is more than the %d MiB that this process may use",
                           config.kv_memory_bytes >> 20, limit >> 20);
  }
  if (config.default_lease > config.max_lease) return "--default-lease: is longer than --max-lease";
  if (config.default_max_tokens > config.max_tokens_per_call) {
    return "--default-max-tokens: is more than --max-tokens-per-call";
  }
  if (config.max_tap_bytes < config.max_tap_bytes_per_session) {
    return "--max-tap-bytes: is less than --max-tap-bytes-per-session";
  }
  if (config.tls_cert.empty() != config.tls_key.empty()) return "--tls-cert: goes with --tls-key";
  if (!config.tls_client_ca.empty() && config.tls_cert.empty())
    return "--tls-client-ca: needs --tls-cert and --tls-key";
  return "";
}

// Arguments that say what the environment does, for the front of the command line.
std::vector<std::string> ArgumentsFromEnvironment(const CLI::App& app) {
  std::vector<std::string> arguments;
  for (const CLI::Option* option : app.get_options()) {
    const char* value = option->get_envname().empty() ? nullptr : std::getenv(option->get_envname().c_str());
    if (value == nullptr || *value == '\0') continue;
    arguments.push_back(absl::StrCat("--", option->get_single_name(), "=", value));
  }
  return arguments;
}

void SetUp(CLI::App& app, ServerConfig& config) {
  app.name("quicksave-server");
  app.description("quicksave-server: save states for a language model, over gRPC.");
  app.set_version_flag("--version", "quicksave-server " QUICKSAVE_VERSION, "Print the version and exit");
  app.set_help_flag("--help,-h", "Print this help and exit");
  app.set_config("--config", "", "Read flags from this file: NAME=VALUE lines (TOML), without the dashes")
      ->type_name("FILE")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->envname("QUICKSAVE_CONFIG");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.footer("A flag beats the environment, which beats the file. SIZE: 512MiB, 4GiB. DURATION: 90s, 10m, 24h.");
  app.formatter(std::make_shared<HelpFormatter>());
  AddModelOptions(app, config);
  AddStoreOptions(app, config);
  AddEncodingOptions(app, config);
  AddNetworkOptions(app, config);
  AddLimitOptions(app, config);
  AddLogOptions(app, config);
}

std::string OneLine(absl::string_view text) {
  return absl::StrCat("quicksave-server: ", absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\n", " "}}), "\n");
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv) {
  ServerConfig config;
  const int processors = ProcessorLimit();
  config.threads = processors;
  config.workers = processors;
  config.kv_memory_bytes = MemoryLimit() / 4;
  CLI::App app;
  SetUp(app, config);
  std::vector<std::string> arguments = ArgumentsFromEnvironment(app);
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  // CLI11 takes them from the back.
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    return {.output = app.help()};
  } catch (const CLI::CallForVersion& version) {
    return {.output = absl::StrCat(version.what(), "\n")};
  } catch (const CLI::Error& error) {
    return {.output = OneLine(error.what()), .exit_code = 2};
  }
  if (const std::string contradiction = FindContradiction(config); !contradiction.empty()) {
    return {.output = OneLine(contradiction), .exit_code = 2};
  }
  return {.config = std::move(config)};
}

}  // namespace quicksave::server
