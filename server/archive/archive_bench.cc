// Speed of saving and restoring 2,000 tokens of SmolLM2's shape, by stage. The K and V are made up (random walks), so
// the ratio says nothing about real state. Usage: archive_bench [folder of the store, default: the system's temporary
// one] [worker threads, default: all]

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "server/archive/archive.h"

namespace quicksave::server {
namespace {

constexpr int kTokens = 2000;
constexpr int kVocab = 49152;
constexpr engine::KvShape kShape{.layers = 30, .kv_heads = 3, .head_dim = 64};

SessionState MakeState(engine::PagePool& pool) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  SessionState state;
  std::vector<int32_t> tokens(kTokens);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kVocab);
  engine::PageReservation reservation = pool.Reserve(engine::PagesFor(kTokens)).value();
  state.sequence.Append(tokens, reservation);
  for (const engine::PageRef& page : state.sequence.pages()) {
    auto* bits = reinterpret_cast<uint16_t*>(page.data());
    for (size_t i = 0; i < page.size() / sizeof(uint16_t); ++i) bits[i] = engine::cpu::Bf16Bits(normal(random));
  }
  state.sequence.set_next_logits(std::make_shared<engine::Logits>(kVocab, 0.5F));
  return state;
}

void Print(const char* stage, absl::Duration time, int64_t bytes) {
  const double seconds = absl::ToDoubleSeconds(time);
  absl::PrintF("  %-8s %8.1f ms %8.0f MB/s\n", stage, seconds * 1e3, static_cast<double>(bytes) / seconds / 1e6);
}

// CPU time of the process, of all threads; unlike the others it means something on a busy machine.
absl::Duration CpuTime() { return absl::Seconds(static_cast<double>(std::clock()) / CLOCKS_PER_SEC); }

int Run(const std::filesystem::path& folder, int threads) {
  auto pool = engine::PagePool::Create({.shape = kShape, .memory_bytes = size_t{512} << 20}).value();
  storage::StoreOptions options;
  options.path = folder;
  auto store = storage::Store::Open(options).value();
  compressor::CodecRegistry codecs;
  WorkerPool workers(threads - 1);
  auto archive = Archive::Create({.store = store.get(),
                                  .codecs = &codecs,
                                  .pool = pool.get(),
                                  .workers = &workers,
                                  .model = {.fingerprint = "bench", .numerics = "none", .vocab_size = kVocab}})
                     .value();
  SessionState state = MakeState(*pool);
  if (absl::Status status = archive->Calibrate({state.sequence}); !status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  const auto raw = static_cast<int64_t>(kShape.page_bytes() / engine::cpu::kPageTokens) * kTokens;
  absl::PrintF("%d tokens, %.1f MB of K and V, %d threads; times of stages are summed over threads\n", kTokens,
               static_cast<double>(raw) / 1e6, threads);
  for (int round = 0; round < 3; ++round) {
    // Another tenant each time, so that every block is new.
    const std::string tenant = absl::StrFormat("round-%d", round);
    absl::Duration cpu = -CpuTime();
    absl::StatusOr<SavedNode> saved = archive->Save({.state = state, .tenant = tenant});
    if (!saved.ok()) {
      std::cerr << saved.status() << "\n";
      return 1;
    }
    cpu += CpuTime();
    absl::PrintF("save: %d bytes written, ratio %.3f\n", saved->report.written_bytes,
                 static_cast<double>(raw) / static_cast<double>(saved->report.written_bytes));
    Print("gather", saved->report.gather, raw);
    Print("encode", saved->report.encode, raw);
    Print("commit", saved->report.commit, raw);
    Print("total", saved->report.total, raw);
    Print("cpu", cpu, raw);
    cpu = -CpuTime();
    absl::StatusOr<RestoredState> restored = archive->Restore(tenant, saved->record.node_id(), {});
    if (!restored.ok()) {
      std::cerr << restored.status() << "\n";
      return 1;
    }
    cpu += CpuTime();
    absl::PrintF("restore: %d bytes read\n", restored->report.bytes_read);
    Print("read", restored->report.read, raw);
    Print("decode", restored->report.decode, raw);
    Print("load", restored->report.load, raw);
    Print("total", restored->report.total, raw);
    Print("cpu", cpu, raw);
  }
  return 0;
}

}  // namespace
}  // namespace quicksave::server

int main(int argc, char** argv) {
  std::string name = (std::filesystem::path(argc > 1 ? argv[1] : std::filesystem::temp_directory_path().c_str()) /
                      "archive-bench-XXXXXX")
                         .string();
  if (mkdtemp(name.data()) == nullptr) {
    std::cerr << "cannot make " << name << "\n";
    return 1;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : static_cast<int>(std::thread::hardware_concurrency());
  const int result = quicksave::server::Run(std::filesystem::path(name) / "store", std::max(1, threads));
  std::filesystem::remove_all(name);
  return result;
}
