// Listing nodes page by page.
#ifndef QUICKSAVE_STORAGE_NODE_LISTING_H_
#define QUICKSAVE_STORAGE_NODE_LISTING_H_

#include "absl/status/statusor.h"
#include "storage/database.h"
#include "storage/store.h"

namespace quicksave::storage {

// As the method of Store with this name.
absl::StatusOr<NodePage> ListNodes(const Database& database, const ListRequest& given);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_LISTING_H_
