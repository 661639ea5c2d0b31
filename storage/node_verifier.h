// Checking that a node is whole.
#ifndef QUICKSAVE_STORAGE_NODE_VERIFIER_H_
#define QUICKSAVE_STORAGE_NODE_VERIFIER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/database.h"
#include "storage/store.h"

namespace quicksave::storage {

// As the method of Store with this name.
absl::StatusOr<VerifyReport> VerifyNode(const Database& database, absl::string_view tenant, absl::string_view node_id);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_VERIFIER_H_
