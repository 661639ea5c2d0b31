// JSON of what a server says about itself.

#include "client/cli/json_output.h"
#include "client/cli/text_format.h"

namespace quicksave::cli {
namespace {

Json ModelToJson(const client::ModelInfo& model) {
  return {{"name", model.name},
          {"fingerprint", model.fingerprint},
          {"numerics", model.numerics},
          {"architecture", model.architecture},
          {"layers", model.layers},
          {"hidden_size", model.hidden_size},
          {"query_heads", model.query_heads},
          {"kv_heads", model.kv_heads},
          {"head_dim", model.head_dim},
          {"vocab_size", model.vocab_size},
          {"context_length", model.context_length},
          {"kv_bytes_per_token", model.kv_bytes_per_token},
          {"device", model.device},
          {"weights", model.weights},
          {"weight_bytes", model.weight_bytes}};
}

Json EngineToJson(const client::EngineInfo& engine) {
  return {{"sessions", engine.sessions},
          {"active_requests", engine.active_requests},
          {"pages_used", engine.pages_used},
          {"pages_total", engine.pages_total},
          {"page_tokens", engine.page_tokens},
          {"page_bytes", engine.page_bytes},
          {"steps", engine.steps},
          {"decoded_tokens", engine.decoded_tokens},
          {"prefilled_tokens", engine.prefilled_tokens},
          {"parked_sessions", engine.parked_sessions},
          {"parkings", engine.parkings},
          {"unparkings", engine.unparkings},
          {"memory_waits", engine.memory_waits},
          {"memory_refusals", engine.memory_refusals},
          {"tap_bytes", engine.tap_bytes},
          {"shared_prefix_tokens", engine.shared_prefix_tokens},
          {"restored_prefix_tokens", engine.restored_prefix_tokens},
          {"failed_prefix_restores", engine.failed_prefix_restores}};
}

Json StoreToJson(const client::StoreInfo& store) {
  return {{"nodes", store.nodes},
          {"blocks", store.blocks},
          {"block_bytes", store.block_bytes},
          {"free_disk_bytes", store.free_disk_bytes},
          {"format_version", store.format_version}};
}

Json LimitsToJson(const client::Limits& limits) {
  return {{"max_sessions", limits.max_sessions},
          {"max_tokens_per_call", limits.max_tokens_per_call},
          {"default_max_tokens", limits.default_max_tokens},
          {"max_message_bytes", limits.max_message_bytes},
          {"max_queued_requests", limits.max_queued_requests},
          {"default_lease_seconds", absl::ToDoubleSeconds(limits.default_lease)},
          {"max_lease_seconds", absl::ToDoubleSeconds(limits.max_lease)},
          {"max_tap_bytes_per_session", limits.max_tap_bytes_per_session},
          {"max_tap_bytes", limits.max_tap_bytes}};
}

}  // namespace

Json ToJson(const client::ServerStatus& status) {
  Json json = Json::object();
  json["server"] = {{"version", status.server.version},
                    {"start_time", HumanTime(status.server.start_time)},
                    {"durability", status.server.durability}};
  json["model"] = ModelToJson(status.model);
  json["engine"] = EngineToJson(status.engine);
  json["store"] = StoreToJson(status.store);
  json["limits"] = LimitsToJson(status.limits);
  return json;
}

}  // namespace quicksave::cli
