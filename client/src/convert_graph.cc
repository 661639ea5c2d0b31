// Translation of the requests and answers of GraphService.

#include "client/src/convert.h"

namespace quicksave::client {
namespace {

void FilterToProto(const NodeFilter& from, v1::NodeFilter* to) {
  to->mutable_labels()->insert(from.labels.begin(), from.labels.end());
  to->set_parent(from.parent);
  to->set_roots_only(from.roots_only);
  to->set_model_fingerprint(from.model_fingerprint);
  if (from.created_from) ToProto(*from.created_from, to->mutable_created_from());
  if (from.created_before) ToProto(*from.created_before, to->mutable_created_before());
}

template <typename Nodes>
std::vector<Node> NodesFromProto(const Nodes& from) {
  std::vector<Node> to;
  to.reserve(from.size());
  for (const v1::Node& node : from) to.push_back(FromProto(node));
  return to;
}

}  // namespace

ListNodesResponse FromProto(const v1::ListNodesResponse& from) {
  return {.nodes = NodesFromProto(from.nodes()),
          .next_page_token = from.next_page_token(),
          .unreadable = {from.unreadable().begin(), from.unreadable().end()}};
}

DeleteNodeResponse FromProto(const v1::DeleteNodeResponse& from) { return {.deleted_nodes = from.deleted_nodes()}; }

TraverseResponse FromProto(const v1::TraverseResponse& from) {
  return {.nodes = NodesFromProto(from.nodes()), .truncated = from.truncated()};
}

VerifyNodeResponse FromProto(const v1::VerifyNodeResponse& from) {
  return {.blocks_checked = from.blocks_checked(),
          .bytes_read = from.bytes_read(),
          .tokens_replayed = from.tokens_replayed()};
}

v1::GetNodeRequest ToProto(const GetNodeRequest& from) {
  v1::GetNodeRequest to;
  to.set_name(from.name);
  to.set_view(from.view == View::kFull ? v1::NODE_VIEW_FULL : v1::NODE_VIEW_BASIC);
  return to;
}

v1::ListNodesRequest ToProto(const ListNodesRequest& from) {
  v1::ListNodesRequest to;
  FilterToProto(from.filter, to.mutable_filter());
  to.set_newest_first(from.newest_first);
  to.set_page_size(from.page_size);
  to.set_page_token(from.page_token);
  return to;
}

v1::UpdateNodeRequest ToProto(const UpdateNodeRequest& from) {
  v1::UpdateNodeRequest to;
  v1::Node* node = to.mutable_node();
  node->set_name(from.name);
  node->mutable_labels()->insert(from.labels.begin(), from.labels.end());
  node->mutable_rewards()->insert(from.rewards.begin(), from.rewards.end());
  node->set_note(from.note);
  node->set_etag(from.etag);
  for (const std::string& path : from.update_mask) to.mutable_update_mask()->add_paths(path);
  to.set_request_id(from.request_id);
  return to;
}

v1::DeleteNodeRequest ToProto(const DeleteNodeRequest& from) {
  v1::DeleteNodeRequest to;
  to.set_name(from.name);
  to.set_force(from.force);
  to.set_etag(from.etag);
  to.set_request_id(from.request_id);
  return to;
}

v1::TraverseRequest ToProto(const TraverseRequest& from) {
  v1::TraverseRequest to;
  to.set_node(from.node);
  to.set_direction(static_cast<v1::TraverseDirection>(from.direction));
  to.set_max_depth(from.max_depth);
  to.set_max_nodes(from.max_nodes);
  return to;
}

v1::VerifyNodeRequest ToProto(const VerifyNodeRequest& from) {
  v1::VerifyNodeRequest to;
  to.set_name(from.name);
  to.set_replay(from.replay);
  return to;
}

}  // namespace quicksave::client
