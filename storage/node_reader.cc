#include "storage/node_reader.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/keys.h"

namespace quicksave::storage {
namespace {

constexpr size_t kEdgeBytes = 5;

absl::StatusOr<Edge> DecodeEdge(absl::string_view payload, absl::string_view other, absl::string_view what) {
  if (payload.size() != kEdgeBytes || !v1::EdgeType_IsValid(payload[0])) {
    return absl::DataLossError(absl::StrCat(what, ": the stored edge has the wrong form"));
  }
  uint32_t at_token = 0;
  for (char c : payload.substr(1)) at_token = at_token << 8 | static_cast<unsigned char>(c);
  return Edge{std::string(other), static_cast<EdgeType>(payload[0]), at_token};
}

// The edges under `prefix`; the other node's id begins `skip` bytes after it.
absl::StatusOr<std::vector<Edge>> ReadEdges(const Database& database, absl::string_view prefix, size_t skip,
                                            absl::string_view what, const Snapshot* snapshot) {
  std::vector<Edge> edges;
  const std::unique_ptr<Scan> scan = database.NewScan(Family::kEdges, prefix, snapshot);
  for (; scan->Valid(); scan->Next()) {
    absl::StatusOr<absl::string_view> payload = scan->value(what);
    if (!payload.ok()) return payload.status();
    absl::StatusOr<Edge> edge =
        DecodeEdge(*payload, scan->suffix().substr(std::min(skip, scan->suffix().size())), what);
    if (!edge.ok()) return edge.status();
    edges.push_back(*std::move(edge));
  }
  if (!scan->status().ok()) return scan->status();
  return edges;
}

absl::StatusOr<std::vector<Edge>> EdgesOf(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                          absl::string_view prefix, size_t skip) {
  const auto snapshot = database.NewSnapshot();
  if (auto head = ReadHead(database, tenant, node_id, snapshot.get()); !head.ok()) return head.status();
  return ReadEdges(database, prefix, skip, absl::StrCat("edges of ", NodeName(node_id)), snapshot.get());
}

}  // namespace

std::string NodeName(absl::string_view node_id) { return absl::StrCat("nodes/", node_id); }

absl::StatusOr<NodeRecord> ParseHead(absl::string_view payload, absl::string_view tenant, absl::string_view node_id) {
  NodeRecord record;
  const std::string what = NodeName(node_id);
  if (!record.ParseFromArray(payload.data(), static_cast<int>(payload.size())) || record.tenant() != tenant ||
      record.node_id() != node_id) {
    return absl::DataLossError(absl::StrCat(what, ": the stored bytes are not its record"));
  }
  return record;
}

absl::StatusOr<NodeRecord> ReadHead(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                    const Snapshot* snapshot) {
  absl::StatusOr<std::string> payload =
      database.Get(Family::kNodes, NodeKey(tenant, node_id), NodeName(node_id), snapshot);
  if (!payload.ok()) return payload.status();
  return ParseHead(*payload, tenant, node_id);
}

absl::StatusOr<NodeContents> ReadContents(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                          const Snapshot* snapshot) {
  NodeContents contents;
  const std::string what = absl::StrCat("contents of ", NodeName(node_id));
  absl::Status status = database.GetMessage(Family::kContents, NodeKey(tenant, node_id), what, &contents, snapshot);
  if (absl::IsNotFound(status)) return absl::DataLossError(absl::StrCat(what, ": missing"));
  if (!status.ok()) return status;
  return contents;
}

std::string EncodeEdge(const ParentEdge& edge) {
  std::string payload(1, static_cast<char>(edge.type()));
  for (int shift = 24; shift >= 0; shift -= 8) payload.push_back(static_cast<char>(edge.at_token() >> shift));
  return payload;
}

absl::StatusOr<NodeRecord> GetNode(const Database& database, absl::string_view tenant, absl::string_view node_id) {
  const auto snapshot = database.NewSnapshot();
  absl::StatusOr<NodeRecord> record = ReadHead(database, tenant, node_id, snapshot.get());
  if (!record.ok()) return record.status();
  absl::StatusOr<NodeContents> contents = ReadContents(database, tenant, node_id, snapshot.get());
  if (!contents.ok()) return contents.status();
  *record->mutable_contents() = *std::move(contents);
  return record;
}

absl::StatusOr<std::vector<std::optional<NodeRecord>>> GetNodes(const Database& database, absl::string_view tenant,
                                                                absl::Span<const std::string> node_ids) {
  std::vector<std::string> keys, names;
  for (const std::string& node_id : node_ids) {
    keys.push_back(NodeKey(tenant, node_id));
    names.push_back(NodeName(node_id));
  }
  std::vector<std::optional<NodeRecord>> records;
  const std::vector<absl::StatusOr<std::string>> payloads = database.MultiGet(Family::kNodes, keys, names);
  for (size_t i = 0; i < payloads.size(); ++i) {
    if (absl::IsNotFound(payloads[i].status())) {
      records.emplace_back();
      continue;
    }
    if (!payloads[i].ok()) return payloads[i].status();
    absl::StatusOr<NodeRecord> record = ParseHead(*payloads[i], tenant, node_ids[i]);
    if (!record.ok()) return record.status();
    records.emplace_back(*std::move(record));
  }
  return records;
}

absl::StatusOr<std::vector<Edge>> Children(const Database& database, absl::string_view tenant,
                                           absl::string_view node_id) {
  return EdgesOf(database, tenant, node_id, ChildPrefix(tenant, node_id), 0);
}

absl::StatusOr<std::vector<Edge>> Parents(const Database& database, absl::string_view tenant,
                                          absl::string_view node_id) {
  return EdgesOf(database, tenant, node_id, ParentPrefix(tenant, node_id), kParentPositionBytes);
}

absl::StatusOr<std::string> GetState(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                     absl::string_view name, const Snapshot* snapshot) {
  const std::string what = absl::StrCat("state value ", name, " of ", NodeName(node_id));
  const std::string key = StateKey(tenant, node_id, name);
  absl::StatusOr<std::string> value = database.Get(Family::kState, key, what, snapshot);
  if (value.ok() || !absl::IsNotFound(value.status())) return value;
  // Absent: rightly so, unless the record of the same moment names it.
  const auto now = database.NewSnapshot();
  value = database.Get(Family::kState, key, what, now.get());
  if (value.ok() || !absl::IsNotFound(value.status())) return value;
  absl::StatusOr<NodeRecord> head = ReadHead(database, tenant, node_id, now.get());
  if (!head.ok()) return head.status();
  const bool named = std::any_of(head->state().begin(), head->state().end(),
                                 [&](const v1::StateRef& ref) { return ref.name() == name; });
  if (named) return absl::DataLossError(absl::StrCat(what, ": missing"));
  return value;
}

}  // namespace quicksave::storage
