// What the store's tests share: a folder that goes away, and nodes whose every byte follows from their names, so that
// they can be checked without remembering them.
#ifndef QUICKSAVE_STORAGE_TESTING_STORE_FIXTURE_H_
#define QUICKSAVE_STORAGE_TESTING_STORE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "storage/store.h"

namespace quicksave::storage {

inline constexpr char kTenant[] = "tenant";
inline constexpr char kModel[] = "model-fingerprint";
inline constexpr char kCodec[] = "test.1";

// Two blocks give a node a place in the index of beginnings.
inline constexpr uint32_t kTokensPerBlock = 64;

// A new folder, removed with its contents at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Random-looking bytes that follow from `seed`.
std::string PseudoRandomBytes(uint64_t seed, size_t count);

// Codecs of the blocks and residuals that TestEncoding makes begin so.
inline constexpr char kLatent[] = "latent";
inline constexpr char kResidual[] = "residual";

// Block number n: its id, its bytes (of a size between 16 B and 48 KiB that follows from n), and a reference to it.
BlockId TestBlockId(uint64_t n);
std::string TestBlockBytes(const BlockId& id);
BlockRef TestBlockRef(uint64_t n, uint32_t first_token);

// A node made of these blocks, all of them given, with a state value "logits" and one label. Its token ids go up from
// 0.
NodeCommit TestCommit(absl::string_view node_id, const std::vector<std::string>& parents,
                      const std::vector<uint64_t>& blocks);

// Block number n in that codec, at that place.
BlockRef TestBlockRef(uint64_t n, uint32_t first_token, absl::string_view codec);

// A latent encoding of a node of these blocks; its bytes follow from the blocks and the step.
v1::Encoding TestEncoding(float step, const std::vector<uint64_t>& blocks, bool with_residuals);
EncodingKey TestEncodingKey(float step);

// A change that adds the encoding and gives all of its blocks.
EncodingChange TestChange(const v1::Encoding& encoding);
// Adds the blocks of the encoding to those that are given, each once.
void GiveBlocks(const v1::Encoding& encoding, std::vector<NewBlock>* blocks);

// Fails the test unless the store's totals are those of the blocks to which its nodes refer.
void ExpectTotalsOfNodes(const Store& store);

// Fails the test unless the node is readable in every part and has the bytes that its name demands.
void ExpectIntact(const Store& store, absl::string_view node_id);

// All node ids of the tenant, oldest first.
std::vector<std::string> AllNodeIds(const Store& store);

// Would a commit find the block?
bool IsStored(Store& store, const BlockId& id);

// Opens the store or fails the test.
std::unique_ptr<Store> OpenOrDie(const StoreOptions& options);

// Options for a store in `path` that uses little memory, does not sync, and accepts any disk.
StoreOptions TestOptions(const std::string& path);

// A test with an open store.
class StoreTest : public testing::Test {
 protected:
  StoreTest() : options_(TestOptions(dir_.path() + "/store")), store_(OpenOrDie(options_)) {}

  void Reopen() {
    store_.reset();
    store_ = OpenOrDie(options_);
  }
  // Commits or fails the test.
  NodeRecord Commit(absl::string_view node_id, const std::vector<std::string>& parents,
                    const std::vector<uint64_t>& blocks);

  TempDir dir_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_TESTING_STORE_FIXTURE_H_
