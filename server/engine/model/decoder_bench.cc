// Times forward passes of the real model without a server around them: decoding steps of a batch, prefill, and the
// part of a prefill that a split replay is.
//
//   decoder_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//
// QUICKSAVE_BENCH_THREADS sets the threads (default 2). The CPU's time is that of all threads. On a machine that does
// other work too, look at the minimum of either.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/engine/model/decoder.h"
#include "server/engine/sequence.h"
#include "server/engine/testing/decoder_feed.h"

namespace quicksave::engine {
namespace {

constexpr int kChunk = 128;

// The model and memory for its state, loaded once.
struct Engine {
  Engine() : threads(Threads()), decoder(Decoder::Load(QUICKSAVE_MODEL_DIR, &threads).value()) {
    pool = PagePool::Create({.shape = decoder->kv_shape(), .memory_bytes = size_t{2} << 30}).value();
  }
  static int Threads() {
    const char* threads = std::getenv("QUICKSAVE_BENCH_THREADS");
    return threads == nullptr ? 2 : std::atoi(threads);
  }
  static Engine& Get() {
    static Engine engine;
    return engine;
  }

  ThreadPool threads;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<PagePool> pool;
};

// Sequences that share no page, over random keys and values: what they hold does not change the time.
std::vector<Sequence> Sequences(int length, int count) {
  Engine& engine = Engine::Get();
  std::mt19937 random(1);
  std::vector<Sequence> sequences(count);
  for (Sequence& sequence : sequences) {
    const std::vector<int32_t> tokens(length, 7);
    AppendSlice(*engine.pool, sequence, tokens, LogitsWanted::kNone);
    for (const PageRef& page : sequence.pages()) {
      auto* bits = reinterpret_cast<uint16_t*>(page.data());
      for (size_t i = 0; i < page.size() / sizeof(uint16_t); i += 2) {
        // Numbers from 0.008 to 2, of either sign.
        const uint32_t two = random();
        bits[i] = static_cast<uint16_t>(0x3c00 + (two & 0x83ff));
        bits[i + 1] = static_cast<uint16_t>(0x3c00 + (two >> 16 & 0x83ff));
      }
    }
  }
  return sequences;
}

void Decode(benchmark::State& state) {
  const int batch = static_cast<int>(state.range(1));
  Engine& engine = Engine::Get();
  std::vector<Sequence> sequences = Sequences(static_cast<int>(state.range(0)), batch);
  const std::vector<int32_t> token = {7};
  for (auto _ : state) {
    state.PauseTiming();
    std::vector<FedSlice> fed;
    for (Sequence& sequence : sequences) fed.push_back(AppendSlice(*engine.pool, sequence, token, LogitsWanted::kLast));
    std::vector<Slice> slices;
    for (const FedSlice& part : fed) slices.push_back(part.slice);
    state.ResumeTiming();
    benchmark::DoNotOptimize(engine.decoder->Forward(slices).data());
  }
  state.SetItemsProcessed(state.iterations() * batch);
}

void Prefill(benchmark::State& state) {
  const int length = static_cast<int>(state.range(0));
  Engine& engine = Engine::Get();
  const std::vector<int32_t> tokens = RandomTokens(length, engine.decoder->config().vocab_size, 1);
  for (auto _ : state) {
    Sequence sequence;
    FeedTokens(*engine.decoder, *engine.pool, sequence, tokens, LogitsWanted::kNone, kChunk);
  }
  state.SetItemsProcessed(state.iterations() * length);
}

// Compare with Prefill of as many tokens.
void SplitReplay(benchmark::State& state) {
  const int length = static_cast<int>(state.range(0));
  const int split = static_cast<int>(state.range(1));
  Engine& engine = Engine::Get();
  const ModelConfig& config = engine.decoder->config();
  const std::vector<int32_t> tokens = RandomTokens(length, config.vocab_size, 1);
  for (auto _ : state) {
    Sequence sequence;
    Taps taps({.layers = {split}, .all_tokens = true}, config.hidden_size);
    for (int begin = 0; begin < length; begin += kChunk) {
      const auto part = absl::MakeConstSpan(tokens).subspan(begin, kChunk);
      FedSlice fed = AppendSlice(*engine.pool, sequence, part, LogitsWanted::kNone, &taps);
      fed.slice.split = split;
      engine.decoder->Forward({fed.slice});
    }
  }
  state.SetItemsProcessed(state.iterations() * length);
}

double Least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

BENCHMARK(Decode)
    ->ArgNames({"context", "batch"})
    ->ArgsProduct({{128, 512, 2000}, {1, 8, 16}})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->ComputeStatistics("min", Least);
BENCHMARK(Prefill)
    ->ArgNames({"tokens"})
    ->Arg(512)
    ->Arg(2000)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->ComputeStatistics("min", Least);
BENCHMARK(SplitReplay)
    ->ArgNames({"tokens", "split"})
    ->ArgsProduct({{512, 2000}, {0, 4, 7, 15}})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->ComputeStatistics("min", Least);

}  // namespace
}  // namespace quicksave::engine

BENCHMARK_MAIN();
