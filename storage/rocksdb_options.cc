#include "storage/rocksdb_options.h"

#include <algorithm>
#include <memory>

#include "rocksdb/cache.h"
#include "rocksdb/env.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/listener.h"
#include "rocksdb/table.h"

namespace quicksave::storage {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMinBlobBytes = 4096;

// Leaves it to Database::Write to go on after a full disk.
class ManualRecovery : public rocksdb::EventListener {
 public:
  // RocksDB would look every few seconds whether there is space again, and refuse to be told so meanwhile.
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason reason, rocksdb::Status error,
                            bool* auto_recovery) override {
    error.PermitUncheckedError();
    *auto_recovery = false;
  }
};

rocksdb::ColumnFamilyOptions SmallValues(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  rocksdb::ColumnFamilyOptions family;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  family.compression = rocksdb::kLZ4Compression;
  family.bottommost_compression = rocksdb::kZSTD;
  family.write_buffer_size = 16 * kMiB;
  family.level_compaction_dynamic_level_bytes = true;
  return family;
}

// Values go to files of their own and only references to them are compacted. They are high-entropy already.
rocksdb::ColumnFamilyOptions BigValues(const std::shared_ptr<rocksdb::Cache>& cache, uint64_t write_buffer_bytes) {
  rocksdb::ColumnFamilyOptions family = SmallValues(cache);
  family.write_buffer_size = write_buffer_bytes;
  family.enable_blob_files = true;
  family.min_blob_size = kMinBlobBytes;
  family.blob_file_size = 256 * kMiB;
  family.blob_compression_type = rocksdb::kNoCompression;
  family.enable_blob_garbage_collection = true;
  family.blob_garbage_collection_age_cutoff = 0.5;
  family.blob_garbage_collection_force_threshold = 0.5;
  return family;
}

}  // namespace

rocksdb::DBOptions DatabaseOptions(const StoreOptions& options) {
  rocksdb::DBOptions database;
  database.env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  database.create_if_missing = true;
  database.create_missing_column_families = true;
  database.paranoid_checks = true;
  // A power cut may leave holes in what was not synced. All that was acknowledged stands before them.
  database.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  database.track_and_verify_wals_in_manifest = true;
  database.max_open_files = 512;
  database.max_background_jobs = 2;
  database.bytes_per_sync = kMiB;
  database.db_write_buffer_size = options.write_buffer_bytes;
  database.max_total_wal_size = 2 * options.write_buffer_bytes;
  database.max_log_file_size = 4 * kMiB;
  database.keep_log_file_num = 4;
  database.stats_dump_period_sec = 0;
  database.listeners.push_back(std::make_shared<ManualRecovery>());
  return database;
}

std::vector<rocksdb::ColumnFamilyDescriptor> FamilyDescriptors(const StoreOptions& options) {
  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(options.cache_bytes);
  const rocksdb::ColumnFamilyOptions small = SmallValues(cache);
  const rocksdb::ColumnFamilyOptions big = BigValues(cache, std::max(kMiB, options.write_buffer_bytes / 2));
  return {
      {rocksdb::kDefaultColumnFamilyName, small},
      {"nodes", small},
      {"contents", small},
      {"edges", small},
      {"blocks", big},
      {"references", small},
      {"request_ids", small},
      {"indexes", small},
      {"state", big},
      {"profiles", big},
  };
}

}  // namespace quicksave::storage
