#include "server/core_loader.h"

#include <atomic>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "compressor/latent/latent_codec.h"
#include "server/engine/kernels/cpu_device.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/cuda/cuda_device.h"
#include "server/engine/model/device_check.h"
#include "server/engine/model/fingerprint.h"
#include "server/engine/model/model_config.h"
#include "server/scheduler/evaluate_job.h"
#include "server/service/admin_handlers.h"
#include "server/sidecar/calibrate_exact.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

// Threads that carry calls; nearly all of their time they wait.
constexpr int kCallers = 16;
constexpr int kWaiters = 128;
// Ended sessions that are kept for prompts which begin like them, while nobody needs their memory.
constexpr int kMaxEnded = 256;
// Threads that compute what constraints allow. A slow grammar keeps one of them busy for a second at most.
constexpr int kConstraintWorkers = 2;

// Loads the parts of a Core in the order in which they need each other.
class CoreLoader {
 public:
  CoreLoader(const ServerConfig& config, absl::FunctionRef<bool()> stopped)
      : config_(config), stopped_(stopped), core_(std::make_unique<Core>()) {}

  absl::StatusOr<std::unique_ptr<Core>> Run() {
    core_->version = QUICKSAVE_VERSION;
    core_->start_time = absl::Now();
    core_->durability = config_.durability;
    core_->prefix_cache = config_.prefix_cache;
    core_->limits = {.max_tokens_per_call = config_.max_tokens_per_call,
                     .default_max_tokens = config_.default_max_tokens,
                     .max_message_bytes = static_cast<int64_t>(config_.max_message_bytes),
                     .max_queued_requests = config_.max_queued_requests,
                     .max_tap_bytes_per_session = static_cast<int64_t>(config_.max_tap_bytes_per_session),
                     .max_tap_bytes = static_cast<int64_t>(config_.max_tap_bytes)};
    for (const auto step : {&CoreLoader::CheckModel, &CoreLoader::FindDevice, &CoreLoader::OpenStore,
                            &CoreLoader::LoadModel, &CoreLoader::StartEngine, &CoreLoader::OpenArchive,
                            &CoreLoader::LoadProfiles, &CoreLoader::WarmUp, &CoreLoader::Calibrate}) {
      if (stopped_()) return absl::CancelledError("stopped while starting");
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    return std::move(core_);
  }

 private:
  // Before a store is made for a model that cannot be run.
  absl::Status CheckModel() { return engine::LoadModelConfig(config_.model_dir).status(); }

  // Before a store is made, too.
  absl::Status FindDevice() {
    core_->engine_threads = std::make_unique<engine::ThreadPool>(config_.threads);
    if (config_.device != "cuda") {
      device_ = std::make_unique<engine::CpuDevice>(core_->engine_threads.get());
      return absl::OkStatus();
    }
    absl::StatusOr<std::unique_ptr<engine::Device>> device = engine::MakeCudaDevice();
    if (!device.ok()) return device.status();
    device_ = *std::move(device);
    return absl::OkStatus();
  }

  absl::Status OpenStore() {
    absl::StatusOr<std::unique_ptr<storage::Store>> store =
        storage::Store::Open({.path = config_.data_dir,
                              .durability = config_.durability,
                              .min_free_disk_bytes = config_.min_free_disk_bytes});
    if (!store.ok()) return store.status();
    core_->store = *std::move(store);
    core_->requests.Attach(core_->store.get(), Core::kTenant);
    const absl::StatusOr<storage::StoreStats> stats = core_->store->Stats();
    if (!stats.ok()) return stats.status();
    LogEvent(spdlog::level::info, "store opened",
             {{"path", config_.data_dir},
              {"nodes", static_cast<int64_t>(stats->nodes)},
              {"block_bytes", static_cast<int64_t>(stats->block_stored_bytes)},
              {"free_disk_bytes", static_cast<int64_t>(stats->disk_free_bytes)}});
    return absl::OkStatus();
  }

  absl::Status LoadModel() {
    // Hashing the weights takes about as long as packing them.
    std::future<absl::StatusOr<std::string>> fingerprint = std::async(std::launch::async, [this] {
      return engine::ModelFingerprint(config_.model_dir, engine::NumericsVersion(config_.weights));
    });
    absl::StatusOr<std::unique_ptr<engine::Decoder>> decoder =
        engine::Decoder::Load(config_.model_dir, std::move(device_), core_->engine_threads.get(), config_.weights);
    if (!decoder.ok()) return decoder.status();
    core_->decoder = *std::move(decoder);
    if (config_.device != "cpu") {
      absl::Status same = engine::CheckDevice(*core_->decoder, core_->engine_threads.get());
      if (!same.ok()) return same;
    }
    if (absl::Status status = LoadText(); !status.ok()) return status;
    absl::StatusOr<std::string> hash = fingerprint.get();
    if (!hash.ok()) return hash.status();
    const engine::ModelConfig& model = core_->decoder->config();
    core_->identity = {.fingerprint = *std::move(hash),
                       .numerics = engine::NumericsVersion(config_.weights),
                       .vocab_size = model.vocab_size,
                       .hidden_size = model.hidden_size};
    LogEvent(spdlog::level::info, "model loaded",
             {{"name", model.name},
              {"fingerprint", core_->identity.fingerprint},
              {"numerics", core_->identity.numerics},
              {"weights", engine::WeightFormatName(config_.weights)},
              {"weight_bytes", static_cast<int64_t>(core_->decoder->weight_bytes())},
              {"device", core_->decoder->device().name()},
              {"threads", int64_t{config_.threads}}});
    return absl::OkStatus();
  }

  absl::Status LoadText() {
    absl::StatusOr<std::unique_ptr<text::Tokenizer>> tokenizer = text::Tokenizer::Load(config_.model_dir);
    if (!tokenizer.ok()) return tokenizer.status();
    core_->tokenizer = *std::move(tokenizer);
    if (core_->tokenizer->vocab_size() > core_->decoder->config().vocab_size) {
      return absl::FailedPreconditionError(absl::StrCat("the tokenizer of ", config_.model_dir, " has ",
                                                        core_->tokenizer->vocab_size(), " tokens, the model only ",
                                                        core_->decoder->config().vocab_size));
    }
    absl::StatusOr<std::unique_ptr<text::ChatTemplate>> chat_template = text::ChatTemplate::Load(config_.model_dir);
    if (!chat_template.ok()) return chat_template.status();
    core_->chat_template = *std::move(chat_template);
    return absl::OkStatus();
  }

  absl::Status StartEngine() {
    absl::StatusOr<std::unique_ptr<engine::PagePool>> pool =
        engine::PagePool::Create({.shape = core_->decoder->kv_shape(),
                                  .memory_bytes = config_.kv_memory_bytes,
                                  .poison = config_.poison_kv,
                                  .memory = &core_->decoder->device().memory()});
    if (!pool.ok()) return pool.status();
    core_->pool = *std::move(pool);
    core_->broker = std::make_unique<PageBroker>(core_->pool.get(), config_.kv_wait);
    Core* const core = core_.get();
    // A starving job asks at every step; one parking at a time is under way.
    const auto make_room = [core, parking = std::make_shared<std::atomic<bool>>(false)] {
      if (parking->exchange(true)) return;
      core->callers->Schedule([core, parking] {
        core->sessions->MakeRoom();
        parking->store(false);
      });
    };
    core_->scheduler = std::make_unique<Scheduler>(
        Scheduler::Options{.max_jobs = config_.max_queued_requests, .on_starvation = make_room}, core_->decoder.get(),
        core_->pool.get());
    LogEvent(spdlog::level::info, "engine started",
             {{"kv_memory_bytes", static_cast<int64_t>(config_.kv_memory_bytes)},
              {"kv_pages", int64_t{core_->pool->total_pages()}},
              {"kv_tokens", int64_t{core_->pool->total_pages()} * engine::cpu::kPageTokens}});
    return absl::OkStatus();
  }

  absl::Status OpenArchive() {
    core_->workers = std::make_unique<WorkerPool>(config_.workers);
    core_->constraint_workers = std::make_unique<WorkerPool>(kConstraintWorkers);
    core_->callers = std::make_unique<WorkerPool>(kCallers);
    core_->waiters = std::make_unique<WorkerPool>(kWaiters);
    core_->codecs = std::make_unique<compressor::CodecRegistry>();
    core_->angles = std::make_unique<const RopeAngles>(core_->decoder->config());
    const double parity = core_->decoder->config().attention_parity();
    absl::StatusOr<std::unique_ptr<Archive>> archive = Archive::Create({.store = core_->store.get(),
                                                                        .codecs = core_->codecs.get(),
                                                                        .pool = core_->pool.get(),
                                                                        .workers = core_->workers.get(),
                                                                        .model = core_->identity,
                                                                        .angles = core_->angles.get(),
                                                                        .attention_parity = parity});
    if (!archive.ok()) return archive.status();
    core_->archive = *std::move(archive);
    core_->parking_lot = std::make_unique<ParkingLot>(core_->archive.get(), core_->store.get());
    if (absl::Status status = core_->parking_lot->Clear(); !status.ok()) return status;
    core_->sessions =
        std::make_unique<SessionTable>(SessionTable::Options{.max_sessions = config_.max_sessions,
                                                             .default_lease = config_.default_lease,
                                                             .max_lease = config_.max_lease,
                                                             .max_ended = config_.prefix_cache ? kMaxEnded : 0},
                                       core_->scheduler.get(), core_->broker.get(), core_->parking_lot.get());
    core_->broker->set_make_room([sessions = core_->sessions.get()](int) { return sessions->MakeRoom(); });
    return absl::OkStatus();
  }

  absl::Status LoadProfiles() {
    for (const std::string& path : config_.profiles) {
      const absl::StatusOr<std::string> id = LoadProfileFile(*core_->archive, path);
      if (!id.ok()) return id.status();
    }
    for (const LatentProfileEntry* entry : core_->archive->latents().All()) {
      LogEvent(spdlog::level::info, "latent profile",
               {{"id", entry->id},
                {"codec", std::string(entry->latent->name())},
                {"split", int64_t{entry->profile->split}},
                {"bytes", entry->size_bytes}});
    }
    if (config_.encoding.after < absl::InfiniteDuration() &&
        core_->archive->latents().ForSplit(compressor::kLatentCodec, config_.encoding.split) == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("--encode-after needs a latent profile with split ", config_.encoding.split,
                       ": make one with quicksave-calibrate and give it as --profile"));
    }
    return absl::OkStatus();
  }

  // Touches all weights and makes the engine's buffers.
  absl::Status WarmUp() {
    const auto job =
        std::make_shared<EvaluateJob>(engine::Sequence(), std::vector<int32_t>(engine::cpu::kPageTokens, 0),
                                      engine::LogitsWanted::kLast, [](size_t, absl::Span<const float>) {});
    return core_->scheduler->Run(job, job->count());
  }

  absl::Status Calibrate() {
    if (core_->archive->has_profile()) return absl::OkStatus();
    if (!config_.calibrate) {
      LogEvent(spdlog::level::info, "the exact codec goes without calibration", {});
      return absl::OkStatus();
    }
    return CalibrateExact(*core_, stopped_);
  }

  const ServerConfig& config_;
  const absl::FunctionRef<bool()> stopped_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<engine::Device> device_;  // until the decoder has it
};

}  // namespace

absl::StatusOr<std::unique_ptr<Core>> LoadCore(const ServerConfig& config, absl::FunctionRef<bool()> stopped) {
  return CoreLoader(config, stopped).Run();
}

}  // namespace quicksave::server
