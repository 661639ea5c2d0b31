#include "storage/keys.h"

#include <initializer_list>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quicksave::storage {
namespace {

constexpr char kEscape = '\x00';
constexpr char kEscapedZero = '\xff';
constexpr char kEnd = '\x01';

// The kinds of keys in `indexes`, and how many strings each has between the kind and the time.
struct IndexKind {
  absl::string_view kind;
  int strings;
};
constexpr IndexKind kIndexKinds[] = {{"a", 1}, {"r", 1}, {"m", 2}, {"p", 2}, {"l", 3}, {"b", 3}};

void AppendBigEndian32(std::string* key, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) key->push_back(static_cast<char>(value >> shift));
}

void AppendBigEndian64(std::string* key, uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) key->push_back(static_cast<char>(value >> shift));
}

std::string Prefix(absl::string_view kind, std::initializer_list<absl::string_view> parts) {
  std::string key(kind);
  for (absl::string_view part : parts) AppendEscaped(&key, part);
  return key;
}

}  // namespace

void AppendEscaped(std::string* key, absl::string_view text) {
  for (char c : text) {
    key->push_back(c);
    if (c == kEscape) key->push_back(kEscapedZero);
  }
  key->push_back(kEscape);
  key->push_back(kEnd);
}

std::optional<std::string> ConsumeEscaped(absl::string_view* key) {
  std::string text;
  for (size_t i = 0; i < key->size(); ++i) {
    if ((*key)[i] != kEscape) {
      text.push_back((*key)[i]);
      continue;
    }
    if (++i == key->size()) return std::nullopt;
    if ((*key)[i] == kEnd) {
      key->remove_prefix(i + 1);
      return text;
    }
    if ((*key)[i] != kEscapedZero) return std::nullopt;
    text.push_back(kEscape);
  }
  return std::nullopt;
}

void AppendTime(std::string* key, int64_t time_us) {
  AppendBigEndian64(key, static_cast<uint64_t>(time_us) ^ (uint64_t{1} << 63));
}

std::string NodeKey(absl::string_view tenant, absl::string_view node_id) {
  return absl::StrCat(Prefix("", {tenant}), node_id);
}

std::string StateKey(absl::string_view tenant, absl::string_view node_id, absl::string_view name) {
  return absl::StrCat(Prefix("", {tenant, node_id}), name);
}

std::string ChildPrefix(absl::string_view tenant, absl::string_view parent) { return Prefix("c", {tenant, parent}); }

std::string ChildKey(absl::string_view tenant, absl::string_view parent, absl::string_view child) {
  return absl::StrCat(ChildPrefix(tenant, parent), child);
}

std::string ParentPrefix(absl::string_view tenant, absl::string_view child) { return Prefix("p", {tenant, child}); }

std::string ParentKey(absl::string_view tenant, absl::string_view child, uint32_t position, absl::string_view parent) {
  std::string key = ParentPrefix(tenant, child);
  AppendBigEndian32(&key, position);
  return absl::StrCat(key, parent);
}

std::string BlockKey(absl::string_view tenant, absl::string_view model_fingerprint, const BlockId& id) {
  std::string key = Prefix("", {tenant, model_fingerprint});
  key += id.content_id;
  AppendEscaped(&key, id.codec);
  return key;
}

std::string ReferenceKey(absl::string_view block_key, absl::string_view node_id) {
  return absl::StrCat(block_key, node_id);
}

std::optional<ParsedReference> ParseReferenceKey(absl::string_view key) {
  absl::string_view rest = key;
  if (!ConsumeEscaped(&rest) || !ConsumeEscaped(&rest) || rest.size() < kContentIdBytes) return std::nullopt;
  rest.remove_prefix(kContentIdBytes);
  if (!ConsumeEscaped(&rest)) return std::nullopt;
  return ParsedReference{key.substr(0, key.size() - rest.size()), rest};
}

std::string AllNodesPrefix(absl::string_view tenant) { return Prefix("a", {tenant}); }

std::string RootsPrefix(absl::string_view tenant) { return Prefix("r", {tenant}); }

std::string ModelPrefix(absl::string_view tenant, absl::string_view model_fingerprint) {
  return Prefix("m", {tenant, model_fingerprint});
}

std::string ChildrenByTimePrefix(absl::string_view tenant, absl::string_view parent) {
  return Prefix("p", {tenant, parent});
}

std::string LabelPrefix(absl::string_view tenant, absl::string_view label, absl::string_view value) {
  return Prefix("l", {tenant, label, value});
}

std::string BeginningPrefix(absl::string_view tenant, absl::string_view model_fingerprint, uint64_t hash) {
  std::string bytes;
  AppendBigEndian64(&bytes, hash);
  return Prefix(kBeginningsPrefix, {tenant, model_fingerprint, bytes});
}

std::string IndexTail(int64_t create_time_us, absl::string_view node_id) {
  std::string tail;
  AppendTime(&tail, create_time_us);
  return absl::StrCat(tail, node_id);
}

std::vector<std::string> IndexKeys(const NodeRecord& record) {
  const std::string tail = IndexTail(record.create_time_us(), record.node_id());
  const std::string& tenant = record.tenant();
  std::vector<std::string> keys = {AllNodesPrefix(tenant) + tail,
                                   ModelPrefix(tenant, record.model_fingerprint()) + tail};
  if (record.parents().empty()) keys.push_back(RootsPrefix(tenant) + tail);
  for (const ParentEdge& parent : record.parents()) {
    keys.push_back(ChildrenByTimePrefix(tenant, parent.node_id()) + tail);
  }
  for (const auto& [label, value] : record.annotations().labels()) {
    keys.push_back(LabelPrefix(tenant, label, value) + tail);
  }
  return keys;
}

std::vector<std::string> IndexPrefixes(absl::string_view tenant) {
  std::vector<std::string> prefixes;
  for (const IndexKind& index : kIndexKinds) prefixes.push_back(Prefix(index.kind, {tenant}));
  return prefixes;
}

absl::string_view IndexedNode(absl::string_view key) {
  for (const IndexKind& index : kIndexKinds) {
    if (!absl::StartsWith(key, index.kind)) continue;
    absl::string_view rest = key.substr(1);
    for (int i = 0; i < index.strings; ++i) {
      if (!ConsumeEscaped(&rest)) return {};
    }
    return rest.size() > kIndexTimeBytes ? rest.substr(kIndexTimeBytes) : absl::string_view();
  }
  return {};
}

std::optional<std::string> IndexedTenant(absl::string_view key) {
  if (IndexedNode(key).empty()) return std::nullopt;
  key.remove_prefix(1);
  return ConsumeEscaped(&key);
}

std::string ProfileKey(absl::string_view model_fingerprint, absl::string_view codec, absl::string_view id) {
  return absl::StrCat(Prefix("p", {model_fingerprint, codec}), id);
}

std::string ProfileEntryKey(absl::string_view model_fingerprint, absl::string_view codec, absl::string_view id) {
  return absl::StrCat(Prefix("e", {model_fingerprint, codec}), id);
}

std::string ProfilesPrefix(absl::string_view model_fingerprint) { return Prefix("p", {model_fingerprint}); }

std::string ProfileEntriesPrefix(absl::string_view model_fingerprint) { return Prefix("e", {model_fingerprint}); }

std::string CurrentProfileKey(absl::string_view model_fingerprint, absl::string_view codec) {
  return Prefix("c", {model_fingerprint, codec});
}

std::string RequestKey(absl::string_view tenant, absl::string_view method, absl::string_view request_id) {
  return absl::StrCat(Prefix("a", {tenant, method}), request_id);
}

std::string RequestTimeKey(int64_t time_us, absl::string_view request_key) {
  std::string key(kRequestTimePrefix);
  AppendTime(&key, time_us);
  return absl::StrCat(key, request_key);
}

std::string PrefixEnd(absl::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) ++end.back();
  return end;
}

}  // namespace quicksave::storage
