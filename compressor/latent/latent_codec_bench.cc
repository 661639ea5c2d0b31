// Speed and ratio, on one core, of the latent codecs beside exact, zstd, lz4 and memcpy:
//
//   latent_codec_bench [--benchmark_filter=REGEX] [--benchmark_min_time=SECONDS]
//
// Blocks have SmolLM2-135M's shape and 128 tokens; they are drawn from the profile's own distribution
// (test_profile.h), so that speeds are as with real blocks and ratios are those of the steps below, chosen to give the
// latent about 10. Speeds are of raw bytes by processor time. Containers are what is encoded and decoded, as the
// archive does: checksums and the block's id are part of the time.

#include <benchmark/benchmark.h>
#include <zstd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/latent/test_profile.h"
#ifdef QUICKSAVE_HAVE_LZ4
#include <lz4.h>
#endif

namespace quicksave::compressor {
namespace {

constexpr int kTokens = 128;
constexpr int kZstdLevel = 3;

// One kind of profile, a block of it, and its codecs.
struct Subject {
  Subject(const TestProfileOptions& options, float chosen_step)
      : source(options), block(source.Draw(kTokens, 17)), step(chosen_step) {
    if (!registry.Register(NewLatentCodec(source.profile())).ok() ||
        !registry.Register(NewResidualCodec(source.profile())).ok() || !RegisterBuiltinCodecs(registry).ok()) {
      std::abort();
    }
    base = block.Prefilled(*source.profile());
    const std::string latent = *EncodeBlock(registry, kLatentCodec, block.view(), block.Context(step));
    if (!DecodeBlock(registry, latent, block.Context(step), {block.shape, absl::MakeSpan(base)}).ok()) std::abort();
  }

  BlockContext Context() const {
    BlockContext context = block.Context(step);
    context.base = base;
    return context;
  }

  const TestSource source;
  const TestBlock block;
  const float step;
  CodecRegistry registry;
  std::vector<uint16_t> base;  // what the latent decodes to
};

// Groups of five layers with a basis each, predicted from hidden states.
const Subject& WithBasis() {
  static const auto& subject = *new Subject({.group_layers = {5, 5, 5, 5, 5, 4},
                                             .kv_heads = 3,
                                             .head_dim = 64,
                                             .features = 576,
                                             .dropped = 0,
                                             .refined = 64,
                                             .calibration_blocks = 2},
                                            0.4f);
  return subject;
}
// Channels for components, without prediction.
const Subject& Diagonal() {
  static const auto& subject = *new Subject({.group_layers = {5, 5, 5, 5, 5, 4},
                                             .kv_heads = 3,
                                             .head_dim = 64,
                                             .features = 0,
                                             .first_diagonal_group = 0,
                                             .calibration_blocks = 2},
                                            0.25f);
  return subject;
}

void Report(const Subject& subject, size_t encoded_bytes, benchmark::State& state) {
  const auto raw = static_cast<int64_t>(subject.block.shape.bytes());
  state.SetBytesProcessed(state.iterations() * raw);
  state.counters["ratio"] = static_cast<double>(raw) / static_cast<double>(encoded_bytes);
}

void Encode(benchmark::State& state, const Subject& (*subject_of)(), const char* codec) {
  const Subject& subject = subject_of();
  size_t size = 0;
  for (auto _ : state) size = EncodeBlock(subject.registry, codec, subject.block.view(), subject.Context())->size();
  Report(subject, size, state);
}

void Decode(benchmark::State& state, const Subject& (*subject_of)(), const char* codec) {
  const Subject& subject = subject_of();
  const std::string bytes = *EncodeBlock(subject.registry, codec, subject.block.view(), subject.Context());
  std::vector<uint16_t> values = subject.block.Prefilled(*subject.source.profile());
  const MutableBlockView out{subject.block.shape, absl::MakeSpan(values)};
  for (auto _ : state) {
    if (!DecodeBlock(subject.registry, bytes, subject.Context(), out).ok()) state.SkipWithError("not decoded");
  }
  Report(subject, bytes.size(), state);
}

BENCHMARK_CAPTURE(Encode, latent_basis, WithBasis, kLatentCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Decode, latent_basis, WithBasis, kLatentCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, latent_diagonal, Diagonal, kLatentCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Decode, latent_diagonal, Diagonal, kLatentCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, residual_basis, WithBasis, kResidualCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Decode, residual_basis, WithBasis, kResidualCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, residual_diagonal, Diagonal, kResidualCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Decode, residual_diagonal, Diagonal, kResidualCodec)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, exact, WithBasis, "exact")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Decode, exact, WithBasis, "exact")->Unit(benchmark::kMillisecond);

std::string ZstdOf(const Subject& subject) {
  std::string out(ZSTD_compressBound(subject.block.shape.bytes()), '\0');
  out.resize(
      ZSTD_compress(out.data(), out.size(), subject.block.values.data(), subject.block.shape.bytes(), kZstdLevel));
  return out;
}

void EncodeZstd(benchmark::State& state) {
  const Subject& subject = WithBasis();
  size_t size = 0;
  for (auto _ : state) size = ZstdOf(subject).size();
  Report(subject, size, state);
}
BENCHMARK(EncodeZstd)->Unit(benchmark::kMillisecond);

void DecodeZstd(benchmark::State& state) {
  const Subject& subject = WithBasis();
  const std::string bytes = ZstdOf(subject);
  std::vector<uint16_t> values(subject.block.shape.values());
  for (auto _ : state) ZSTD_decompress(values.data(), subject.block.shape.bytes(), bytes.data(), bytes.size());
  Report(subject, bytes.size(), state);
}
BENCHMARK(DecodeZstd)->Unit(benchmark::kMillisecond);

#ifdef QUICKSAVE_HAVE_LZ4
std::string Lz4Of(const Subject& subject) {
  const int raw = static_cast<int>(subject.block.shape.bytes());
  std::string out(LZ4_compressBound(raw), '\0');
  const auto* from = reinterpret_cast<const char*>(subject.block.values.data());
  out.resize(LZ4_compress_default(from, out.data(), raw, static_cast<int>(out.size())));
  return out;
}

void EncodeLz4(benchmark::State& state) {
  const Subject& subject = WithBasis();
  size_t size = 0;
  for (auto _ : state) size = Lz4Of(subject).size();
  Report(subject, size, state);
}
BENCHMARK(EncodeLz4)->Unit(benchmark::kMillisecond);

void DecodeLz4(benchmark::State& state) {
  const Subject& subject = WithBasis();
  const std::string bytes = Lz4Of(subject);
  std::vector<uint16_t> values(subject.block.shape.values());
  auto* const to = reinterpret_cast<char*>(values.data());
  for (auto _ : state) {
    LZ4_decompress_safe(bytes.data(), to, static_cast<int>(bytes.size()), static_cast<int>(values.size() * 2));
  }
  Report(subject, bytes.size(), state);
}
BENCHMARK(DecodeLz4)->Unit(benchmark::kMillisecond);
#endif

void Memcpy(benchmark::State& state) {
  const Subject& subject = WithBasis();
  std::vector<uint16_t> copy(subject.block.shape.values());
  for (auto _ : state) {
    std::memcpy(copy.data(), subject.block.values.data(), subject.block.shape.bytes());
    benchmark::ClobberMemory();
  }
  Report(subject, subject.block.shape.bytes(), state);
}
BENCHMARK(Memcpy)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace quicksave::compressor

BENCHMARK_MAIN();
