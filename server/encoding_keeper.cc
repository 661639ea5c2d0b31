#include "server/encoding_keeper.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/learned/learned_codec.h"
#include "server/service/graph_handlers.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(10);
constexpr int kNodesAtOnce = 100;
// A node that finds no memory or time so often is passed over.
constexpr int kMostAttempts = 6;

bool IsPassing(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         absl::IsAborted(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

EncodingKeeper::EncodingKeeper(Core* core, EncodingPolicy policy) : core_(core), policy_(std::move(policy)) {
  if (policy_.after < absl::InfiniteDuration()) thread_ = std::thread([this] { Run(); });
}

EncodingKeeper::~EncodingKeeper() {
  stopping_.Notify();
  if (thread_.joinable()) thread_.join();
}

void EncodingKeeper::Run() {
  do {
    RunRound();
  } while (!stopping_.WaitForNotificationWithTimeout(kInterval));
}

void EncodingKeeper::RunRound() {
  while (!stopping_.HasBeenNotified()) {
    storage::ListRequest list{.tenant = Core::kTenant, .page_size = kNodesAtOnce};
    list.filter.created_from = done_before_;
    list.filter.created_before = absl::Now() - policy_.after;
    const absl::StatusOr<storage::NodePage> page = core_->store->ListNodes(list);
    if (!page.ok()) {
      LogEvent(spdlog::level::warn, "cannot list old nodes", {{"error", std::string(page.status().message())}});
      return;
    }
    if (page->nodes.empty()) return;
    for (const storage::NodeRecord& record : page->nodes) {
      const absl::StatusOr<storage::StoreStats> stats = core_->store->Stats();
      if (stopping_.HasBeenNotified() || !stats.ok() || stats->block_stored_bytes <= policy_.above_bytes) return;
      if (IsDue(record) && !Encode(record) && ++attempts_ < kMostAttempts) return;
      attempts_ = 0;
      done_before_ = absl::FromUnixMicros(record.create_time_us() + 1);
    }
  }
}

bool EncodingKeeper::IsDue(const storage::NodeRecord& record) const {
  if (record.model_fingerprint() != core_->identity.fingerprint || record.no_saved_blocks()) return false;
  // The state and what it decodes to, with a page more where each is cut in two. Others would wait for this one for
  // ever.
  const int pages = 2 * (engine::PagesFor(static_cast<int>(record.token_count())) + 1);
  if (pages > core_->broker->most_pages()) return false;
  for (const storage::v1::EncodingSummary& encoding : record.encodings()) {
    if (encoding.codec() == compressor::kLatentCodec || encoding.codec() == compressor::kLearnedCodec) return false;
  }
  const auto& labels = record.annotations().labels();
  const auto label = labels.find(kEncodeLabel);
  return label == labels.end() || label->second != kEncodeNever;
}

bool EncodingKeeper::Encode(const storage::NodeRecord& record) {
  v1::EncodeNodeRequest request;
  request.set_name(absl::StrCat("nodes/", record.node_id()));
  request.mutable_encoding()->set_split(policy_.split);
  if (!policy_.point.empty()) request.mutable_encoding()->set_point(policy_.point);
  request.mutable_encoding()->set_residual(policy_.keep == EncodingPolicy::Keep::kResidual);
  request.set_drop_saved(policy_.keep != EncodingPolicy::Keep::kSaved);
  if (policy_.max_kl) request.mutable_budget()->set_max_kl(*policy_.max_kl);
  v1::EncodeNodeResponse response;
  const CallContext call{.client = "encoding keeper", .deadline = absl::InfiniteFuture(), .cancelled = [this] {
                           return stopping_.HasBeenNotified();
                         }};
  const absl::Status status = EncodeNode(*core_, call, request, response);
  if (!status.ok()) {
    LogEvent(spdlog::level::warn, "cannot encode an old node",
             {{"node", record.node_id()}, {"error", std::string(status.message())}});
    if (IsPassing(status)) return false;
  } else if (response.has_encoding()) {
    LogEvent(spdlog::level::info, "encoded an old node",
             {{"node", record.node_id()},
              {"ratio", response.encoding().ratio()},
              {"mean_kl", response.encoding().fidelity().mean_kl()}});
  } else {
    LogEvent(spdlog::level::info, "left an old node as it is: no encoding keeps to the budget",
             {{"node", record.node_id()}});
  }
  return true;
}

}  // namespace quicksave::server
