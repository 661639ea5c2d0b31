#ifndef QUICKSAVE_SERVER_SERVICE_SAVING_H_
#define QUICKSAVE_SERVER_SERVICE_SAVING_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/archive/archive.h"
#include "server/service/core.h"

namespace quicksave::server {

// INVALID_ARGUMENT unless `options` can be saved with. Called before work is done that saving would come after.
absl::Status CheckSaveOptions(const v1::SaveOptions& options);

// Saves a state as a node, with its remembered answer when the call has a request_id. Errors are those of
// Archive::Save.
absl::StatusOr<SavedNode> SaveState(Core& core, const SessionState& state, const v1::SaveOptions& options,
                                    std::optional<storage::AnsweredRequest<storage::NodeRecord>> request);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_SAVING_H_
