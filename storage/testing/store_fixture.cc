#include "storage/testing/store_fixture.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace quicksave::storage {
namespace {

// FNV-1a: the same in every process, unlike absl::Hash.
uint64_t SeedOf(absl::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

constexpr size_t kLogitsBytes = 6000;

}  // namespace

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "quicksave-storage-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string PseudoRandomBytes(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::string bytes;
  while (bytes.size() < count) {
    const uint64_t word = random();
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(count);
  return bytes;
}

BlockId TestBlockId(uint64_t n) { return {PseudoRandomBytes(n, 16), kCodec}; }

std::string TestBlockBytes(const BlockId& id) {
  const uint64_t seed = SeedOf(id.codec == kCodec ? id.content_id : id.content_id + id.codec);
  // A third are below the size from which RocksDB uses blob files.
  return PseudoRandomBytes(seed, 16 + seed % (seed % 3 == 0 ? 3000 : 48000));
}

BlockRef TestBlockRef(uint64_t n, uint32_t first_token) { return TestBlockRef(n, first_token, kCodec); }

BlockRef TestBlockRef(uint64_t n, uint32_t first_token, absl::string_view codec) {
  const BlockId id = TestBlockId(n);
  BlockRef ref;
  ref.set_id(id.content_id);
  ref.set_codec(std::string(codec));
  ref.set_first_token(first_token);
  ref.set_token_count(kTokensPerBlock);
  ref.set_raw_bytes(2 * TestBlockBytes(id).size());
  return ref;
}

v1::Encoding TestEncoding(float step, const std::vector<uint64_t>& blocks, bool with_residuals) {
  v1::Encoding encoding;
  encoding.set_codec(kLatent);
  encoding.set_profile_id("profile-1");
  encoding.set_split(2);
  encoding.set_step(step);
  uint32_t tokens = 0;
  for (uint64_t n : blocks) {
    *encoding.add_blocks() = TestBlockRef(n, tokens, absl::StrCat(kLatent, "-", step));
    if (with_residuals) *encoding.add_residuals() = TestBlockRef(n, tokens, absl::StrCat(kResidual, "-", step));
    tokens += kTokensPerBlock;
  }
  return encoding;
}

EncodingKey TestEncodingKey(float step) { return EncodingKeyOf(TestEncoding(step, {}, false)); }

EncodingChange TestChange(const v1::Encoding& encoding) {
  EncodingChange change;
  change.add.push_back(encoding);
  GiveBlocks(encoding, &change.blocks);
  return change;
}

void GiveBlocks(const v1::Encoding& encoding, std::vector<NewBlock>* blocks) {
  NodeContents contents;
  *contents.add_encodings() = encoding;
  ForEachBlock(contents, [&](const BlockRef& ref) {
    const BlockId id = IdOf(ref);
    const bool given =
        std::any_of(blocks->begin(), blocks->end(), [&](const NewBlock& block) { return block.id == id; });
    if (!given) blocks->push_back({id, TestBlockBytes(id)});
  });
}

void ExpectTotalsOfNodes(const Store& store) {
  absl::flat_hash_map<BlockId, uint64_t> raw_bytes;
  const std::vector<std::string> ids = AllNodeIds(store);
  for (const std::string& id : ids) {
    absl::StatusOr<NodeRecord> node = store.GetNode(kTenant, id);
    ASSERT_TRUE(node.ok()) << node.status();
    ForEachBlock(node->contents(), [&](const BlockRef& ref) { raw_bytes[IdOf(ref)] = ref.raw_bytes(); });
  }
  uint64_t raw = 0, stored = 0;
  for (const auto& [id, bytes] : raw_bytes) {
    raw += bytes;
    stored += TestBlockBytes(id).size();
  }
  const absl::StatusOr<StoreStats> stats = store.Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->nodes, ids.size());
  EXPECT_EQ(stats->blocks, raw_bytes.size());
  EXPECT_EQ(stats->block_raw_bytes, raw);
  EXPECT_EQ(stats->block_stored_bytes, stored);
}

NodeCommit TestCommit(absl::string_view node_id, const std::vector<std::string>& parents,
                      const std::vector<uint64_t>& blocks) {
  NodeCommit commit;
  NodeRecord& record = commit.record;
  record.set_tenant(kTenant);
  record.set_node_id(std::string(node_id));
  record.set_model_fingerprint(kModel);
  record.set_codec(kCodec);
  (*record.mutable_annotations()->mutable_labels())["name"] = std::string(node_id);
  for (const std::string& parent : parents) {
    ParentEdge* edge = record.add_parents();
    edge->set_node_id(parent);
    edge->set_type(parents.size() > 1 ? v1::EDGE_TYPE_MERGE : v1::EDGE_TYPE_CONTINUATION);
    edge->set_at_token(7);
  }
  uint32_t tokens = 0;
  for (uint64_t n : blocks) {
    *record.mutable_contents()->add_blocks() = TestBlockRef(n, tokens);
    tokens += kTokensPerBlock;
    const BlockId id = TestBlockId(n);
    commit.blocks.push_back({id, TestBlockBytes(id)});
  }
  record.set_token_count(tokens);
  for (uint32_t i = 0; i < tokens; ++i) record.mutable_contents()->add_token_ids(i);
  record.mutable_contents()->set_settings(PseudoRandomBytes(SeedOf(node_id) + 1, 100));
  commit.state.push_back({"logits", PseudoRandomBytes(SeedOf(node_id), kLogitsBytes)});
  return commit;
}

void ExpectIntact(const Store& store, absl::string_view node_id) {
  absl::StatusOr<NodeRecord> record = store.GetNode(kTenant, node_id);
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->contents().settings(), PseudoRandomBytes(SeedOf(node_id) + 1, 100));
  EXPECT_EQ(static_cast<uint32_t>(record->contents().token_ids_size()), record->token_count());
  absl::StatusOr<std::string> logits = store.GetState(kTenant, node_id, "logits");
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_TRUE(*logits == PseudoRandomBytes(SeedOf(node_id), kLogitsBytes));
  EXPECT_TRUE(CoversTokens(record->contents(), record->token_count()));
  ForEachBlock(record->contents(), [&](const BlockRef& ref) {
    absl::StatusOr<std::string> block = store.ReadBlock(kTenant, kModel, IdOf(ref));
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_TRUE(*block == TestBlockBytes(IdOf(ref))) << ref.codec() << " block of token " << ref.first_token();
  });
  absl::StatusOr<VerifyReport> report = store.VerifyNode(kTenant, node_id);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->problems.empty()) << report->problems.front();
}

std::vector<std::string> AllNodeIds(const Store& store) {
  std::vector<std::string> ids;
  ListRequest request;
  request.tenant = kTenant;
  request.page_size = 1000;
  do {
    absl::StatusOr<NodePage> page = store.ListNodes(request);
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) break;
    for (const NodeRecord& record : page->nodes) ids.push_back(record.node_id());
    request.page_token = page->next_page_token;
  } while (!request.page_token.empty());
  return ids;
}

bool IsStored(Store& store, const BlockId& id) {
  absl::StatusOr<BlockPin> pin = store.PinBlocks(kTenant, kModel, {id});
  EXPECT_TRUE(pin.ok()) << pin.status();
  return pin.ok() && pin->present()[0];
}

std::unique_ptr<Store> OpenOrDie(const StoreOptions& options) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

StoreOptions TestOptions(const std::string& path) {
  StoreOptions options;
  options.path = path;
  options.durability = Durability::kProcess;
  options.min_free_disk_bytes = 0;
  options.cache_bytes = 1 << 20;
  options.write_buffer_bytes = 4 << 20;
  return options;
}

NodeRecord StoreTest::Commit(absl::string_view node_id, const std::vector<std::string>& parents,
                             const std::vector<uint64_t>& blocks) {
  absl::StatusOr<NodeRecord> record = store_->CommitNode(TestCommit(node_id, parents, blocks));
  EXPECT_TRUE(record.ok()) << record.status();
  return record.ok() ? *std::move(record) : NodeRecord();
}

}  // namespace quicksave::storage
