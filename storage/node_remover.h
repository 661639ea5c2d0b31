// Deleting nodes and blocks.
#ifndef QUICKSAVE_STORAGE_NODE_REMOVER_H_
#define QUICKSAVE_STORAGE_NODE_REMOVER_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// As the methods of Store with these names.
absl::StatusOr<DeleteReport> DeleteNode(absl::string_view tenant, absl::string_view node_id,
                                        const DeleteOptions& options, WriterState* state)
    ABSL_LOCKS_EXCLUDED(state->mutex);
absl::StatusOr<GarbageReport> CollectGarbage(WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_REMOVER_H_
