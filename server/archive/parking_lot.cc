#include "server/archive/parking_lot.h"

#include <optional>
#include <utility>

#include "server/telemetry/logging.h"

namespace quicksave::server {

absl::Status ParkingLot::Clear() {
  std::string page_token;
  do {
    const absl::StatusOr<storage::NodePage> page =
        store_->ListNodes({.tenant = kTenant, .page_size = 1000, .page_token = page_token});
    if (!page.ok()) return page.status();
    for (const storage::NodeRecord& node : page->nodes) Drop(node.node_id());
    for (const std::string& node_id : page->unreadable) Drop(node_id);
    page_token = page->next_page_token;
  } while (!page_token.empty());
  return absl::OkStatus();
}

absl::StatusOr<std::string> ParkingLot::Park(const SessionState& state) {
  // Its origin is of another tenant.
  SaveRequest request{.state = state, .tenant = kTenant};
  request.state.origin = nullptr;
  request.state.origin_tokens = 0;
  absl::StatusOr<SavedNode> saved = archive_->Save(request);
  if (!saved.ok()) {
    LogEvent(spdlog::level::warn, "cannot park an idle session", {{"error", std::string(saved.status().message())}});
    return saved.status();
  }
  return saved->record.node_id();
}

absl::StatusOr<ParkedState> ParkingLot::Unpark(const std::string& name, engine::PageReservation& pages) {
  const auto reserve = [&pages](int /*tokens*/, int room) -> absl::StatusOr<engine::PageReservation> {
    return pages.Split(engine::PagesFor(room));
  };
  absl::StatusOr<RestoredState> restored = archive_->Restore(kTenant, name, {.reserve = reserve});
  if (!restored.ok()) return restored.status();
  return ParkedState{std::move(restored->state.sequence), std::move(restored->state.taps)};
}

void ParkingLot::Drop(const std::string& name) {
  const absl::Status status = store_->DeleteNode(kTenant, name, {.force = true}).status();
  if (status.ok() || absl::IsNotFound(status)) return;
  LogEvent(spdlog::level::warn, "cannot delete a parked session", {{"error", std::string(status.message())}});
}

}  // namespace quicksave::server
