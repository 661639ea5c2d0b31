// The index of beginnings: which nodes begin with given tokens.
//
// A node that lends its state stands under the hash of its first 128, 256, ... tokens, once for each; so it has fewer
// keys here than references to blocks, and whoever stands under a long beginning stands under all shorter ones.
#ifndef QUICKSAVE_STORAGE_BEGINNING_INDEX_H_
#define QUICKSAVE_STORAGE_BEGINNING_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/database.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// Tokens from one beginning to the next.
inline constexpr int kBeginningStep = 128;

// Hashes of the first 128, 256, ... tokens: XXH3-64 of the last 128 ids of each, 32 bits each and little endian, seeded
// with the hash before, the first with 0.
std::vector<uint64_t> HashBeginnings(absl::Span<const uint32_t> tokens);

// Under how many beginnings a node is to stand: all of its own if it keeps the exact bits of a state that is a pure
// function of its tokens, else none. Of `head`, `no_saved_blocks` and `lossy_tokens` are read.
uint32_t CountBeginnings(const NodeRecord& head, const NodeContents& contents);

// The keys in `indexes` that `head.beginnings` tells of.
std::vector<std::string> BeginningKeys(const NodeRecord& head, const NodeContents& contents);

// As Store::FindBeginning.
absl::StatusOr<NodeBeginning> FindBeginning(const Database& database, absl::string_view tenant,
                                            absl::string_view model_fingerprint, absl::Span<const int32_t> tokens);

// Deletes the keys of nodes that are gone: a program that does not know the index leaves them behind.
absl::Status RemoveStrayBeginnings(WriterState* state);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_BEGINNING_INDEX_H_
