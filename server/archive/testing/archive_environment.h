#ifndef QUICKSAVE_SERVER_ARCHIVE_TESTING_ARCHIVE_ENVIRONMENT_H_
#define QUICKSAVE_SERVER_ARCHIVE_TESTING_ARCHIVE_ENVIRONMENT_H_

// An archive over a real store and a real page pool, and states whose K, V and logits are a pure function of their
// token ids, as the engine's are.

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "compressor/codec.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/session_state.h"
#include "server/worker_pool.h"
#include "storage/store.h"

namespace quicksave::server {

inline constexpr char kTenant[] = "tests";
inline constexpr int kVocab = 512;
inline constexpr int kHiddenSize = 24;

// A deterministic stand-in for a model.
class FakeModel {
 public:
  explicit FakeModel(const engine::KvShape& shape) : shape_(shape) {}

  // Writes what the pages of a sequence must hold for the tokens from `first_token` on.
  void Fill(const engine::Sequence& sequence, int first_token) const;
  // Whether pages, and logits if there are any, hold exactly what the token ids say.
  testing::AssertionResult Agrees(const engine::Sequence& sequence) const;
  engine::Logits NextLogits(const std::vector<int32_t>& tokens) const;

 private:
  // Calls visit(element, expected bits) for all elements of tokens from `first_token` on.
  template <typename Visit>
  void ForEachElement(const engine::Sequence& sequence, int first_token, Visit visit) const;

  engine::KvShape shape_;
};

// Owns a temporary folder and everything in it. `archive` and what it depends on may be replaced between calls.
class ArchiveEnvironment {
 public:
  explicit ArchiveEnvironment(int pages = 2000, engine::KvShape shape = {.layers = 3, .kv_heads = 2, .head_dim = 32});
  ~ArchiveEnvironment();

  // Closes everything but pages and opens it again, as a new process would.
  void Reopen();
  absl::StatusOr<std::unique_ptr<Archive>> OpenArchive(const ModelIdentity& identity);

  SessionState NewState(const std::vector<int32_t>& tokens);
  // Goes on from `state`, as generation does.
  void Append(SessionState& state, const std::vector<int32_t>& tokens);
  // Saves the state and makes the node its origin.
  absl::StatusOr<SavedNode> Save(SessionState& state);
  std::vector<int32_t> RandomTokens(int count);

  const engine::KvShape shape;
  const FakeModel fake;
  const ModelIdentity model{
      .fingerprint = "model-a", .numerics = "numerics-1", .vocab_size = kVocab, .hidden_size = kHiddenSize};
  const std::filesystem::path folder;
  const std::unique_ptr<engine::PagePool> pool;
  WorkerPool workers{3};
  std::unique_ptr<storage::Store> store;
  std::unique_ptr<compressor::CodecRegistry> codecs;
  std::unique_ptr<Archive> archive;
  std::mt19937 random;
};

// Checks at the end that no page is in use or promised.
class ArchiveTestBase : public testing::Test {
 protected:
  void TearDown() override;

  absl::StatusOr<RestoredState> Restore(const std::string& node_id, std::optional<int> at_token = std::nullopt) {
    return env_.archive->Restore(kTenant, node_id, {.at_token = at_token});
  }
  // Whether a node restores to the whole state that its tokens say.
  testing::AssertionResult RestoresExactly(const std::string& node_id, const std::vector<int32_t>& tokens);

  ArchiveEnvironment env_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_TESTING_ARCHIVE_ENVIRONMENT_H_
