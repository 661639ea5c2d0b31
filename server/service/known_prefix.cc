#include "server/service/known_prefix.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/restore.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

// The proof of a restore takes a step of its own, which costs about as much as so many rows of prefill.
constexpr int kProofRows = 16;

// Of nodes and parked sessions, what has most of the tokens.
std::optional<StoredPrefix> FindStored(const Core& core, absl::Span<const int32_t> tokens) {
  std::optional<StoredPrefix> best;
  if (!core.prefix_cache) return best;
  for (const char* tenant : {Core::kTenant, ParkingLot::kTenant}) {
    absl::StatusOr<StoredPrefix> found = core.archive->FindPrefix(tenant, tokens);
    if (!found.ok() && !absl::IsNotFound(found.status())) {
      LogEvent(spdlog::level::warn, "cannot look for stored prefixes",
               {{"error", std::string(found.status().message())}});
    }
    if (found.ok() && (!best || found->tokens > best->tokens)) best = *std::move(found);
  }
  return best;
}

// Of the pages of a whole state, those that one which has its first tokens lacks; as PagesToGrow.
int PagesAfter(int tokens, int pages) { return pages - std::max(0, tokens - 1) / engine::cpu::kPageTokens; }

int PagesToRestore(const StoredPrefix& stored, int pages) {
  return std::max(pages, engine::PagesFor(stored.room) + PagesAfter(stored.tokens, pages));
}

std::string NameOf(const StoredPrefix& stored) {
  return stored.tenant == ParkingLot::kTenant ? "" : absl::StrCat("nodes/", stored.node_id);
}

void CountFailure(Core& core, const StoredPrefix& stored, const absl::Status& status) {
  if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) return;
  ++core.prefix_counters.failed_restores;
  LogEvent(spdlog::level::warn, "a stored prefix cannot be restored and is computed",
           {{"node", NameOf(stored)}, {"tokens", int64_t{stored.tokens}}, {"error", std::string(status.message())}});
}

}  // namespace

bool IsWorthRestoring(const StoredPrefix& prefix, int shared, absl::Duration row) {
  const int saved = prefix.tokens - shared - kProofRows;
  return saved > 0 && prefix.estimate < saved * row;
}

absl::StatusOr<KnownPrefix> TakeKnownPrefix(Core& core, absl::Span<const int32_t> tokens, int pages,
                                            const CallContext& call) {
  // A state that is refused needs nothing.
  if (pages == 0) return KnownPrefix();
  std::optional<StoredPrefix> stored = FindStored(core, tokens);
  for (;; stored.reset()) {
    const absl::Duration row = core.scheduler->counters().fastest_row;
    if (stored && (PagesToRestore(*stored, pages) > core.broker->most_pages() || !IsWorthRestoring(*stored, 0, row))) {
      stored.reset();
    }
    KnownPrefix known;
    absl::StatusOr<engine::PageReservation> reserved =
        core.broker->Reserve(stored ? PagesToRestore(*stored, pages) : pages, call);
    // Computing it all may need less.
    if (stored && absl::IsResourceExhausted(reserved.status())) continue;
    if (!reserved.ok()) return reserved.status();
    // Looked for after the wait for memory, so that nobody waits while holding some.
    known.sequence = core.sessions->SharedPrefix(tokens);
    const int shared = known.sequence.length();
    if (!stored || !IsWorthRestoring(*stored, shared, row)) {
      known.pages = reserved->Split(PagesAfter(shared, pages));
      core.prefix_counters.shared_tokens += shared;
      return known;
    }
    // Its pages may be what others, or the proof, wait for.
    known.sequence = engine::Sequence();
    // Not what the rest of the call needs, whatever the restore takes.
    known.pages = reserved->Split(PagesAfter(stored->tokens, pages));
    absl::StatusOr<engine::Sequence> restored = RestorePrefix(core, *stored, *reserved, call);
    if (restored.ok()) {
      known.sequence = *std::move(restored);
      known.restored = true;
      known.node = NameOf(*stored);
      core.prefix_counters.restored_tokens += stored->tokens;
      return known;
    }
    CountFailure(core, *stored, restored.status());
  }
}

}  // namespace quicksave::server
