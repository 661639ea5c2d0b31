// What the fixed order of summation costs: MatMul beside the same product with the order left free, on the shapes of
// SmolLM2's layers. Both read the same packed weights; the free one keeps one sum for each output, of even and odd
// inputs alike and over all groups, in as many registers as there are.
//
//   matmul_bench --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//
// One thread. Compare the rows of a shape; on a machine that does other work too, compare medians of several runs.
#include <algorithm>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/engine/kernels/cpu_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/matmul_bench.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = PackedMatrix::kPanel;
constexpr int kVectors = 2;
// Sums, two vectors of weights and an input fill the registers.
constexpr int kMaxRows = HWY_TARGET <= HWY_AVX3 ? 12 : 6;
constexpr int kPairsAhead = 64;

using Floats = hn::CappedTag<float, 16>;
using Pairs = hn::RebindToUnsigned<Floats>;

template <int kRows>
void FreeBlock(const float* x, int x_stride, const uint32_t* pairs, int inputs, float* y, int y_stride) {
  const Floats df;
  const Pairs du;
  const int lanes = static_cast<int>(hn::Lanes(df));
  for (int output = 0; output < kPanel; output += kVectors * lanes) {
    hn::Vec<Floats> sums[kRows][kVectors];
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(df);
    }
    for (int pair = 0; pair < inputs / 2; ++pair) {
      __builtin_prefetch(pairs + (pair + kPairsAhead) * kPanel, 0, 2);
      __builtin_prefetch(pairs + (pair + kPairsAhead) * kPanel + kPanel / 2, 0, 2);
      for (int odd = 0; odd < 2; ++odd) {
        hn::Vec<Floats> weights[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          const auto both = hn::LoadU(du, pairs + pair * kPanel + output + v * lanes);
          weights[v] = hn::BitCast(df, odd ? hn::And(both, hn::Set(du, 0xffff0000u)) : hn::ShiftLeft<16>(both));
        }
        HWY_UNROLL(16)
        for (int r = 0; r < kRows; ++r) {
          const auto input = hn::Set(df, x[r * x_stride + 2 * pair + odd]);
          for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(input, weights[v], sums[r][v]);
        }
      }
    }
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], df, y + r * y_stride + output + v * lanes);
    }
  }
}

template <int kRows = kMaxRows>
void FreeRows(const float* x, int x_stride, int rows, const uint32_t* pairs, int inputs, float* y, int y_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return FreeRows<kRows - 1>(x, x_stride, rows, pairs, inputs, y, y_stride);
  }
  FreeBlock<kRows>(x, x_stride, pairs, inputs, y, y_stride);
}

// Outputs are a multiple of the panel's.
void FreeMatMulImpl(const float* x, int x_stride, int rows, const PackedMatrix& w, float* y, int y_stride) {
  const int blocks = (rows + kMaxRows - 1) / kMaxRows;
  for (int panel = 0; panel < w.panels(); ++panel) {
    const auto* pairs = reinterpret_cast<const uint32_t*>(w.panel(panel));
    for (int block = 0; block < blocks; ++block) {
      const int begin = rows * block / blocks;
      const int count = rows * (block + 1) / blocks - begin;
      FreeRows(x + size_t(begin) * x_stride, x_stride, count, pairs, w.padded_inputs(),
               y + size_t(begin) * y_stride + size_t(panel) * kPanel, y_stride);
    }
  }
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::engine::cpu {
namespace {

HWY_EXPORT(FreeMatMulImpl);

// A layer's weights several times over, so that they come from memory as those of a whole model do.
struct Operands {
  Operands(int rows, int inputs, int outputs) : x(size_t(rows) * inputs), y(size_t(rows) * outputs) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> weights(size_t(outputs) * inputs);
    for (uint16_t& weight : weights) weight = Bf16Bits(normal(random));
    for (float& value : x) value = Bf16ToFloat(Bf16Bits(normal(random)));
    const size_t copies = (size_t{200} << 20) / (weights.size() * sizeof(uint16_t)) + 1;
    for (size_t i = 0; i < copies; ++i) layers.emplace_back(weights.data(), outputs, inputs);
  }
  const PackedMatrix& Next() { return layers[next++ % layers.size()]; }

  std::vector<float> x;
  std::vector<float> y;
  std::vector<PackedMatrix> layers;
  size_t next = 0;
};

void Report(benchmark::State& state) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * static_cast<double>(state.range(0) * state.range(1)) * static_cast<double>(state.range(2)),
      benchmark::Counter::kIsIterationInvariantRate);
}

void FixedOrder(benchmark::State& state) {
  const ScopedFlushDenormals flush;
  const int rows = static_cast<int>(state.range(0)), inputs = static_cast<int>(state.range(1)),
            outputs = static_cast<int>(state.range(2));
  Operands operands(rows, inputs, outputs);
  for (auto _ : state) {
    const PackedMatrix& w = operands.Next();
    MatMul(operands.x.data(), inputs, rows, w, 0, w.panels(), operands.y.data(), outputs);
    benchmark::DoNotOptimize(operands.y.data());
  }
  Report(state);
}

void FreeOrder(benchmark::State& state) {
  const ScopedFlushDenormals flush;
  const int rows = static_cast<int>(state.range(0)), inputs = static_cast<int>(state.range(1)),
            outputs = static_cast<int>(state.range(2));
  Operands operands(rows, inputs, outputs);
  for (auto _ : state) {
    const PackedMatrix& w = operands.Next();
    HWY_DYNAMIC_DISPATCH(FreeMatMulImpl)(operands.x.data(), inputs, rows, w, operands.y.data(), outputs);
    benchmark::DoNotOptimize(operands.y.data());
  }
  Report(state);
}

// Rows of decode (1 to 16) and prefill (128); gate and up, and down.
void Shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "inputs", "outputs"});
  for (const int rows : {1, 4, 8, 16, 128}) {
    benchmark->Args({rows, 576, 3072});
    benchmark->Args({rows, 1536, 576});
  }
}
BENCHMARK(FixedOrder)->Apply(Shapes);
BENCHMARK(FreeOrder)->Apply(Shapes);

}  // namespace
}  // namespace quicksave::engine::cpu

BENCHMARK_MAIN();
#endif
