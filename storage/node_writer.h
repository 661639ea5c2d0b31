// Making nodes and changing their annotations.
#ifndef QUICKSAVE_STORAGE_NODE_WRITER_H_
#define QUICKSAVE_STORAGE_NODE_WRITER_H_

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// As the methods of Store with these names.
absl::StatusOr<NodeRecord> CommitNode(const NodeCommit& commit, WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);
absl::StatusOr<NodeRecord> UpdateNode(absl::string_view tenant, absl::string_view node_id, const UpdateOptions& options,
                                      absl::FunctionRef<absl::Status(NodeAnnotations&)> mutator, WriterState* state)
    ABSL_LOCKS_EXCLUDED(state->mutex);

// OK, or ABORTED if `etag` is neither empty nor the record's.
absl::Status CheckEtag(const NodeRecord& record, absl::string_view etag);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_WRITER_H_
