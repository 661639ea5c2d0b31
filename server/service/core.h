#ifndef QUICKSAVE_SERVER_SERVICE_CORE_H_
#define QUICKSAVE_SERVER_SERVICE_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/archive/archive.h"
#include "server/archive/parking_lot.h"
#include "server/engine/model/decoder.h"
#include "server/scheduler/page_broker.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/session_table.h"
#include "server/service/request_memory.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"
#include "server/worker_pool.h"
#include "storage/store.h"

namespace quicksave::server {

// Limits that requests are held to.
struct ServiceLimits {
  int max_tokens_per_call = 4096;
  int default_max_tokens = 256;
  int64_t max_message_bytes = int64_t{16} << 20;
  // Unary calls in work or waiting for a worker; more are refused.
  int max_concurrent_calls = 1024;
  // Jobs that compute or wait for it, as the scheduler was told.
  int max_queued_requests = 256;
  // Hidden states of one session.
  int64_t max_tap_bytes_per_session = int64_t{256} << 20;
  // Those of all sessions in memory.
  int64_t max_tap_bytes = int64_t{1} << 30;
};

// Of prompts that begin like something known, since the start.
struct PrefixCounters {
  std::atomic<int64_t> shared_tokens = 0;    // that came from sequences in memory
  std::atomic<int64_t> restored_tokens = 0;  // that came from the store
  std::atomic<int64_t> failed_restores = 0;  // that were computed after all
};

// Everything that the handlers work with. Made once when the model is loaded; outlives all calls.
struct Core {
  // Owner of all nodes while the server has no notion of users.
  static constexpr char kTenant[] = "default";

  ServiceLimits limits;
  ModelIdentity identity;
  std::string version;
  absl::Time start_time;
  storage::Durability durability = storage::Durability::kSync;
  // Whether prompts begin with what is known of them.
  bool prefix_cache = true;
  PrefixCounters prefix_counters;

  std::unique_ptr<storage::Store> store;
  RequestMemory requests;  // attached to the store
  std::unique_ptr<compressor::CodecRegistry> codecs;
  std::unique_ptr<const RopeAngles> angles;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<text::ChatTemplate> chat_template;
  std::unique_ptr<engine::ThreadPool> engine_threads;
  std::unique_ptr<engine::Decoder> decoder;
  std::unique_ptr<engine::PagePool> pool;
  std::unique_ptr<PageBroker> broker;
  // Compute what constraints allow, beside the engine.
  std::unique_ptr<WorkerPool> constraint_workers;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<Archive> archive;
  std::unique_ptr<ParkingLot> parking_lot;
  std::unique_ptr<SessionTable> sessions;
  // Encode, decode and hash.
  std::unique_ptr<WorkerPool> workers;
  // Carry what waits for the store and the workers at most: light calls, saves, the ends of generations.
  std::unique_ptr<WorkerPool> callers;
  // Carry calls that may wait for the engine or for memory, which others must end to free. Last, so that they end
  // first: calls use all of the others.
  std::unique_ptr<WorkerPool> waiters;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_CORE_H_
