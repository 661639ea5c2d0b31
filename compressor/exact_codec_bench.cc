// Ratio and speed, on one core, of the exact codec beside zstd and memcpy, on real K and V:
//
//   exact_codec_bench CALIBRATION_FILE TEST_FILE [LAYERS KV_HEADS HEAD_DIM [TOKENS]]
//
// The files hold blocks in canonical layout (block.h), one after the other, of TOKENS tokens each (128 if not given).
// Dimensions default to SmolLM2-135M's. Speeds are of raw bytes by processor time, the median of some passes: of whole
// containers, whose checksums and block's id are made and checked.

#include <time.h>
#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"

namespace quicksave::compressor {
namespace {

constexpr int kPasses = 5;
constexpr int kZstdLevel = 3;

struct Blocks {
  BlockShape shape;
  std::vector<std::vector<uint16_t>> values;

  BlockView view(size_t i) const { return {shape, values[i]}; }
  size_t bytes() const { return values.size() * shape.bytes(); }
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

Blocks ReadBlocks(const std::string& path, const BlockShape& shape) {
  Blocks blocks{.shape = shape};
  std::ifstream file(path, std::ios::binary);
  std::vector<uint16_t> values(shape.values());
  while (file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(shape.bytes()))) {
    blocks.values.push_back(values);
  }
  if (blocks.values.empty()) {
    std::fprintf(stderr, "%s: no block of %s\n", path.c_str(), shape.DebugString().c_str());
    std::exit(1);
  }
  return blocks;
}

// The first `tokens` tokens of each block.
Blocks Shorten(const Blocks& blocks, int tokens) {
  Blocks shorter{.shape = blocks.shape};
  shorter.shape.tokens = tokens;
  const auto from = static_cast<size_t>(blocks.shape.tokens);
  const auto to = static_cast<size_t>(tokens);
  for (const auto& values : blocks.values) {
    std::vector<uint16_t> head;
    for (size_t c = 0; c < blocks.shape.channels(); ++c) {
      head.insert(head.end(), values.data() + c * from, values.data() + c * from + to);
    }
    shorter.values.push_back(std::move(head));
  }
  return shorter;
}

// Processor time of this thread, so that other programs disturb less.
double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Megabytes per second of the median pass over all blocks.
double Speed(const Blocks& blocks, const std::function<void(size_t)>& work) {
  std::vector<double> speeds;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double start = CpuSeconds();
    for (size_t i = 0; i < blocks.values.size(); ++i) work(i);
    speeds.push_back(static_cast<double>(blocks.bytes()) / 1e6 / (CpuSeconds() - start));
  }
  std::nth_element(speeds.begin(), speeds.begin() + kPasses / 2, speeds.end());
  return speeds[kPasses / 2];
}

size_t TotalSize(const std::vector<std::string>& encoded) {
  size_t total = 0;
  for (const std::string& bytes : encoded) total += bytes.size();
  return total;
}

void Print(const char* name, const Blocks& blocks, size_t bytes, double encode, double decode) {
  std::printf("%-26s %4d tokens  ratio %.4f  encode %6.0f MB/s  decode %6.0f MB/s\n", name, blocks.shape.tokens,
              static_cast<double>(blocks.bytes()) / static_cast<double>(bytes), encode, decode);
}

void BenchExact(const char* name, const CodecRegistry& registry, const Blocks& blocks) {
  std::vector<std::string> encoded(blocks.values.size());
  std::vector<uint16_t> decoded(blocks.shape.values());
  const double encode = Speed(blocks, [&](size_t i) {
    auto bytes = EncodeBlock(registry, "exact", blocks.view(i), {});
    Check(bytes.status());
    encoded[i] = *std::move(bytes);
  });
  const auto decode_one = [&](size_t i) {
    Check(DecodeBlock(registry, encoded[i], {}, {blocks.shape, absl::MakeSpan(decoded)}));
  };
  const double decode = Speed(blocks, decode_one);
  for (size_t i = 0; i < encoded.size(); ++i) {
    decode_one(i);
    if (decoded != blocks.values[i]) std::abort();
  }
  Print(name, blocks, TotalSize(encoded), encode, decode);
}

void BenchZstd(const Blocks& blocks) {
  std::vector<std::string> encoded(blocks.values.size());
  std::vector<uint16_t> decoded(blocks.shape.values());
  const double encode = Speed(blocks, [&](size_t i) {
    encoded[i].resize(ZSTD_compressBound(blocks.shape.bytes()));
    encoded[i].resize(
        ZSTD_compress(encoded[i].data(), encoded[i].size(), blocks.values[i].data(), blocks.shape.bytes(), kZstdLevel));
  });
  const double decode = Speed(blocks, [&](size_t i) {
    ZSTD_decompress(decoded.data(), blocks.shape.bytes(), encoded[i].data(), encoded[i].size());
  });
  Print("zstd-3", blocks, TotalSize(encoded), encode, decode);
}

void BenchCopyAndHash(const Blocks& blocks) {
  std::vector<uint16_t> copy(blocks.shape.values());
  const double memcpy_speed =
      Speed(blocks, [&](size_t i) { std::memcpy(copy.data(), blocks.values[i].data(), blocks.shape.bytes()); });
  Print("memcpy", blocks, blocks.bytes(), memcpy_speed, memcpy_speed);
  uint64_t sink = 0;
  const double hash = Speed(blocks, [&](size_t i) { sink += ComputeBlockId(blocks.view(i)).low; });
  Print(sink == 0 ? "BlockId (0)" : "BlockId", blocks, blocks.bytes(), hash, hash);
}

int Run(const Blocks& calibration, const Blocks& test) {
  ExactProfileBuilder builder("benchmark");
  const double start = CpuSeconds();
  for (size_t i = 0; i < calibration.values.size(); ++i) Check(builder.AddBlock(calibration.view(i)));
  auto profile = builder.Build();
  Check(profile.status());
  std::printf("profile from %lld tokens: %zu bytes, %.1f s\n", static_cast<long long>(builder.tokens()),
              profile->Serialize().size(), CpuSeconds() - start);
  CodecRegistry generic;
  CodecRegistry calibrated;
  Check(RegisterBuiltinCodecs(generic));
  Check(calibrated.Register(NewExactCodec(std::make_shared<const ExactProfile>(*std::move(profile)))));
  for (const int tokens : {test.shape.tokens, 37, 16, 4, 1}) {
    const Blocks blocks = Shorten(test, std::min(tokens, test.shape.tokens));
    BenchExact("exact, calibrated", calibrated, blocks);
    BenchExact("exact, built-in tables", generic, blocks);
  }
  BenchZstd(test);
  BenchCopyAndHash(test);
  return 0;
}

}  // namespace
}  // namespace quicksave::compressor

int main(int argc, char** argv) {
  if (argc != 3 && argc != 6 && argc != 7) {
    std::fprintf(stderr, "usage: %s CALIBRATION_FILE TEST_FILE [LAYERS KV_HEADS HEAD_DIM [TOKENS]]\n", argv[0]);
    return 2;
  }
  quicksave::compressor::BlockShape shape{.layers = 30, .kv_heads = 3, .head_dim = 64, .tokens = 128};
  if (argc > 3) {
    shape.layers = std::atoi(argv[3]);
    shape.kv_heads = std::atoi(argv[4]);
    shape.head_dim = std::atoi(argv[5]);
  }
  if (argc > 6) shape.tokens = std::atoi(argv[6]);
  quicksave::compressor::Check(shape.Validate());
  return quicksave::compressor::Run(quicksave::compressor::ReadBlocks(argv[1], shape),
                                    quicksave::compressor::ReadBlocks(argv[2], shape));
}
