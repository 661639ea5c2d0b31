// The durable store of thought-graph nodes.
//
//   StoreOptions options;
//   options.path = "/var/lib/quicksave";
//   absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options);
//   NodeCommit commit;
//   commit.record.set_tenant("default");
//   commit.record.set_node_id("first-thought");
//   ...
//   absl::StatusOr<NodeRecord> head = (*store)->CommitNode(commit);  // durable when it returns
//   absl::StatusOr<NodeRecord> node = (*store)->GetNode("default", "first-thought");
//
// A node refers to blocks: opaque byte strings named by a content id and a codec, kept once for each tenant and
// model whatever number of nodes refers to them. Formats on disk: docs/formats.md.
#ifndef QUICKSAVE_STORAGE_STORE_H_
#define QUICKSAVE_STORAGE_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "quicksave/storage/v1/node.pb.h"
#include "storage/encoding.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace quicksave::storage {

using v1::BlockRef;
using v1::EdgeType;
using v1::NodeAnnotations;
using v1::NodeContents;
using v1::NodeRecord;
using v1::ParentEdge;

// The newest format that this code reads. A store is of the oldest format that allows what is in it.
inline constexpr uint32_t kStoreFormatVersion = 2;
// The format of a store in which a node has, or had, encodings. Format 1 is all else.
inline constexpr uint32_t kEncodingsFormatVersion = 2;

// What an acknowledged write survives.
enum class Durability {
  kSync,     // The death of the process, of the system and of the power supply: synced before it is acknowledged.
  kProcess,  // The death of the process only.
};

struct StoreOptions {
  // Folder of the store; made if absent (its parent must exist). Nothing else may live in it.
  std::string path;
  Durability durability = Durability::kSync;
  // Memory for the cache of index and data blocks, and at most this much once more for unflushed writes.
  uint64_t cache_bytes = uint64_t{64} << 20;
  uint64_t write_buffer_bytes = uint64_t{128} << 20;
  // Writes other than deletes are refused while the disk has fewer free bytes.
  uint64_t min_free_disk_bytes = uint64_t{256} << 20;
  // Source of create and update times; the system's clock where empty.
  std::function<absl::Time()> clock;
  // All file access goes through it; not owned, outlives the store. The system's where null. Tests inject faults here.
  rocksdb::Env* env = nullptr;
};

// Names a block within a tenant and a model.
struct BlockId {
  std::string content_id;  // 16 bytes.
  std::string codec;

  friend bool operator==(const BlockId& a, const BlockId& b) {
    return a.content_id == b.content_id && a.codec == b.codec;
  }
  template <typename H>
  friend H AbslHashValue(H h, const BlockId& id) {
    return H::combine(std::move(h), id.content_id, id.codec);
  }
};

// The id that `ref` names.
BlockId IdOf(const BlockRef& ref);

// Every block of a node: of K and V as saved, of hidden states, of the encodings and their residuals. One may come
// several times.
template <typename Visit>
void ForEachBlock(const NodeContents& contents, Visit visit) {
  for (const BlockRef& ref : contents.blocks()) visit(ref);
  for (const v1::TapBlock& tap : contents.tap_blocks()) visit(tap.block());
  for (const v1::Encoding& encoding : contents.encodings()) {
    for (const BlockRef& ref : encoding.blocks()) visit(ref);
    for (const BlockRef& ref : encoding.residuals()) visit(ref);
  }
}

// A block to store.
struct NewBlock {
  BlockId id;
  std::string bytes;
};

// A big value of a node.
struct StateValue {
  std::string name;  // [a-z0-9._-]{1,63}, for example "logits".
  std::string bytes;
};

// A request whose answer is to be remembered.
struct RequestIdentity {
  std::string method;       // For example "Snapshot".
  std::string request_id;   // Unique for the tenant and the method.
  std::string fingerprint;  // Tells a repeat from another request with the same id.
};

// A request whose answer is remembered together with the change that it made, in the same atomic step.
template <class Outcome>
struct AnsweredRequest {
  RequestIdentity identity;
  // Makes the answer from what was done. Called once, with the store's lock held: must not call the store.
  std::function<std::string(const Outcome&)> answer;
};

// A remembered answer.
struct RememberedRequest {
  std::string fingerprint;
  std::string answer;
  absl::Time time;
};

// Everything that makes a node.
struct NodeCommit {
  // Fields that say "set by the store" are ignored. `contents.blocks`, `contents.tap_blocks` and `contents.encodings`
  // list every block of the node.
  NodeRecord record;
  // Blocks that may not be stored yet. Those that are there already are left as they are, unless known to be damaged.
  std::vector<NewBlock> blocks;
  std::vector<StateValue> state;
  // Answered from the record as it will be stored, without contents.
  std::optional<AnsweredRequest<NodeRecord>> request;
};

// A change of the ways in which a node's K and V are encoded: first what is removed goes, then what is added comes. No
// encoding is named twice.
struct EncodingChange {
  // Blocks of `add` that may not be stored yet; as NodeCommit::blocks.
  std::vector<NewBlock> blocks;
  // Each takes the place of the node's encoding with the same key, or comes last. Fields that say "set by the store"
  // are ignored.
  std::vector<v1::Encoding> add;
  std::vector<EncodingKey> remove;
  // These lose their residuals, and stay.
  std::vector<EncodingKey> remove_residuals;
  // Empties `contents.blocks`: from then on the node has the bits that its session had only if an encoding has
  // residuals.
  bool remove_saved = false;
  // Where not empty, the node's etag must be this one.
  std::string etag;
  // Answered from the record after the change, without contents.
  std::optional<AnsweredRequest<NodeRecord>> request;
};

// One end of an edge as seen from the other.
struct Edge {
  std::string node_id;
  EdgeType type;
  uint32_t at_token;  // Tokens of the parent that the child starts from.
};

enum class ListOrder { kOldestFirst, kNewestFirst };

// Nodes that meet every condition that is set.
struct NodeFilter {
  std::optional<std::string> model_fingerprint;
  std::vector<std::pair<std::string, std::string>> labels;  // Key and value are equal.
  std::optional<std::string> parent;                        // Has this parent.
  bool roots_only = false;
  absl::Time created_from = absl::InfinitePast();      // Inclusive.
  absl::Time created_before = absl::InfiniteFuture();  // Exclusive.
};

struct ListRequest {
  std::string tenant;
  NodeFilter filter;
  ListOrder order = ListOrder::kOldestFirst;
  int page_size = 100;  // 1 to 1,000.
  // Empty for the first page, else NodePage::next_page_token of the same tenant, filter, order.
  std::string page_token;
};

struct NodePage {
  std::vector<NodeRecord> nodes;        // Without contents.
  std::vector<std::string> unreadable;  // Ids of nodes in this range whose records are damaged; GetNode says how.
  std::string next_page_token;          // Empty at the end. Printable.
};

struct DeleteReport {
  std::vector<std::string> node_ids;  // Children before their parents.
  uint64_t blocks = 0;                // Deleted because nothing refers to them any more.
  uint64_t stored_bytes = 0;          // Of those blocks.
};

struct DeleteOptions {
  // Deletes all descendants with the node, also those that have other parents besides (MERGE).
  bool force = false;
  // Where not empty, the node's etag must be this one.
  std::string etag;
  // Remembered with the last of the atomic steps.
  std::optional<AnsweredRequest<DeleteReport>> request;
};

struct UpdateOptions {
  // Where not empty, the node's etag must be this one.
  std::string etag;
  // Answered from the record after the change, without contents.
  std::optional<AnsweredRequest<NodeRecord>> request;
};

struct GarbageReport {
  uint64_t blocks = 0;
  uint64_t stored_bytes = 0;
};

struct VerifyReport {
  uint64_t blocks = 0;                // Blocks and state values that were read and are whole.
  uint64_t bytes = 0;                 // Of those.
  std::vector<std::string> problems;  // One sentence for each thing missing or damaged; empty where all is well.
};

struct StoreStats {
  uint32_t format_version = 0;  // Of what is on disk.
  uint64_t nodes = 0;
  uint64_t blocks = 0;
  uint64_t block_raw_bytes = 0;
  uint64_t block_stored_bytes = 0;
  uint64_t state_bytes = 0;
  uint64_t disk_used_bytes = 0;  // Files of the store, deleted data that was not yet reclaimed included.
  uint64_t disk_free_bytes = 0;
  bool writable = true;     // False while the last write failed and no later one has succeeded.
  std::string write_error;  // Why not.
};

struct Profile {
  std::string id;
  std::string bytes;
};

// What a list says of a profile.
struct ProfileInfo {
  std::string codec;
  std::string id;
  uint64_t size_bytes = 0;
  std::optional<absl::Time> create_time;  // When it was first put; absent where a program before format 2 did that.
  bool current = false;                   // GetProfile without an id gives it.
};

// A node that begins with given tokens.
struct NodeBeginning {
  NodeRecord node;         // With contents.
  uint32_t in_common = 0;  // Tokens, from the first.
};

// A string that changes whenever the node changes, and differs between nodes that had the same id one after the other.
std::string EtagOf(const NodeRecord& record);

class BlockPinTable;

// While it lives, deletes and garbage collection spare the blocks it names, whether anything refers to them or not.
// Movable; may outlive the store.
class BlockPin {
 public:
  BlockPin() = default;
  BlockPin(BlockPin&& other) noexcept = default;
  BlockPin& operator=(BlockPin&& other) noexcept;
  ~BlockPin();

  // For each id given to PinBlocks, in order: was the block stored, and not known to be damaged, when it was pinned? If
  // so, it stays.
  const std::vector<bool>& present() const { return present_; }

 private:
  friend class Store;
  void Release();

  std::shared_ptr<BlockPinTable> table_;
  std::vector<std::string> keys_;
  std::vector<bool> present_;
};

// An open store. All methods may be called from any thread. Writers wait for each other, readers for nobody.
//
// Errors that every method may return, besides those that it names:
//   INVALID_ARGUMENT    a name or a size is not allowed; the message says which and the rule.
//   DATA_LOSS           stored bytes are damaged or missing; the message names the node or block. Never other bytes.
//   RESOURCE_EXHAUSTED  (writers) the disk is full, or nearly (`min_free_disk_bytes`). Reads go on, and deletes
//                       while there is any space; writes work again as soon as there is enough.
//   UNAVAILABLE         the disk failed. After a failed write all writes fail until the store is opened again, and it
//                       is undecided until then whether the change took place; if it did, it did wholly.
class Store {
 public:
  // Opens the store in `options.path`, or makes an empty one.
  // FAILED_PRECONDITION: another process or Store has it open, its parent directory does not exist, permission is
  // missing, or its format is newer than kStoreFormatVersion (the message gives both versions). DATA_LOSS: its files
  // are damaged beyond what can be read around.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const StoreOptions& options);

  // Closes the store; waits for running writes. No method may be running.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Stores a node with its blocks, edges, state, and answer in one atomic and (kSync) durable step; returns the record
  // as stored, without contents. ALREADY_EXISTS: the node id is taken. FAILED_PRECONDITION: a parent does not exist, or
  // a block is neither given nor stored whole. ABORTED: the request id was answered meanwhile (see FindRequest). A
  // block that is known to be damaged is written anew from the given bytes, which mends every node that refers to it.
  absl::StatusOr<NodeRecord> CommitNode(const NodeCommit& commit);

  // The node with its contents. NOT_FOUND: there is none.
  absl::StatusOr<NodeRecord> GetNode(absl::string_view tenant, absl::string_view node_id) const;

  // The nodes without contents, in the order of the ids; nothing in place of those that do not exist.
  absl::StatusOr<std::vector<std::optional<NodeRecord>>> GetNodes(absl::string_view tenant,
                                                                  absl::Span<const std::string> node_ids) const;

  // One page of nodes in the order of their creation. Every node that exists from the first page to the last and meets
  // the filter is listed exactly once, whatever is added or deleted meanwhile. A page may be short, or even empty, and
  // still have a successor: at most 10,000 records are looked at for each.
  absl::StatusOr<NodePage> ListNodes(const ListRequest& request) const;

  // Lets `mutator` change the annotations of a node and returns the new record, without contents. The mutator runs
  // with the store's lock held: it must not call the store. Its error leaves the node as it was and is returned.
  // NOT_FOUND; ABORTED: wrong etag, or the request id was answered meanwhile.
  absl::StatusOr<NodeRecord> UpdateNode(absl::string_view tenant, absl::string_view node_id,
                                        const UpdateOptions& options,
                                        absl::FunctionRef<absl::Status(NodeAnnotations&)> mutator);

  // Changes the encodings of a node in one atomic and (kSync) durable step: adds blocks that are not stored yet,
  // deletes blocks to which nothing refers any more unless they are pinned, and returns the new record, without
  // contents. NOT_FOUND: no such node, or what is to be removed is not there. ABORTED: wrong etag, or the request id
  // was answered meanwhile. FAILED_PRECONDITION: the node would be left without an encoding of all of its tokens, or a
  // block is neither given nor stored whole. INVALID_ARGUMENT: the blocks of an encoding do not follow each other from
  // the first token to the last, a residual has no block, an encoding is named twice, nothing is changed. Reading the
  // node as it was, block by block, fails with NOT_FOUND from then on where blocks are gone: who reads pins them first,
  // or reads the node again.
  absl::StatusOr<NodeRecord> ChangeEncodings(absl::string_view tenant, absl::string_view node_id,
                                             const EncodingChange& change);

  // Deletes a node, and blocks to which nothing refers any more unless they are pinned.
  // NOT_FOUND; ABORTED: wrong etag, or the request id was answered meanwhile; FAILED_PRECONDITION: it has children (the
  // message names some) and no `force`; DATA_LOSS: its record is unreadable, and there is no `force`, or an etag.
  // Other damage hinders no deletion: what the record and contents do not tell is looked for in all keys of the tenant,
  // which takes a while, and sizes that cannot be read stay in the totals.
  // Big subtrees go in several atomic steps, children before parents: after a failure the graph is whole, and
  // the call may be repeated.
  absl::StatusOr<DeleteReport> DeleteNode(absl::string_view tenant, absl::string_view node_id,
                                          const DeleteOptions& options = {});

  // Of the nodes of a model that keep their exact bits and have no lossy tokens, the one with the most tokens in common
  // with `tokens` from the first on, the newest of equal ones. Of nodes that part from `tokens` within the same 128
  // tokens, counted from the first, only the newest few are compared. NOT_FOUND: none has 128 in common. Nodes that
  // were last written by a program without this index are not found, and what is damaged is passed over.
  absl::StatusOr<NodeBeginning> FindBeginning(absl::string_view tenant, absl::string_view model_fingerprint,
                                              absl::Span<const int32_t> tokens) const;

  // Edges to children (ordered by id) and to parents (ordered as in the record). NOT_FOUND: there is no such node.
  absl::StatusOr<std::vector<Edge>> Children(absl::string_view tenant, absl::string_view node_id) const;
  absl::StatusOr<std::vector<Edge>> Parents(absl::string_view tenant, absl::string_view node_id) const;

  // A block's bytes, exactly as they were given to CommitNode.
  // NOT_FOUND: nothing refers to such a block. DATA_LOSS: something does, and it is missing or damaged, which is
  // remembered as by ReportDamaged.
  absl::StatusOr<std::string> ReadBlock(absl::string_view tenant, absl::string_view model_fingerprint,
                                        const BlockId& id) const;

  // Remembers, as long as the store is open, that a block's bytes are not what its id says: PinBlocks calls it absent
  // and CommitNode takes new bytes for it. For damage that only who decodes a block can see.
  void ReportDamaged(absl::string_view tenant, absl::string_view model_fingerprint, const BlockId& id);

  // Keeps blocks from deletion until a commit that counts on them is done, and says which are stored and not known to
  // be damaged.
  absl::StatusOr<BlockPin> PinBlocks(absl::string_view tenant, absl::string_view model_fingerprint,
                                     absl::Span<const BlockId> ids);

  // A big value of a node. NOT_FOUND: no such node, or it has no value of this name.
  absl::StatusOr<std::string> GetState(absl::string_view tenant, absl::string_view node_id,
                                       absl::string_view name) const;

  // Stores a codec profile for a model, of at most 256 MiB, and makes it the current one; profiles are never changed or
  // deleted. ALREADY_EXISTS: the id is taken by other bytes (equal ones are fine). Takes about twice the
  // profile's size of memory besides, until it is written out, and other writers wait while it is written.
  absl::Status PutProfile(absl::string_view model_fingerprint, absl::string_view codec, const Profile& profile);

  // The profile of that id, or the current one where `id` is empty. NOT_FOUND: there is none. Takes twice its size of
  // memory for a moment.
  absl::StatusOr<Profile> GetProfile(absl::string_view model_fingerprint, absl::string_view codec,
                                     absl::string_view id = "") const;

  // The profiles of a model, by codec and id; none where there are none. Reads none of them, but for those that a
  // program before format 2 put.
  absl::StatusOr<std::vector<ProfileInfo>> ListProfiles(absl::string_view model_fingerprint) const;

  // The first answer to a request id. NOT_FOUND: not answered, or forgotten.
  absl::StatusOr<RememberedRequest> FindRequest(absl::string_view tenant, absl::string_view method,
                                                absl::string_view request_id) const;

  // Forgets answers given before `time`; returns how many.
  absl::StatusOr<uint64_t> ForgetRequests(absl::Time time);

  // Deletes blocks to which nothing refers and which are not pinned, and what older programs left in the index of
  // beginnings. Safe beside everything else. DATA_LOSS: some were deleted, others lie behind damage in the files.
  absl::StatusOr<GarbageReport> CollectGarbage();

  // Rewrites files so that deleted data gives its disk space back at once (else it does so over time). Needs room for a
  // copy of the largest files; slow.
  absl::Status Compact();

  // Totals. Constant time.
  absl::StatusOr<StoreStats> Stats() const;

  // Reads everything that a node consists of. NOT_FOUND: no such node. DATA_LOSS: its record or its contents are
  // unreadable. All else is in the report.
  absl::StatusOr<VerifyReport> VerifyNode(absl::string_view tenant, absl::string_view node_id) const;

 private:
  struct Parts;
  explicit Store(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_STORE_H_
