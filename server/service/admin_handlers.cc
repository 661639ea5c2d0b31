#include "server/service/admin_handlers.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "compressor/latent/latent_codec.h"
#include "server/service/convert.h"
#include "storage/validation.h"

namespace quicksave::server {
namespace {

void Describe(const Core& core, v1::ServerInfo* info) {
  info->set_version(core.version);
  ToProto(core.start_time, info->mutable_start_time());
  info->set_durability(core.durability == storage::Durability::kSync ? "sync" : "process");
}

void Describe(const Core& core, v1::ModelInfo* info) {
  const engine::ModelConfig& model = core.decoder->config();
  info->set_name(model.name);
  info->set_fingerprint(core.identity.fingerprint);
  info->set_numerics(core.identity.numerics);
  info->set_architecture(model.architecture);
  info->set_layers(model.layers);
  info->set_hidden_size(model.hidden_size);
  info->set_query_heads(model.query_heads);
  info->set_kv_heads(model.kv_heads);
  info->set_head_dim(model.head_dim);
  info->set_vocab_size(model.vocab_size);
  info->set_context_length(model.context_length);
  info->set_kv_bytes_per_token(model.kv_bytes_per_token());
  info->set_device(core.decoder->device().name());
  info->set_weights(engine::WeightFormatName(core.decoder->weight_format()));
  info->set_weight_bytes(static_cast<int64_t>(core.decoder->weight_bytes()));
}

void Describe(const Core& core, v1::EngineInfo* info) {
  const Scheduler::Counters counters = core.scheduler->counters();
  info->set_sessions(core.sessions->size());
  info->set_active_requests(counters.active_jobs);
  info->set_pages_used(core.pool->used_pages());
  info->set_pages_total(core.pool->total_pages());
  info->set_page_tokens(engine::cpu::kPageTokens);
  info->set_page_bytes(static_cast<int64_t>(core.pool->shape().page_bytes()));
  info->set_steps(counters.steps);
  info->set_decoded_tokens(counters.decoded_tokens);
  info->set_prefilled_tokens(counters.prefilled_tokens);
  const SessionTable::Counters sessions = core.sessions->counters();
  info->set_parked_sessions(sessions.parked);
  info->set_parkings(sessions.parkings);
  info->set_unparkings(sessions.unparkings);
  info->set_tap_bytes(sessions.tap_bytes);
  const PageBroker::Counters memory = core.broker->counters();
  info->set_memory_waits(memory.waited);
  info->set_memory_refusals(memory.refused);
  info->set_shared_prefix_tokens(core.prefix_counters.shared_tokens);
  info->set_restored_prefix_tokens(core.prefix_counters.restored_tokens);
  info->set_failed_prefix_restores(core.prefix_counters.failed_restores);
}

void Describe(const storage::StoreStats& stats, v1::StoreInfo* info) {
  info->set_nodes(static_cast<int64_t>(stats.nodes));
  info->set_blocks(static_cast<int64_t>(stats.blocks));
  info->set_block_bytes(static_cast<int64_t>(stats.block_stored_bytes));
  info->set_free_disk_bytes(static_cast<int64_t>(stats.disk_free_bytes));
  info->set_format_version(static_cast<int32_t>(storage::kStoreFormatVersion));
}

void Describe(const Core& core, v1::Limits* limits) {
  limits->set_max_sessions(core.sessions->options().max_sessions);
  limits->set_max_tokens_per_call(core.limits.max_tokens_per_call);
  limits->set_default_max_tokens(core.limits.default_max_tokens);
  limits->set_max_message_bytes(core.limits.max_message_bytes);
  limits->set_max_queued_requests(core.limits.max_queued_requests);
  limits->set_max_tap_bytes_per_session(core.limits.max_tap_bytes_per_session);
  limits->set_max_tap_bytes(core.limits.max_tap_bytes);
  ToProto(core.sessions->options().default_lease, limits->mutable_default_lease());
  ToProto(core.sessions->options().max_lease, limits->mutable_max_lease());
}

void Describe(const LatentProfileEntry& entry, v1::Profile* out) {
  out->set_id(entry.id);
  out->set_codec(std::string(entry.latent->name()));
  out->set_split(entry.profile->split);
  out->set_size_bytes(entry.size_bytes);
  for (const compressor::DialPoint& from : entry.profile->points) {
    v1::DialPoint* point = out->add_points();
    point->set_name(from.name);
    point->set_step(from.step);
    point->set_ratio(from.ratio);
    point->set_mean_kl(from.mean_kl);
  }
}

}  // namespace

absl::Status GetStatus(Core& core, const CallContext& call, const v1::GetStatusRequest& request,
                       v1::GetStatusResponse& response) {
  const absl::StatusOr<storage::StoreStats> stats = core.store->Stats();
  if (!stats.ok()) return stats.status();
  Describe(core, response.mutable_server());
  Describe(core, response.mutable_model());
  Describe(core, response.mutable_engine());
  Describe(*stats, response.mutable_store());
  // Parked sessions are nodes for the store alone.
  response.mutable_store()->set_nodes(response.store().nodes() - response.engine().parked_sessions());
  Describe(core, response.mutable_limits());
  return absl::OkStatus();
}

absl::Status CollectGarbage(Core& core, const CallContext& call, const v1::CollectGarbageRequest& request,
                            v1::CollectGarbageResponse& response) {
  const absl::StatusOr<storage::GarbageReport> garbage = core.store->CollectGarbage();
  if (!garbage.ok()) return garbage.status();
  const absl::StatusOr<uint64_t> requests = core.store->ForgetRequests(absl::Now() - kRequestMemory);
  if (!requests.ok()) return requests.status();
  // What was deleted gives its space back now, and not some day.
  if (absl::Status status = core.store->Compact(); !status.ok()) return status;
  response.set_removed_blocks(static_cast<int64_t>(garbage->blocks));
  response.set_removed_bytes(static_cast<int64_t>(garbage->stored_bytes));
  response.set_removed_requests(static_cast<int64_t>(*requests));
  return absl::OkStatus();
}

absl::Status ListProfiles(Core& core, const CallContext& call, const v1::ListProfilesRequest& request,
                          v1::ListProfilesResponse& response) {
  for (const LatentProfileEntry* entry : core.archive->latents().All()) Describe(*entry, response.add_profiles());
  return absl::OkStatus();
}

absl::StatusOr<std::string> LoadProfileFile(Archive& archive, const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return absl::NotFoundError(absl::StrCat("there is no file ", path));
  // A device or pipe might never end.
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a file"));
  }
  if (const uintmax_t size = std::filesystem::file_size(path, error); !error && size > storage::kMaxValueBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", size, " bytes, a profile at most ", storage::kMaxValueBytes));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read the profile ", path));
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  absl::StatusOr<std::string> id = archive.latents().Adopt(bytes);
  if (!id.ok()) return absl::Status(id.status().code(), absl::StrCat(path, ": ", id.status().message()));
  return id;
}

absl::Status LoadProfile(Core& core, const CallContext& call, const v1::LoadProfileRequest& request,
                         v1::LoadProfileResponse& response) {
  if (request.path().empty()) return absl::InvalidArgumentError("path is empty: name a file on the server's machine");
  const absl::StatusOr<std::string> id = LoadProfileFile(*core.archive, request.path());
  if (!id.ok()) return id.status();
  Describe(*core.archive->latents().Find(*id), response.mutable_profile());
  return absl::OkStatus();
}

}  // namespace quicksave::server
