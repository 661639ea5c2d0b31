#ifndef QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_
#define QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_

#include "absl/status/status.h"
#include "google/protobuf/field_mask.pb.h"
#include "quicksave/v1/node.pb.h"
#include "storage/store.h"

namespace quicksave::server {

// Does to `annotations` what an UpdateNode with this node and mask says, see graph_service.proto. INVALID_ARGUMENT,
// naming the path, for a mask that is empty or names what cannot be changed; `annotations` is then unspecified. The
// result's sizes are for the store to check, its rewards are finite.
absl::Status UpdateAnnotations(const v1::Node& node, const google::protobuf::FieldMask& mask,
                               storage::NodeAnnotations& annotations);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_
