// What every format of weights promises: K, V and logits are a pure function of the token ids, the bits of a version
// never change, and a checkpoint's type of numbers does not matter as long as its values are the same.
#include "server/engine/model/weight_format.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/model/decoder.h"
#include "server/engine/model/reference_decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/difference.h"
#include "server/engine/testing/instruction_sets.h"
#include "server/engine/testing/recorded_family.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

const TinyModelOptions kOptions = {
    .layers = 3, .query_heads = 6, .kv_heads = 2, .tied_head = false, .llama3_rope = true};

// FNV-1a, 64 bits.
uint64_t HashOf(const std::vector<float>& logits, const std::vector<uint16_t>& kv) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
  };
  add(logits.data(), logits.size() * sizeof(float));
  add(kv.data(), kv.size() * sizeof(uint16_t));
  return hash;
}

// A decoder with memory for a few hundred tokens.
class Engine {
 public:
  Engine(const std::string& dir, WeightFormat format, int threads) : threads_(threads) {
    decoder_ = Decoder::Load(dir, &threads_, format).value();
    const KvShape shape = decoder_->kv_shape();
    pool_ = PagePool::Create({.shape = shape, .memory_bytes = 100 * shape.page_bytes(), .poison = true}).value();
  }

  Decoder& decoder() { return *decoder_; }
  std::vector<float> Logits(const std::vector<int32_t>& tokens, int chunk, std::vector<uint16_t>* kv = nullptr) {
    Sequence sequence;
    std::vector<float> logits = FeedTokens(*decoder_, *pool_, sequence, tokens, LogitsWanted::kAll, chunk);
    if (kv != nullptr) *kv = KeyValueBits(sequence);
    return logits;
  }
  uint64_t Hash(const std::vector<int32_t>& tokens, int chunk) {
    std::vector<uint16_t> kv;
    const std::vector<float> logits = Logits(tokens, chunk, &kv);
    return HashOf(logits, kv);
  }

  std::vector<float> HiddenStates(const std::vector<int32_t>& tokens, int layer) {
    return TapRows(CaptureTaps(*decoder_, *pool_, tokens, {layer}), 0);
  }

  // The last of `tokens` decoded in one pass with other texts, as servers do.
  std::vector<float> DecodeAmong(const std::vector<int32_t>& tokens, int others) {
    std::vector<Sequence> sequences(others + 1);
    const auto last = absl::MakeConstSpan(tokens).last(1);
    std::vector<FedSlice> fed;
    for (int i = 0; i <= others; ++i) {
      const auto before = absl::MakeConstSpan(tokens).subspan(i == others ? 0 : i + 1);
      FeedTokens(*decoder_, *pool_, sequences[i], before.first(before.size() - 1), LogitsWanted::kNone);
      fed.push_back(AppendSlice(*pool_, sequences[i], last, i == others ? LogitsWanted::kLast : LogitsWanted::kNone));
    }
    std::vector<Slice> slices;
    for (const FedSlice& part : fed) slices.push_back(part.slice);
    const absl::Span<const float> logits = decoder_->Forward(slices);
    return {logits.begin(), logits.end()};
  }

 private:
  ThreadPool threads_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<PagePool> pool_;
};

struct Case {
  WeightFormat format;
  const char* version;
  uint64_t hash;
  // Of the logits, whose rms is about 1, from the reference's: half as much again as was seen. fp32 differs by K and V
  // in bf16 only; weights as random as these lose more in 8 bits than a model's do.
  double rms_bound;
};

class WeightFormatTest : public testing::TestWithParam<Case> {};

TEST_P(WeightFormatTest, TheBitsOfAVersionNeverChange) {
  const TinyModel model(kOptions);
  Engine engine(model.dir(), GetParam().format, 2);
  const std::vector<int32_t> tokens = RandomTokens(400, 300, 11);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    // As in numerics_version_test: a new value here needs a new version.
    EXPECT_EQ(NumericsVersion(GetParam().format), GetParam().version);
    EXPECT_EQ(engine.Hash(tokens, 128), GetParam().hash) << TargetName(target);
  }
}

TEST_P(WeightFormatTest, ChunksBatchAndThreadsDoNotChangeABit) {
  for (const char* family : {"qwen2", "gemma3"}) {  // biases; query and key norms, windows, caps
    const RecordedFamily recorded(family);
    const std::vector<int32_t> tokens = RandomTokens(90, 300, 12);
    Engine engine(recorded.dir(), GetParam().format, 1);
    const uint64_t whole = engine.Hash(tokens, 90);
    const std::vector<float> logits = engine.Logits(tokens, 90);
    for (const int chunk : {1, 2, 3, 7, 8, 9, 12, 13, 40}) EXPECT_EQ(engine.Hash(tokens, chunk), whole) << chunk;
    for (const int threads : {2, 3}) {
      EXPECT_EQ(Engine(recorded.dir(), GetParam().format, threads).Hash(tokens, 17), whole) << threads;
    }
    for (const int others : {0, 1, 7, 15}) {
      EXPECT_TRUE(SameBits(engine.DecodeAmong(tokens, others), absl::MakeConstSpan(logits).last(300))) << others;
    }
  }
}

TEST_P(WeightFormatTest, LogitsAreThoseOfTheReference) {
  const TinyModel model(kOptions);
  const std::vector<int32_t> tokens = RandomTokens(150, 300, 5);
  const auto reference = ReferenceDecoder::Load(model.dir());
  ASSERT_TRUE(reference.ok()) << reference.status();
  Engine engine(model.dir(), GetParam().format, 2);
  const Difference difference = Compare(engine.Logits(tokens, 150), (*reference)->Logits(tokens));
  std::cout << WeightFormatName(GetParam().format) << ": rms " << difference.rms << "\n";
  EXPECT_LT(difference.rms, GetParam().rms_bound);
}

TEST_P(WeightFormatTest, TheLastHiddenStateIsRoundedAsTheHeadTakesIt) {
  const TinyModel model(kOptions);
  Engine engine(model.dir(), GetParam().format, 1);
  const std::vector<float> states = engine.HiddenStates(RandomTokens(5, 300, 7), kOptions.layers);
  const bool bf16 = std::all_of(states.begin(), states.end(),
                                [](float state) { return state == cpu::Bf16ToFloat(cpu::Bf16Bits(state)); });
  EXPECT_EQ(bf16, GetParam().format == WeightFormat::kBf16);
}

TEST_P(WeightFormatTest, ACheckpointsTypeDoesNotMatter) {
  if (GetParam().format == WeightFormat::kBf16) GTEST_SKIP() << "bf16 runs checkpoints in bf16 only";
  const std::vector<int32_t> tokens = RandomTokens(30, 300, 6);
  const TinyModelOptions options;
  std::map<std::string, uint64_t> hashes;
  for (const std::string type : {"BF16", "F32"}) {
    std::map<std::string, TestTensor> weights = TinyWeights(options);
    for (auto& [name, tensor] : weights) {
      if (type == "BF16") break;
      std::string wide;
      for (size_t i = 0; i < tensor.data.size(); i += 2) wide += std::string(2, '\0') + tensor.data.substr(i, 2);
      tensor = {.dtype = "F32", .shape = tensor.shape, .data = wide};
    }
    const TestFolder folder;
    folder.Write("config.json", TinyConfig(options).dump());
    folder.Write("model.safetensors", SafetensorsBytes(weights));
    hashes[type] = Engine(folder.path(), GetParam().format, 2).Hash(tokens, 30);
  }
  EXPECT_EQ(hashes["BF16"], hashes["F32"]);
}

TEST_P(WeightFormatTest, RefusesToQuantiseWhatIsNotFinite) {
  const TinyModelOptions options;
  std::map<std::string, TestTensor> weights = TinyWeights(options);
  weights["model.layers.1.mlp.up_proj.weight"].data.replace(20, 2, "\xff\x7f");  // NaN
  const TestFolder folder;
  folder.Write("config.json", TinyConfig(options).dump());
  folder.Write("model.safetensors", SafetensorsBytes(weights));
  ThreadPool threads(2);
  const absl::Status status = Decoder::Load(folder.path(), &threads, GetParam().format).status();
  if (GetParam().format == WeightFormat::kBf16) {
    EXPECT_TRUE(status.ok()) << status;
  } else {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST_P(WeightFormatTest, SaysHowMuchMemoryItsWeightsTake) {
  const TinyModel model({.tied_head = false});
  // For each weight; hidden and intermediate size are multiples of 32, outputs of all but the head, too.
  const double bytes = GetParam().format == WeightFormat::kBf16   ? 2
                       : GetParam().format == WeightFormat::kInt8 ? 1.0625
                                                                  : 4;
  const int rows = 2 * ((6 - 2) * 2 * 32 + 2 * 96) + 320;  // of `hidden` inputs: q, k, v, gate, up; the head, padded
  const int columns = 2 * (128 + 96);                      // of `hidden` outputs: o, down
  EXPECT_EQ(Engine(model.dir(), GetParam().format, 1).decoder().weight_bytes(), (rows + columns) * 64 * bytes);
}

INSTANTIATE_TEST_SUITE_P(All, WeightFormatTest,
                         testing::Values(Case{WeightFormat::kBf16, "bf16-e1o1-32", 5094151483942984579u, 0.015},
                                         Case{WeightFormat::kInt8, "int8-g32-e1o1-32", 10639917436935489448u, 0.045},
                                         Case{WeightFormat::kFp32, "fp32-e1o1-32", 6576361365685921123u, 0.008}),
                         [](const auto& tested) { return WeightFormatName(tested.param.format); });

}  // namespace
}  // namespace quicksave::engine
