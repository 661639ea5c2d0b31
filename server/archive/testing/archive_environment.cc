#include "server/archive/testing/archive_environment.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quicksave::server {
namespace {

uint64_t Mix(uint64_t x) {
  // SplitMix64, Steele et al. 2014.
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Roughly normal with standard deviation 1.
float Noise(uint64_t seed) {
  float sum = 0;
  for (uint64_t bits = Mix(seed), i = 0; i < 4; ++i, bits >>= 16) sum += static_cast<float>(bits & 0xffff) / 65536.0F;
  return (sum - 2) * 1.7F;
}

// Hash of the tokens up to and with each.
std::vector<uint64_t> PrefixHashes(const std::vector<int32_t>& tokens) {
  std::vector<uint64_t> hashes;
  uint64_t hash = 1;
  for (const int32_t token : tokens) hashes.push_back(hash = Mix(hash ^ static_cast<uint64_t>(token)));
  return hashes;
}

std::filesystem::path NewFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "archive-XXXXXX").string();
  return mkdtemp(name.data());
}

}  // namespace

template <typename Visit>
void FakeModel::ForEachElement(const engine::Sequence& sequence, int first_token, Visit visit) const {
  const std::vector<uint64_t> hashes = PrefixHashes(sequence.tokens());
  const int dims = shape_.kv_heads * shape_.head_dim;
  for (int token = first_token; token < sequence.length(); ++token) {
    std::byte* page = sequence.pages()[token / engine::cpu::kPageTokens].data();
    const int slot = token % engine::cpu::kPageTokens;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      auto* keys = reinterpret_cast<uint16_t*>(page + shape_.key_offset(layer));
      auto* values = reinterpret_cast<uint16_t*>(page + shape_.value_offset(layer));
      for (int i = 0; i < dims; ++i) {
        const uint64_t channel = Mix(static_cast<uint64_t>(layer) * dims + i);
        const uint64_t seed = hashes[token] ^ channel;
        const int head = i / shape_.head_dim;
        const int dim = i % shape_.head_dim;
        // Channels differ in scale and mean; keys turn with the position.
        const float scale = std::exp2(Noise(channel) * 2);
        const float turn = std::cos(static_cast<float>(token) / static_cast<float>(1 + i));
        uint16_t& value = values[(size_t{1} * head * engine::cpu::kPageTokens + slot) * shape_.head_dim + dim];
        visit(keys[size_t(i) * engine::cpu::kPageTokens + slot],
              engine::cpu::Bf16Bits(scale * (turn + 0.3F * Noise(seed))));
        visit(value, engine::cpu::Bf16Bits(scale * Noise(seed + 1)));
      }
    }
  }
}

void FakeModel::Fill(const engine::Sequence& sequence, int first_token) const {
  ForEachElement(sequence, first_token, [](uint16_t& element, uint16_t expected) { element = expected; });
}

testing::AssertionResult FakeModel::Agrees(const engine::Sequence& sequence) const {
  size_t wrong = 0;
  ForEachElement(sequence, 0, [&](uint16_t element, uint16_t expected) { wrong += element != expected; });
  if (wrong != 0) return testing::AssertionFailure() << wrong << " elements of K and V differ";
  if (sequence.next_logits() != nullptr && *sequence.next_logits() != NextLogits(sequence.tokens())) {
    return testing::AssertionFailure() << "logits differ";
  }
  return testing::AssertionSuccess();
}

engine::Logits FakeModel::NextLogits(const std::vector<int32_t>& tokens) const {
  engine::Logits logits;
  for (int i = 0; i < kVocab; ++i) logits.push_back(Noise(PrefixHashes(tokens).back() + static_cast<uint64_t>(i)));
  return logits;
}

ArchiveEnvironment::ArchiveEnvironment(int pages, engine::KvShape kv_shape)
    : shape(kv_shape),
      fake(kv_shape),
      folder(NewFolder()),
      pool(engine::PagePool::Create(
               {.shape = kv_shape, .memory_bytes = size_t(pages) * kv_shape.page_bytes(), .poison = true})
               .value()) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  random.seed(seed);
  Reopen();
}

ArchiveEnvironment::~ArchiveEnvironment() {
  archive.reset();
  store.reset();
  std::filesystem::remove_all(folder);
}

void ArchiveEnvironment::Reopen() {
  archive.reset();
  store.reset();
  storage::StoreOptions options;
  options.path = folder / "store";
  options.durability = storage::Durability::kProcess;
  options.min_free_disk_bytes = 0;
  store = storage::Store::Open(options).value();
  codecs = std::make_unique<compressor::CodecRegistry>();
  archive = OpenArchive(model).value();
}

absl::StatusOr<std::unique_ptr<Archive>> ArchiveEnvironment::OpenArchive(const ModelIdentity& identity) {
  return Archive::Create(
      {.store = store.get(), .codecs = codecs.get(), .pool = pool.get(), .workers = &workers, .model = identity});
}

SessionState ArchiveEnvironment::NewState(const std::vector<int32_t>& tokens) {
  SessionState state;
  Append(state, tokens);
  return state;
}

void ArchiveEnvironment::Append(SessionState& state, const std::vector<int32_t>& tokens) {
  const int before = state.sequence.length();
  engine::PageReservation reservation =
      pool->Reserve(state.sequence.PagesToAppend(static_cast<int>(tokens.size()))).value();
  state.sequence.Append(tokens, reservation);
  fake.Fill(state.sequence, before);
  state.sequence.set_next_logits(std::make_shared<engine::Logits>(fake.NextLogits(state.sequence.tokens())));
}

absl::StatusOr<SavedNode> ArchiveEnvironment::Save(SessionState& state) {
  absl::StatusOr<SavedNode> saved = archive->Save({.state = state, .tenant = kTenant});
  if (!saved.ok()) return saved;
  state.origin = saved->origin;
  state.origin_tokens = state.sequence.length();
  return saved;
}

std::vector<int32_t> ArchiveEnvironment::RandomTokens(int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % kVocab));
  return tokens;
}

void ArchiveTestBase::TearDown() {
  EXPECT_EQ(env_.pool->used_pages(), 0);
  EXPECT_TRUE(env_.pool->Reserve(env_.pool->total_pages()).ok()) << "pages are still promised";
}

testing::AssertionResult ArchiveTestBase::RestoresExactly(const std::string& node_id,
                                                          const std::vector<int32_t>& tokens) {
  absl::StatusOr<RestoredState> restored = Restore(node_id);
  if (!restored.ok()) return testing::AssertionFailure() << restored.status();
  const engine::Sequence& sequence = restored->state.sequence;
  if (sequence.tokens() != tokens) return testing::AssertionFailure() << "token ids differ";
  if (sequence.next_logits() == nullptr) return testing::AssertionFailure() << "no logits";
  return env_.fake.Agrees(sequence);
}

}  // namespace quicksave::server
