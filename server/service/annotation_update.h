#ifndef QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_
#define QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_

#include "absl/status/status.h"
#include "google/protobuf/field_mask.pb.h"
#include "quicksave/v1/node.pb.h"
#include "storage/store.h"

namespace quicksave::server {

// Is this an update that graph_service.proto allows? INVALID_ARGUMENT, naming the path or the limit: the mask is empty,
// has too many paths, or names what cannot be changed; what is given for its paths breaks a limit of the store by
// itself.
absl::Status CheckUpdate(const v1::Node& node, const google::protobuf::FieldMask& mask);

// Does to `annotations` what an update that was checked says. The result's sizes are for the store to check.
absl::Status UpdateAnnotations(const v1::Node& node, const google::protobuf::FieldMask& mask,
                               storage::NodeAnnotations& annotations);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_ANNOTATION_UPDATE_H_
