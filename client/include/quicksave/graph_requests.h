// Requests and answers of GraphService: nodes, their edges and their encodings.

#ifndef QUICKSAVE_GRAPH_REQUESTS_H_
#define QUICKSAVE_GRAPH_REQUESTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "quicksave/encoding.h"
#include "quicksave/types.h"

namespace quicksave::client {

struct GetNodeRequest {
  // The node, `nodes/{node}`.
  std::string name;
  View view = View::kBasic;
};

// Which nodes to list; all conditions hold together.
struct NodeFilter {
  // Labels that the node has with these values.
  std::map<std::string, std::string> labels;
  // Children of this node, `nodes/{node}`.
  std::string parent;
  // Nodes without parents.
  bool roots_only = false;
  // Nodes of this model.
  std::string model_fingerprint;
  // Saved at this time or later.
  std::optional<absl::Time> created_from;
  // Saved before this time.
  std::optional<absl::Time> created_before;
};

struct ListNodesRequest {
  NodeFilter filter;
  // Newest first; otherwise oldest first.
  bool newest_first = false;
  // Most nodes to return, 1 to 1,000; 0 takes 100.
  int32_t page_size = 0;
  // next_page_token of the page before; the other fields must be the same.
  std::string page_token;
};

struct ListNodesResponse {
  // The nodes, as View::kBasic.
  std::vector<Node> nodes;
  // Give it to get the next page; empty at the end.
  std::string next_page_token;
  // Nodes of this page whose records are damaged, `nodes/{node}`; GetNode says how. None in a healthy store.
  std::vector<std::string> unreadable;

  bool operator==(const ListNodesResponse&) const = default;
};

struct UpdateNodeRequest {
  // The node, `nodes/{node}`.
  std::string name;
  // New values of the parts that `update_mask` names.
  std::map<std::string, std::string> labels;
  std::map<std::string, double> rewards;
  std::string note;
  // Change only this version of the node; empty changes any.
  std::string etag;
  // What to change: `labels`, `rewards`, `note`; `labels.KEY` and `rewards.KEY` change or, when absent above, remove
  // one entry. At most 256.
  std::vector<std::string> update_mask;
  // UUID; a repeat returns the first answer. Made by the client when empty.
  std::string request_id;
};

struct DeleteNodeRequest {
  // The node, `nodes/{node}`.
  std::string name;
  // Delete its descendants too; without it, a node with children is not deleted.
  bool force = false;
  // Delete only this version of the node; empty deletes any.
  std::string etag;
  // UUID; a repeat returns the first answer. Made by the client when empty.
  std::string request_id;
};

struct DeleteNodeResponse {
  // Nodes deleted.
  int32_t deleted_nodes = 0;

  bool operator==(const DeleteNodeResponse&) const = default;
};

// Where to walk.
enum class TraverseDirection {
  // From the node to its roots, nearest first.
  kAncestors = 1,
  // From the node to its descendants, breadth first.
  kDescendants = 2,
  // Descendants without children.
  kFrontier = 3,
};

struct TraverseRequest {
  // The node to start from, `nodes/{node}`; it is the first of the answer.
  std::string node;
  TraverseDirection direction = TraverseDirection::kAncestors;
  // Most edges to follow from the node; 0 follows all.
  int32_t max_depth = 0;
  // Most nodes to return, 1 to 10,000; 0 takes 1,000.
  int32_t max_nodes = 0;
};

struct TraverseResponse {
  // The nodes, as View::kBasic.
  std::vector<Node> nodes;
  // There were more nodes than max_nodes.
  bool truncated = false;

  bool operator==(const TraverseResponse&) const = default;
};

struct VerifyNodeRequest {
  // The node, `nodes/{node}`.
  std::string name;
  // Also compute the whole state again from its token ids and compare every bit.
  bool replay = false;
};

struct VerifyNodeResponse {
  // Blocks read, decoded and checked, those of hidden states included.
  int32_t blocks_checked = 0;
  // Bytes read from the store.
  int64_t bytes_read = 0;
  // Tokens computed again and found equal in every bit, with `replay`.
  int32_t tokens_replayed = 0;

  bool operator==(const VerifyNodeResponse&) const = default;
};

struct EncodeNodeRequest {
  // The node, `nodes/{node}`.
  std::string name;
  // How to encode it.
  EncodingSpec encoding;
  // What the encoding must keep to. With a dial only that setting is tried; without one the coarsest that is found to
  // keep to the budget is taken. If none does, the node is left as it is.
  FidelityBudget budget;
  // Drop the blocks as saved in the same step.
  bool drop_saved = false;
  // Only if the node is still this version; empty takes any.
  std::string etag;
  // UUID; a repeat returns the first answer, if that stored an encoding, and tries again otherwise. Made by the client
  // when empty.
  std::string request_id;
};

// An encoding that was tried.
struct EncodingTrial {
  // The encoding, with all that was measured.
  Encoding encoding;
  // Whether it keeps to the budget.
  bool within_budget = false;
  // Time to encode, summed over threads.
  absl::Duration encode;

  bool operator==(const EncodingTrial&) const = default;
};

struct EncodeNodeResponse {
  // The node, as View::kBasic.
  Node node;
  // What was stored; unset when nothing kept to the budget.
  std::optional<Encoding> encoding;
  // Everything that was tried, in order.
  std::vector<EncodingTrial> trials;
  // From the call to the answer.
  absl::Duration total;

  bool operator==(const EncodeNodeResponse&) const = default;
};

// What DropEncoding drops: the blocks as saved.
struct DropSaved {
  bool operator==(const DropSaved&) const = default;
};

// What DropEncoding drops: an encoding, which its codec, profile, split and step name, and its residual.
struct DropWhole {
  Encoding encoding;

  bool operator==(const DropWhole&) const = default;
};

// What DropEncoding drops: the residual of such an encoding.
struct DropResidual {
  Encoding encoding;

  bool operator==(const DropResidual&) const = default;
};

// std::monostate is refused by the server.
using DropTarget = std::variant<std::monostate, DropSaved, DropWhole, DropResidual>;

struct DropEncodingRequest {
  // The node, `nodes/{node}`.
  std::string name;
  DropTarget what;
  // Only if the node is still this version; empty takes any.
  std::string etag;
  // UUID; a repeat returns the first answer. Made by the client when empty.
  std::string request_id;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_GRAPH_REQUESTS_H_
