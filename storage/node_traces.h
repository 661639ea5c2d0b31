// What the store holds of a node whose record or contents cannot be read. Each function looks through the keys of the
// whole tenant; what is itself unreadable is left out.
#ifndef QUICKSAVE_STORAGE_NODE_TRACES_H_
#define QUICKSAVE_STORAGE_NODE_TRACES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/database.h"

namespace quicksave::storage {

// Keys of the blocks to which the node refers.
absl::StatusOr<std::vector<std::string>> FindBlocks(const Database& database, absl::string_view tenant,
                                                    absl::string_view node_id);

// The node's keys in `indexes`.
absl::StatusOr<std::vector<std::string>> FindIndexKeys(const Database& database, absl::string_view tenant,
                                                       absl::string_view node_id);

// Keys in `edges` between the node and its parents, in both directions. Looks at the node's own only.
absl::StatusOr<std::vector<std::string>> FindParentEdges(const Database& database, absl::string_view tenant,
                                                         absl::string_view node_id);

// Bytes of the node's state values. Looks at the node's own only.
absl::StatusOr<uint64_t> FindStateBytes(const Database& database, absl::string_view tenant, absl::string_view node_id);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_TRACES_H_
