// Keys of the column families. Byte by byte in docs/formats/store.md.
//
// Strings that others follow are written so that they keep their order and end unmistakably: 0x00 becomes 0x00 0xFF,
// and 0x00 0x01 ends the string. Integers are big endian.
#ifndef QUICKSAVE_STORAGE_KEYS_H_
#define QUICKSAVE_STORAGE_KEYS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "storage/store.h"

namespace quicksave::storage {

inline constexpr size_t kContentIdBytes = 16;

// Appends `text` so that it keeps its order and its end can be found.
void AppendEscaped(std::string* key, absl::string_view text);

// Takes an escaped string off the front of `*key`. Nothing if there is none, in which case `*key` is as it was.
std::optional<std::string> ConsumeEscaped(absl::string_view* key);

// Appends microseconds so that byte order is time order.
void AppendTime(std::string* key, int64_t time_us);

// `nodes` and `contents`.
std::string NodeKey(absl::string_view tenant, absl::string_view node_id);

// `state`.
std::string StateKey(absl::string_view tenant, absl::string_view node_id, absl::string_view name);

// `edges`, from the parent: the prefix of all of its children, and one of them.
std::string ChildPrefix(absl::string_view tenant, absl::string_view parent);
std::string ChildKey(absl::string_view tenant, absl::string_view parent, absl::string_view child);

// `edges`, from the child: the prefix of all of its parents, and the one at `position` of the record's list.
std::string ParentPrefix(absl::string_view tenant, absl::string_view child);
std::string ParentKey(absl::string_view tenant, absl::string_view child, uint32_t position, absl::string_view parent);
// Length of what stands between ParentPrefix and the parent's id.
inline constexpr size_t kParentPositionBytes = 4;

// `blocks`, and the entry of the block in `references`.
std::string BlockKey(absl::string_view tenant, absl::string_view model_fingerprint, const BlockId& id);

// `references`: a node's reference to the block with that key.
std::string ReferenceKey(absl::string_view block_key, absl::string_view node_id);

// A key of `references`, taken apart.
struct ParsedReference {
  absl::string_view block_key;
  absl::string_view node_id;  // Empty: the entry of the block itself.
};
// Nothing if it is no such key.
std::optional<ParsedReference> ParseReferenceKey(absl::string_view key);

// `indexes`: prefixes under which nodes stand as (create time, node id).
std::string AllNodesPrefix(absl::string_view tenant);
std::string RootsPrefix(absl::string_view tenant);
std::string ModelPrefix(absl::string_view tenant, absl::string_view model_fingerprint);
std::string ChildrenByTimePrefix(absl::string_view tenant, absl::string_view parent);
std::string LabelPrefix(absl::string_view tenant, absl::string_view label, absl::string_view value);
// Of nodes that begin with tokens of this hash, see beginning_index.h; and of all such keys, whatever the tenant.
std::string BeginningPrefix(absl::string_view tenant, absl::string_view model_fingerprint, uint64_t hash);
inline constexpr absl::string_view kBeginningsPrefix = "b";
// What follows the prefix.
std::string IndexTail(int64_t create_time_us, absl::string_view node_id);
inline constexpr size_t kIndexTimeBytes = 8;

// Every key under which `record` stands in `indexes`, but for its beginnings.
std::vector<std::string> IndexKeys(const NodeRecord& record);

// Prefixes that together cover every key of a tenant in `indexes`.
std::vector<std::string> IndexPrefixes(absl::string_view tenant);
// The node that a key of `indexes` stands for; empty if it is no such key.
absl::string_view IndexedNode(absl::string_view key);
// Its tenant; nothing if it is no such key.
std::optional<std::string> IndexedTenant(absl::string_view key);

// `profiles`: a profile, its entry, and the name of the current one.
std::string ProfileKey(absl::string_view model_fingerprint, absl::string_view codec, absl::string_view id);
std::string ProfileEntryKey(absl::string_view model_fingerprint, absl::string_view codec, absl::string_view id);
std::string CurrentProfileKey(absl::string_view model_fingerprint, absl::string_view codec);
// The prefixes of all profiles of a model, and of all entries; equal suffixes are of one profile.
std::string ProfilesPrefix(absl::string_view model_fingerprint);
std::string ProfileEntriesPrefix(absl::string_view model_fingerprint);

// `request_ids`: an answer, and its place in the order of time.
std::string RequestKey(absl::string_view tenant, absl::string_view method, absl::string_view request_id);
std::string RequestTimeKey(int64_t time_us, absl::string_view request_key);
inline constexpr absl::string_view kRequestTimePrefix = "t";

// The least string that is greater than every string with this prefix; empty if there is none.
std::string PrefixEnd(absl::string_view prefix);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_KEYS_H_
