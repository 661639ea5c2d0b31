// Translation of the answers of AdminService.

#include "client/src/convert.h"

namespace quicksave::client {
namespace {

ServerInfo ServerFromProto(const v1::ServerInfo& from) {
  return {.version = from.version(),
          .start_time = from.has_start_time() ? FromProto(from.start_time()) : absl::InfinitePast(),
          .durability = from.durability()};
}

ModelInfo ModelFromProto(const v1::ModelInfo& from) {
  return {.name = from.name(),
          .fingerprint = from.fingerprint(),
          .numerics = from.numerics(),
          .architecture = from.architecture(),
          .layers = from.layers(),
          .hidden_size = from.hidden_size(),
          .query_heads = from.query_heads(),
          .kv_heads = from.kv_heads(),
          .head_dim = from.head_dim(),
          .vocab_size = from.vocab_size(),
          .context_length = from.context_length(),
          .kv_bytes_per_token = from.kv_bytes_per_token(),
          .device = from.device(),
          .weights = from.weights(),
          .weight_bytes = from.weight_bytes()};
}

EngineInfo EngineFromProto(const v1::EngineInfo& from) {
  return {.sessions = from.sessions(),
          .active_requests = from.active_requests(),
          .pages_used = from.pages_used(),
          .pages_total = from.pages_total(),
          .page_tokens = from.page_tokens(),
          .page_bytes = from.page_bytes(),
          .steps = from.steps(),
          .decoded_tokens = from.decoded_tokens(),
          .prefilled_tokens = from.prefilled_tokens(),
          .parked_sessions = from.parked_sessions(),
          .parkings = from.parkings(),
          .unparkings = from.unparkings(),
          .memory_waits = from.memory_waits(),
          .memory_refusals = from.memory_refusals(),
          .tap_bytes = from.tap_bytes(),
          .shared_prefix_tokens = from.shared_prefix_tokens(),
          .restored_prefix_tokens = from.restored_prefix_tokens(),
          .failed_prefix_restores = from.failed_prefix_restores()};
}

StoreInfo StoreFromProto(const v1::StoreInfo& from) {
  return {.nodes = from.nodes(),
          .blocks = from.blocks(),
          .block_bytes = from.block_bytes(),
          .free_disk_bytes = from.free_disk_bytes(),
          .format_version = from.format_version()};
}

Limits LimitsFromProto(const v1::Limits& from) {
  return {.max_sessions = from.max_sessions(),
          .max_tokens_per_call = from.max_tokens_per_call(),
          .default_max_tokens = from.default_max_tokens(),
          .max_message_bytes = from.max_message_bytes(),
          .max_queued_requests = from.max_queued_requests(),
          .default_lease = FromProto(from.default_lease()),
          .max_lease = FromProto(from.max_lease()),
          .max_tap_bytes_per_session = from.max_tap_bytes_per_session(),
          .max_tap_bytes = from.max_tap_bytes()};
}

}  // namespace

ServerStatus FromProto(const v1::GetStatusResponse& from) {
  return {.server = ServerFromProto(from.server()),
          .model = ModelFromProto(from.model()),
          .engine = EngineFromProto(from.engine()),
          .store = StoreFromProto(from.store()),
          .limits = LimitsFromProto(from.limits())};
}

CollectGarbageResponse FromProto(const v1::CollectGarbageResponse& from) {
  return {.removed_blocks = from.removed_blocks(),
          .removed_bytes = from.removed_bytes(),
          .removed_requests = from.removed_requests()};
}

}  // namespace quicksave::client
