// Traverse, apart from the other handlers of GraphService.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/service/convert.h"
#include "server/service/graph_handlers.h"

namespace quicksave::server {
namespace {

constexpr int kDefaultNodes = 1000;
constexpr int kMaxNodes = 10000;
// Ids whose records are read at once.
constexpr size_t kBatch = 256;

// Walks breadth first and fills the answer, level by level.
class Traversal {
 public:
  Traversal(Core& core, const CallContext& call, const v1::TraverseRequest& request, v1::TraverseResponse& response)
      : core_(core),
        call_(call),
        direction_(request.direction()),
        max_nodes_(request.max_nodes() == 0 ? kDefaultNodes : request.max_nodes()),
        max_depth_(request.max_depth()),
        response_(response) {}

  absl::Status Run(const std::string& start) {
    const absl::StatusOr<storage::NodeRecord> record = core_.store->GetNode(Core::kTenant, start);
    if (!record.ok()) return record.status();
    ToProto(*record, core_, v1::NODE_VIEW_BASIC, response_.add_nodes());
    seen_.insert(start);
    std::vector<std::string> level = {start};
    for (int depth = 0; !level.empty() && !response_.truncated(); ++depth) {
      if (absl::Now() > call_.deadline) return absl::DeadlineExceededError("the call's deadline passed");
      if (call_.cancelled()) return absl::CancelledError("the caller cancelled the call");
      const bool last = max_depth_ != 0 && depth == max_depth_;
      if (last && direction_ != v1::TRAVERSE_DIRECTION_FRONTIER) break;
      absl::StatusOr<std::vector<std::string>> next = Expand(level, start);
      if (!next.ok()) return next.status();
      if (last) break;
      if (direction_ != v1::TRAVERSE_DIRECTION_FRONTIER) {
        if (absl::Status status = Return(*next); !status.ok()) return status;
      }
      level = *std::move(next);
    }
    return absl::OkStatus();
  }

 private:
  // The neighbours of a level that were not seen before; on the way to the frontier, returns those without any.
  absl::StatusOr<std::vector<std::string>> Expand(const std::vector<std::string>& level, const std::string& start) {
    std::vector<std::string> next;
    std::vector<std::string> leaves;
    for (const std::string& id : level) {
      const absl::StatusOr<std::vector<storage::Edge>> edges = Neighbours(id);
      // Deleted since it was found.
      if (absl::IsNotFound(edges.status())) continue;
      if (!edges.ok()) return edges.status();
      if (edges->empty() && id != start) leaves.push_back(id);
      for (const storage::Edge& edge : *edges) {
        if (seen_.insert(edge.node_id).second) next.push_back(edge.node_id);
      }
    }
    if (direction_ == v1::TRAVERSE_DIRECTION_FRONTIER) {
      if (absl::Status status = Return(leaves); !status.ok()) return status;
    }
    return next;
  }

  absl::StatusOr<std::vector<storage::Edge>> Neighbours(const std::string& id) const {
    const bool down = direction_ == v1::TRAVERSE_DIRECTION_DESCENDANTS || direction_ == v1::TRAVERSE_DIRECTION_FRONTIER;
    return down ? core_.store->Children(Core::kTenant, id) : core_.store->Parents(Core::kTenant, id);
  }

  // Adds nodes to the answer, as many as it may have.
  absl::Status Return(const std::vector<std::string>& ids) {
    for (size_t begin = 0; begin < ids.size(); begin += kBatch) {
      const auto batch = absl::MakeConstSpan(ids).subspan(begin, kBatch);
      absl::StatusOr<std::vector<std::optional<storage::NodeRecord>>> records =
          core_.store->GetNodes(Core::kTenant, batch);
      if (!records.ok()) return records.status();
      for (const std::optional<storage::NodeRecord>& record : *records) {
        if (!record) continue;
        if (response_.nodes_size() == max_nodes_) {
          response_.set_truncated(true);
          return absl::OkStatus();
        }
        ToProto(*record, core_, v1::NODE_VIEW_BASIC, response_.add_nodes());
      }
    }
    return absl::OkStatus();
  }

  Core& core_;
  const CallContext& call_;
  const v1::TraverseDirection direction_;
  const int max_nodes_;
  const int max_depth_;
  v1::TraverseResponse& response_;
  absl::flat_hash_set<std::string> seen_;
};

}  // namespace

absl::Status Traverse(Core& core, const CallContext& call, const v1::TraverseRequest& request,
                      v1::TraverseResponse& response) {
  const absl::StatusOr<std::string> start = ParseName(request.node(), "nodes");
  if (!start.ok()) return start.status();
  if (!v1::TraverseDirection_IsValid(request.direction())) {
    return absl::InvalidArgumentError(absl::StrCat("direction: ", request.direction(), " is none"));
  }
  if (request.max_depth() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("max_depth: is ", request.max_depth(), ", the least is 0"));
  }
  if (request.max_nodes() < 0 || request.max_nodes() > kMaxNodes) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_nodes: is ", request.max_nodes(), ", the range is 1 to ", kMaxNodes));
  }
  return Traversal(core, call, request, response).Run(*start);
}

}  // namespace quicksave::server
