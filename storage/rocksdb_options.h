// How RocksDB is set up for the store: its column families and their options.
#ifndef QUICKSAVE_STORAGE_ROCKSDB_OPTIONS_H_
#define QUICKSAVE_STORAGE_ROCKSDB_OPTIONS_H_

#include <cstddef>
#include <vector>

#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "storage/store.h"

namespace quicksave::storage {

// Column families, in the order of FamilyDescriptors. Names on disk never change.
enum class Family {
  kDefault,     // Format version, totals.
  kNodes,       // NodeRecord without contents.
  kContents,    // NodeContents.
  kEdges,       // Both directions.
  kBlocks,      // Encoded blocks, in blob files.
  kReferences,  // Which blocks are stored, and which nodes refer to each.
  kRequestIds,  // First answers.
  kIndexes,     // Nodes by time, model, parent, label.
  kState,       // Big values of nodes, in blob files.
  kProfiles,    // Codec profiles.
};
inline constexpr size_t kFamilyCount = 10;

// Options of the database as a whole.
rocksdb::DBOptions DatabaseOptions(const StoreOptions& options);

// One descriptor for each Family.
std::vector<rocksdb::ColumnFamilyDescriptor> FamilyDescriptors(const StoreOptions& options);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_ROCKSDB_OPTIONS_H_
