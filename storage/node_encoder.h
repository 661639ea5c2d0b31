// Changing how a node is encoded.
#ifndef QUICKSAVE_STORAGE_NODE_ENCODER_H_
#define QUICKSAVE_STORAGE_NODE_ENCODER_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// As the method of Store with this name.
absl::StatusOr<NodeRecord> ChangeEncodings(absl::string_view tenant, absl::string_view node_id,
                                           const EncodingChange& change, WriterState* state)
    ABSL_LOCKS_EXCLUDED(state->mutex);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_NODE_ENCODER_H_
