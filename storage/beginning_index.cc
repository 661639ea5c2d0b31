#include "storage/beginning_index.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "storage/keys.h"
#include "storage/node_reader.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quicksave::storage {
namespace {

// Nodes that part from the wanted tokens within the same step: so many are compared.
constexpr int kNodesCompared = 8;
// Keys that one look-up looks at: those of deleted nodes lead nowhere.
constexpr int kKeysLookedAt = 64;
// Keys that are checked while writers wait.
constexpr int kKeysAtOnce = 10000;

// One look-up, as of one moment.
class Search {
 public:
  Search(const Database& database, absl::string_view tenant, absl::Span<const uint32_t> tokens)
      : database_(database), snapshot_(database.NewSnapshot()), tenant_(tenant), tokens_(tokens) {}

  // Does any node stand under the prefix?
  absl::StatusOr<bool> Any(const std::string& prefix) const {
    const std::unique_ptr<Scan> scan = database_.NewScan(Family::kIndexes, prefix, snapshot_.get());
    if (!scan->status().ok()) return scan->status();
    return scan->Valid();
  }

  // Compares the newest nodes under the prefix.
  absl::Status Compare(const std::string& prefix) {
    const std::unique_ptr<Scan> scan = database_.NewScan(Family::kIndexes, prefix, snapshot_.get());
    int compared = 0;
    for (scan->SeekToLast(); scan->Valid() && !exhausted(); scan->Prev()) {
      ++looked_at_;
      absl::StatusOr<NodeRecord> node = Read(IndexedNode(scan->key()));
      if (absl::IsNotFound(node.status()) || absl::IsDataLoss(node.status())) continue;
      if (!node.ok()) return node.status();
      Consider(*std::move(node));
      if (++compared == kNodesCompared || best_.in_common == tokens_.size()) break;
    }
    return scan->status();
  }

  bool exhausted() const { return looked_at_ == kKeysLookedAt; }
  NodeBeginning& best() { return best_; }

 private:
  // NOT_FOUND also if the node does not lend its state (any more).
  absl::StatusOr<NodeRecord> Read(absl::string_view node_id) const {
    absl::StatusOr<NodeRecord> node = ReadHead(database_, tenant_, node_id, snapshot_.get());
    if (!node.ok()) return node.status();
    absl::StatusOr<NodeContents> contents = ReadContents(database_, tenant_, node_id, snapshot_.get());
    if (!contents.ok()) return contents.status();
    if (CountBeginnings(*node, *contents) == 0) return absl::NotFoundError("it has not its exact bits");
    *node->mutable_contents() = *std::move(contents);
    return node;
  }

  void Consider(NodeRecord node) {
    const auto& have = node.contents().token_ids();
    const auto differ = std::mismatch(tokens_.begin(), tokens_.end(), have.begin(), have.end());
    const auto in_common = static_cast<uint32_t>(differ.first - tokens_.begin());
    // Fewer than a step: another beginning has the same hash.
    if (in_common >= kBeginningStep && in_common > best_.in_common) best_ = {std::move(node), in_common};
  }

  const Database& database_;
  const std::unique_ptr<Snapshot> snapshot_;
  const absl::string_view tenant_;
  const absl::Span<const uint32_t> tokens_;
  int looked_at_ = 0;
  NodeBeginning best_;
};

// Whether the node of a key stands there rightly.
absl::StatusOr<bool> HasNode(const Database& database, absl::string_view key) {
  const std::optional<std::string> tenant = IndexedTenant(key);
  if (!tenant) return false;
  const absl::string_view node_id = IndexedNode(key);
  const absl::StatusOr<NodeRecord> head = ReadHead(database, *tenant, node_id);
  if (absl::IsNotFound(head.status())) return false;
  // Perhaps it does.
  if (absl::IsDataLoss(head.status())) return true;
  if (!head.ok()) return head.status();
  return head->beginnings() > 0 && absl::EndsWith(key, IndexTail(head->create_time_us(), node_id));
}

// Finds strays among the next keys from `*cursor` on, which moves on; empty at the end.
absl::Status FindStrays(const Database& database, std::string* cursor, std::vector<std::string>* strays) {
  const std::unique_ptr<Scan> scan = database.NewScan(Family::kIndexes, kBeginningsPrefix);
  int looked_at = 0;
  for (scan->Seek(*cursor); scan->Valid(); scan->Next()) {
    if (++looked_at > kKeysAtOnce) {
      *cursor = std::string(scan->key());
      return absl::OkStatus();
    }
    const absl::StatusOr<bool> has_node = HasNode(database, scan->key());
    if (!has_node.ok()) return has_node.status();
    if (!*has_node) strays->emplace_back(scan->key());
  }
  cursor->clear();
  return scan->status();
}

absl::Status RemoveSome(std::string* cursor, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  std::vector<std::string> strays;
  if (absl::Status found = FindStrays(*state->database, cursor, &strays); !found.ok()) return found;
  if (strays.empty()) return absl::OkStatus();
  Batch batch(state->database);
  for (const std::string& key : strays) batch.Delete(Family::kIndexes, key);
  return state->database->Write(&batch, Database::Room::kMakes);
}

}  // namespace

std::vector<uint64_t> HashBeginnings(absl::Span<const uint32_t> tokens) {
  std::vector<uint64_t> hashes;
  uint64_t hash = 0;
  for (size_t end = kBeginningStep; end <= tokens.size(); end += kBeginningStep) {
    hash = XXH3_64bits_withSeed(&tokens[end - kBeginningStep], kBeginningStep * sizeof(uint32_t), hash);
    hashes.push_back(hash);
  }
  return hashes;
}

uint32_t CountBeginnings(const NodeRecord& head, const NodeContents& contents) {
  const bool exact = !head.no_saved_blocks() ||
                     std::any_of(contents.encodings().begin(), contents.encodings().end(),
                                 [](const v1::Encoding& encoding) { return !encoding.residuals().empty(); });
  if (!exact || head.lossy_tokens() > 0) return 0;
  return static_cast<uint32_t>(contents.token_ids_size()) / kBeginningStep;
}

std::vector<std::string> BeginningKeys(const NodeRecord& head, const NodeContents& contents) {
  if (head.beginnings() == 0) return {};
  const std::string tail = IndexTail(head.create_time_us(), head.node_id());
  std::vector<std::string> keys;
  for (const uint64_t hash : HashBeginnings(contents.token_ids())) {
    keys.push_back(BeginningPrefix(head.tenant(), head.model_fingerprint(), hash) + tail);
  }
  return keys;
}

absl::StatusOr<NodeBeginning> FindBeginning(const Database& database, absl::string_view tenant,
                                            absl::string_view model_fingerprint, absl::Span<const int32_t> tokens) {
  if (tokens.size() < kBeginningStep) return absl::NotFoundError("no node is looked for by fewer tokens");
  const std::vector<uint32_t> ids(tokens.begin(), tokens.end());
  std::vector<std::string> prefixes;
  for (const uint64_t hash : HashBeginnings(ids)) prefixes.push_back(BeginningPrefix(tenant, model_fingerprint, hash));
  Search search(database, tenant, ids);
  size_t longest = 0;
  for (size_t end = prefixes.size() + 1; longest + 1 < end;) {
    const size_t middle = longest + (end - longest) / 2;
    const absl::StatusOr<bool> any = search.Any(prefixes[middle - 1]);
    if (!any.ok()) return any.status();
    (*any ? longest : end) = middle;
  }
  for (; longest > 0 && search.best().in_common == 0 && !search.exhausted(); --longest) {
    if (absl::Status compared = search.Compare(prefixes[longest - 1]); !compared.ok()) return compared;
  }
  if (search.best().in_common == 0) return absl::NotFoundError("no node begins with these tokens");
  return std::move(search.best());
}

absl::Status RemoveStrayBeginnings(WriterState* state) {
  std::string cursor(kBeginningsPrefix);
  do {
    if (absl::Status removed = RemoveSome(&cursor, state); !removed.ok()) return removed;
  } while (!cursor.empty());
  return absl::OkStatus();
}

}  // namespace quicksave::storage
