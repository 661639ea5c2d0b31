// What names and sizes are allowed. Every function returns OK or INVALID_ARGUMENT with the rule that was broken.
#ifndef QUICKSAVE_STORAGE_VALIDATION_H_
#define QUICKSAVE_STORAGE_VALIDATION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "storage/store.h"

namespace quicksave::storage {

inline constexpr size_t kMaxNameBytes = 63;         // Node ids, names of state values and profiles.
inline constexpr size_t kMaxIdentifierBytes = 128;  // Tenants, fingerprints, codecs, methods, request ids.
inline constexpr size_t kMaxLabels = 64;
inline constexpr size_t kMaxLabelKeyBytes = 63;
inline constexpr size_t kMaxLabelValueBytes = 255;
inline constexpr size_t kMaxRewards = 64;
inline constexpr size_t kMaxNoteBytes = size_t{64} << 10;
inline constexpr size_t kMaxParents = 64;
inline constexpr size_t kMaxBlocks = size_t{1} << 20;
inline constexpr size_t kMaxEncodings = 16;                  // Of one node, beside the blocks as saved.
inline constexpr size_t kMaxValueBytes = size_t{256} << 20;  // One block, state value or profile.
inline constexpr size_t kMaxCommitBytes = size_t{2} << 30;   // All blocks and state values of one commit.
inline constexpr size_t kMaxRecordBytes = size_t{64} << 20;  // A record with its contents.
inline constexpr size_t kMaxAnswerBytes = size_t{4} << 20;
inline constexpr int kMaxPageSize = 1000;

// 1 to 63 of [a-z0-9-].
absl::Status ValidateNodeId(absl::string_view node_id);
// 1 to 63 of [a-z0-9._-].
absl::Status ValidateName(absl::string_view kind, absl::string_view name);
// 1 to 128 bytes of printable ASCII. `kind` is named in the message.
absl::Status ValidateIdentifier(absl::string_view kind, absl::string_view text);
// A content id of 16 bytes and a codec.
absl::Status ValidateBlockId(const BlockId& id);
// Labels, rewards, note.
absl::Status ValidateAnnotations(const NodeAnnotations& annotations);
// Everything about a commit that does not depend on what is stored.
absl::Status ValidateCommit(const NodeCommit& commit);
// The same of a change of encodings; ValidateEncoding and ValidateEncodings do the rest.
absl::Status ValidateEncodingChange(const EncodingChange& change);
// An encoding of a node of that many tokens.
absl::Status ValidateEncoding(const v1::Encoding& encoding, uint32_t token_count);
// The number of a node's encodings, and the size of its record with these contents.
absl::Status ValidateEncodings(const NodeRecord& head, const NodeContents& contents);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_VALIDATION_H_
