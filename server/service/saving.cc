#include "server/service/saving.h"

#include <utility>

#include "server/service/convert.h"
#include "storage/validation.h"

namespace quicksave::server {
namespace {

std::optional<storage::EdgeType> EdgeTypeOf(v1::EdgeType type) {
  switch (type) {
    case v1::EDGE_TYPE_CONTINUATION:
      return storage::v1::EDGE_TYPE_CONTINUATION;
    case v1::EDGE_TYPE_INTERVENTION:
      return storage::v1::EDGE_TYPE_INTERVENTION;
    case v1::EDGE_TYPE_COUNTERFACTUAL:
      return storage::v1::EDGE_TYPE_COUNTERFACTUAL;
    default:
      return std::nullopt;
  }
}

}  // namespace

absl::Status CheckSaveOptions(const v1::SaveOptions& options) {
  if (options.edge_type() != v1::EDGE_TYPE_UNSPECIFIED && !EdgeTypeOf(options.edge_type())) {
    return absl::InvalidArgumentError(
        "save.edge_type must be CONTINUATION, INTERVENTION or COUNTERFACTUAL; a MERGE is not made by saving a session");
  }
  storage::NodeAnnotations annotations;
  *annotations.mutable_labels() = options.labels();
  annotations.set_note(options.note());
  return storage::ValidateAnnotations(annotations);
}

absl::StatusOr<SavedNode> SaveState(Core& core, const SessionState& state, const v1::SaveOptions& options,
                                    std::optional<storage::AnsweredRequest<storage::NodeRecord>> request) {
  SaveRequest save{.state = state,
                   .tenant = Core::kTenant,
                   .labels = {options.labels().begin(), options.labels().end()},
                   .note = options.note(),
                   .edge_type = EdgeTypeOf(options.edge_type()),
                   .text_tail = TextTail(core, state.sequence.tokens()),
                   .request = std::move(request)};
  return core.archive->Save(save);
}

}  // namespace quicksave::server
