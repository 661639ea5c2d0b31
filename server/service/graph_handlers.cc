#include "server/service/graph_handlers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/annotation_update.h"
#include "server/service/convert.h"
#include "storage/validation.h"

namespace quicksave::server {
namespace {

absl::StatusOr<storage::NodeFilter> FromProto(const v1::NodeFilter& filter) {
  storage::NodeFilter result;
  for (const auto& [key, value] : filter.labels()) result.labels.emplace_back(key, value);
  // A map has no order, but page tokens are bound to one filter.
  std::sort(result.labels.begin(), result.labels.end());
  if (!filter.parent().empty()) {
    absl::StatusOr<std::string> parent = ParseName(filter.parent(), "nodes");
    if (!parent.ok()) return parent.status();
    result.parent = *std::move(parent);
  }
  if (!filter.model_fingerprint().empty()) result.model_fingerprint = filter.model_fingerprint();
  result.roots_only = filter.roots_only();
  if (filter.has_created_from()) {
    const absl::StatusOr<absl::Time> time = server::FromProto(filter.created_from());
    if (!time.ok()) return absl::InvalidArgumentError(absl::StrCat("filter.created_from: ", time.status().message()));
    result.created_from = *time;
  }
  if (filter.has_created_before()) {
    const absl::StatusOr<absl::Time> time = server::FromProto(filter.created_before());
    if (!time.ok()) return absl::InvalidArgumentError(absl::StrCat("filter.created_before: ", time.status().message()));
    result.created_before = *time;
  }
  return result;
}

absl::Status ApplyUpdate(Core& core, const v1::UpdateNodeRequest& request,
                         const std::optional<storage::RequestIdentity>& identity, v1::UpdateNodeResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.node().name(), "nodes");
  if (!id.ok()) return id.status();
  if (absl::Status valid = CheckUpdate(request.node(), request.update_mask()); !valid.ok()) return valid;
  const auto answer = [&core](const storage::NodeRecord& record) {
    v1::UpdateNodeResponse updated;
    ToProto(record, core, v1::NODE_VIEW_BASIC, updated.mutable_node());
    return updated;
  };
  storage::UpdateOptions options{.etag = request.node().etag()};
  if (identity) {
    options.request = {*identity,
                       [&](const storage::NodeRecord& record) { return answer(record).SerializeAsString(); }};
  }
  const absl::StatusOr<storage::NodeRecord> record =
      core.store->UpdateNode(Core::kTenant, *id, options, [&](storage::NodeAnnotations& annotations) {
        return UpdateAnnotations(request.node(), request.update_mask(), annotations);
      });
  if (!record.ok()) return record.status();
  response = answer(*record);
  return absl::OkStatus();
}

absl::Status ApplyDelete(Core& core, const v1::DeleteNodeRequest& request,
                         const std::optional<storage::RequestIdentity>& identity, v1::DeleteNodeResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "nodes");
  if (!id.ok()) return id.status();
  const auto answer = [](const storage::DeleteReport& report) {
    v1::DeleteNodeResponse deleted;
    deleted.set_deleted_nodes(static_cast<int32_t>(report.node_ids.size()));
    return deleted;
  };
  storage::DeleteOptions options{.force = request.force(), .etag = request.etag()};
  if (identity) {
    options.request = {*identity,
                       [&](const storage::DeleteReport& report) { return answer(report).SerializeAsString(); }};
  }
  const absl::StatusOr<storage::DeleteReport> report = core.store->DeleteNode(Core::kTenant, *id, options);
  if (!report.ok()) return report.status();
  response = answer(*report);
  return absl::OkStatus();
}

}  // namespace

absl::Status GetNode(Core& core, const CallContext& call, const v1::GetNodeRequest& request,
                     v1::GetNodeResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "nodes");
  if (!id.ok()) return id.status();
  const absl::StatusOr<storage::NodeRecord> record = core.store->GetNode(Core::kTenant, *id);
  if (!record.ok()) return record.status();
  ToProto(*record, core, request.view(), response.mutable_node());
  return absl::OkStatus();
}

absl::Status ListNodes(Core& core, const CallContext& call, const v1::ListNodesRequest& request,
                       v1::ListNodesResponse& response) {
  if (request.page_size() < 0 || request.page_size() > storage::kMaxPageSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size: is ", request.page_size(), ", the range is 1 to ", storage::kMaxPageSize));
  }
  absl::StatusOr<storage::NodeFilter> filter = FromProto(request.filter());
  if (!filter.ok()) return filter.status();
  storage::ListRequest list{
      .tenant = Core::kTenant,
      .filter = *std::move(filter),
      .order = request.newest_first() ? storage::ListOrder::kNewestFirst : storage::ListOrder::kOldestFirst,
      .page_token = request.page_token()};
  if (request.page_size() != 0) list.page_size = request.page_size();
  absl::StatusOr<storage::NodePage> page = core.store->ListNodes(list);
  if (!page.ok()) return page.status();
  for (const storage::NodeRecord& record : page->nodes) {
    ToProto(record, core, v1::NODE_VIEW_BASIC, response.add_nodes());
  }
  for (const std::string& node_id : page->unreadable) response.add_unreadable(absl::StrCat("nodes/", node_id));
  response.set_next_page_token(page->next_page_token);
  return absl::OkStatus();
}

absl::Status UpdateNode(Core& core, const CallContext& call, const v1::UpdateNodeRequest& request,
                        v1::UpdateNodeResponse& response) {
  const auto apply = [&](const std::optional<storage::RequestIdentity>& identity) {
    return ApplyUpdate(core, request, identity, response);
  };
  return core.requests.RunOnNodes("UpdateNode", request.request_id(), request, &response, apply);
}

absl::Status DeleteNode(Core& core, const CallContext& call, const v1::DeleteNodeRequest& request,
                        v1::DeleteNodeResponse& response) {
  const auto apply = [&](const std::optional<storage::RequestIdentity>& identity) {
    return ApplyDelete(core, request, identity, response);
  };
  return core.requests.RunOnNodes("DeleteNode", request.request_id(), request, &response, apply);
}

}  // namespace quicksave::server
