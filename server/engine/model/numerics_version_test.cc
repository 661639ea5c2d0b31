// The promise behind kNumericsVersion: the same version computes the same bits, whatever compiler, build type,
// instruction set or mathematical library it was built with.
#include <string>

#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/instruction_sets.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

// FNV-1a, 64 bits.
class Hash {
 public:
  void Add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3;
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325;
};

TEST(NumericsVersionTest, TheBitsOfAVersionNeverChange) {
  const TinyModel model({.layers = 3, .query_heads = 6, .kv_heads = 2, .tied_head = false, .llama3_rope = true});
  ThreadPool threads(2);
  const auto decoder = Decoder::Load(model.dir(), &threads);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const KvShape shape = (*decoder)->kv_shape();
  const auto pool = PagePool::Create({.shape = shape, .memory_bytes = 32 * shape.page_bytes(), .poison = true});
  ASSERT_TRUE(pool.ok());
  const std::vector<int32_t> tokens = RandomTokens(400, 300, 11);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    Sequence sequence;
    const std::vector<float> logits = FeedTokens(**decoder, **pool, sequence, tokens, LogitsWanted::kAll);
    const std::vector<uint16_t> kv = KeyValueBits(sequence);
    Hash hash;
    hash.Add(logits.data(), logits.size() * sizeof(float));
    hash.Add(kv.data(), kv.size() * sizeof(uint16_t));
    // When this fails, states saved before would no longer be what the engine computes: either the change was not
    // meant, or kNumericsVersion must change with the value here.
    EXPECT_EQ(std::string(cpu::kNumericsVersion), "bf16-e1o1-32");
    EXPECT_EQ(hash.value(), 5094151483942984579u) << TargetName(target);
  }
}

}  // namespace
}  // namespace quicksave::engine
