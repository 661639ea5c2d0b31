// What a server says about itself: answers of AdminService and of the health service.

#ifndef QUICKSAVE_SERVER_H_
#define QUICKSAVE_SERVER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace quicksave::client {

// The server process.
struct ServerInfo {
  // Version of the server.
  std::string version;
  // When it started.
  absl::Time start_time = absl::InfinitePast();
  // Durability of acknowledged saves: `sync` or `process`.
  std::string durability;

  bool operator==(const ServerInfo&) const = default;
};

// The model that is hosted.
struct ModelInfo {
  // Name of its directory.
  std::string name;
  // Hash of config, tokenizer, weights and numerics version.
  std::string fingerprint;
  // Version of the arithmetic; states of another version are refused.
  std::string numerics;
  // Architecture, as config.json names it.
  std::string architecture;
  int32_t layers = 0;
  // Width of the residual stream.
  int32_t hidden_size = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  // Width of a head.
  int32_t head_dim = 0;
  // Tokens in the vocabulary.
  int32_t vocab_size = 0;
  // Most tokens of a state.
  int32_t context_length = 0;
  // Bytes of K and V for each token.
  int64_t kv_bytes_per_token = 0;
  // Device and kernels, for example `cpu avx-512`.
  std::string device;
  // How the weights are held and multiplied: `bf16`, `int8` or `fp32`.
  std::string weights;
  // Bytes of memory of the weights that every step reads.
  int64_t weight_bytes = 0;

  bool operator==(const ModelInfo&) const = default;
};

// The engine's memory and work.
struct EngineInfo {
  // Live sessions.
  int32_t sessions = 0;
  // Calls that are computing or wait for it.
  int32_t active_requests = 0;
  // KV pages in use.
  int32_t pages_used = 0;
  // KV pages in all.
  int32_t pages_total = 0;
  // Tokens of a page.
  int32_t page_tokens = 0;
  // Bytes of a page.
  int64_t page_bytes = 0;
  // Engine steps since the start.
  int64_t steps = 0;
  // Tokens decoded since the start.
  int64_t decoded_tokens = 0;
  // Tokens prefilled since the start.
  int64_t prefilled_tokens = 0;
  // Sessions whose K and V are parked in the store now, because memory was short; they come back by themselves.
  int32_t parked_sessions = 0;
  // Sessions parked since the start.
  int64_t parkings = 0;
  // Parked sessions brought back since the start.
  int64_t unparkings = 0;
  // Calls that had to wait for KV memory since the start.
  int64_t memory_waits = 0;
  // Calls refused for want of KV memory since the start.
  int64_t memory_refusals = 0;
  // Bytes of hidden states that live sessions hold in memory.
  int64_t tap_bytes = 0;
  // Tokens of prompts that were not computed since the start, because a sequence in memory began with them.
  int64_t shared_prefix_tokens = 0;
  // Tokens of prompts that were restored instead of being computed since the start, because a node or a parked session
  // began with them.
  int64_t restored_prefix_tokens = 0;
  // Restores of such tokens that failed since the start, so that the tokens were computed after all; the log says why.
  int64_t failed_prefix_restores = 0;

  bool operator==(const EngineInfo&) const = default;
};

// The store.
struct StoreInfo {
  int64_t nodes = 0;
  int64_t blocks = 0;
  // Stored bytes of the blocks.
  int64_t block_bytes = 0;
  // Free bytes of the disk.
  int64_t free_disk_bytes = 0;
  // Version of the format.
  int32_t format_version = 0;

  bool operator==(const StoreInfo&) const = default;
};

// Limits of the server; a call beyond one is refused with an error that names it.
struct Limits {
  // Most live sessions.
  int32_t max_sessions = 0;
  // Most tokens that one Generate may ask for.
  int32_t max_tokens_per_call = 0;
  // Tokens that a Generate without max_tokens generates at most.
  int32_t default_max_tokens = 0;
  // Most bytes of a request.
  int64_t max_message_bytes = 0;
  // Most calls that may compute or wait for it.
  int32_t max_queued_requests = 0;
  // Lease of a session when none is asked for.
  absl::Duration default_lease;
  // Longest lease.
  absl::Duration max_lease;
  // Most bytes of hidden states that one session may hold.
  int64_t max_tap_bytes_per_session = 0;
  // Most bytes of hidden states that all sessions in memory may hold; shared ones count for each.
  int64_t max_tap_bytes = 0;

  bool operator==(const Limits&) const = default;
};

// What runs on a server.
struct ServerStatus {
  ServerInfo server;
  ModelInfo model;
  EngineInfo engine;
  StoreInfo store;
  Limits limits;

  bool operator==(const ServerStatus&) const = default;
};

struct CollectGarbageResponse {
  // Blocks removed.
  int64_t removed_blocks = 0;
  // Stored bytes of those.
  int64_t removed_bytes = 0;
  // Remembered requests removed.
  int64_t removed_requests = 0;

  bool operator==(const CollectGarbageResponse&) const = default;
};

// A named setting of a profile's dial.
struct DialPoint {
  std::string name;
  // Step of the quantizer.
  float step = 0;
  // Ratio that calibration measured, on text that it did not calibrate on.
  double ratio = 0;
  // Mean divergence that it measured there, in nats.
  double mean_kl = 0;

  bool operator==(const DialPoint&) const = default;
};

// A profile of a codec: the parameters that it was calibrated to for a model.
struct Profile {
  // Its id, by which encodings name it.
  std::string id;
  // Codec that it is for.
  std::string codec;
  // Layers that a restore recomputes.
  int32_t split = 0;
  // Its size: shared by all that is encoded with it, and not counted in the sizes of nodes.
  int64_t size_bytes = 0;
  // Its settings of the dial.
  std::vector<DialPoint> points;

  bool operator==(const Profile&) const = default;
};

struct ListProfilesResponse {
  // The profiles, in the order in which they were loaded.
  std::vector<Profile> profiles;

  bool operator==(const ListProfilesResponse&) const = default;
};

struct LoadProfileRequest {
  // File on the server's machine.
  std::string path;
};

// Whether a server, or one of its services, is able to serve (grpc.health.v1).
enum class Health {
  kUnknown = 0,
  kServing = 1,
  kNotServing = 2,
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_SERVER_H_
