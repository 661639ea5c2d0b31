// Reading blocks.
#ifndef QUICKSAVE_STORAGE_BLOCK_READER_H_
#define QUICKSAVE_STORAGE_BLOCK_READER_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quicksave/storage/v1/entries.pb.h"
#include "storage/damaged_blocks.h"
#include "storage/database.h"
#include "storage/store.h"

namespace quicksave::storage {

// "block HEX (codec) of tenant", as messages name it.
std::string BlockName(absl::string_view tenant, const BlockId& id);

// The entry of a block. NOT_FOUND: it is not stored. DATA_LOSS.
absl::StatusOr<v1::BlockEntry> ReadBlockEntry(const Database& database, absl::string_view block_key,
                                              absl::string_view what, const Snapshot* snapshot = nullptr);

// Is the block stored and not known to be damaged? Reads its entry, not its bytes: one that is unreadable is as none.
absl::StatusOr<bool> IsStored(const Database& database, const DamagedBlocks& damaged, absl::string_view block_key);

// As Store::ReadBlock.
absl::StatusOr<std::string> ReadBlock(const Database& database, absl::string_view tenant,
                                      absl::string_view model_fingerprint, const BlockId& id);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_BLOCK_READER_H_
