// Reading nodes: records, edges, big values.
#ifndef QUICKSAVE_STORAGE_NODE_READER_H_
#define QUICKSAVE_STORAGE_NODE_READER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/database.h"
#include "storage/store.h"

namespace quicksave::storage {

// "nodes/ID", as messages name it.
std::string NodeName(absl::string_view node_id);

// A node's record without contents. NOT_FOUND; DATA_LOSS.
absl::StatusOr<NodeRecord> ReadHead(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                    const Snapshot* snapshot = nullptr);

// Takes a stored record apart that was found under this name. DATA_LOSS.
absl::StatusOr<NodeRecord> ParseHead(absl::string_view payload, absl::string_view tenant, absl::string_view node_id);

// A node's contents. DATA_LOSS also if there are none: the record was there.
absl::StatusOr<NodeContents> ReadContents(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                          const Snapshot* snapshot = nullptr);

// What stands under an edge's key.
std::string EncodeEdge(const ParentEdge& edge);

// As the methods of Store with these names.
absl::StatusOr<NodeRecord> GetNode(const Database& database, absl::string_view tenant, absl::string_view node_id);
absl::StatusOr<std::vector<std::optional<NodeRecord>>> GetNodes(const Database& database, absl::string_view tenant,
                                                                absl::Span<const std::string> node_ids);
absl::StatusOr<std::vector<Edge>> Children(const Database& database, absl::string_view tenant,
                                           absl::string_view node_id);
absl::StatusOr<std::vector<Edge>> Parents(const Database& database, absl::string_view tenant,
                                          absl::string_view node_id);
absl::StatusOr<std::string> GetState(const Database& database, absl::string_view tenant, absl::string_view node_id,
                                     absl::string_view name, const Snapshot* snapshot = nullptr);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_READER_H_
