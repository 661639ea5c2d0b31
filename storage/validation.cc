#include "storage/validation.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quicksave::storage {
namespace {

absl::Status Invalid(absl::string_view kind, absl::string_view value, absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat(kind, " \"", absl::CHexEscape(value.substr(0, kMaxIdentifierBytes)), "\" must be ", rule));
}

absl::Status TooBig(absl::string_view kind, uint64_t value, uint64_t limit) {
  return absl::InvalidArgumentError(absl::StrCat(kind, ": ", value, ", the limit is ", limit));
}

absl::Status First(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool IsPrintable(absl::string_view text) { return std::all_of(text.begin(), text.end(), absl::ascii_isprint); }

absl::Status ValidateParents(const NodeRecord& record) {
  const size_t count = record.parents_size();
  if (count > kMaxParents) return TooBig("number of parents", count, kMaxParents);
  absl::flat_hash_set<std::string> seen;
  for (const ParentEdge& parent : record.parents()) {
    if (absl::Status id = ValidateNodeId(parent.node_id()); !id.ok()) return id;
    if (parent.node_id() == record.node_id()) return Invalid("parent", parent.node_id(), "another node");
    if (!seen.insert(parent.node_id()).second) return Invalid("parent", parent.node_id(), "named only once");
    if (parent.type() == v1::EDGE_TYPE_UNSPECIFIED || !v1::EdgeType_IsValid(parent.type())) {
      return Invalid("edge type of parent", parent.node_id(), "one of the known types");
    }
  }
  return absl::OkStatus();
}

// Where the blocks end, which follow each other without gap from token 0.
absl::StatusOr<uint64_t> EndOf(const google::protobuf::RepeatedPtrField<BlockRef>& refs, absl::string_view what) {
  const size_t count = refs.size();
  if (count > kMaxBlocks) return TooBig(absl::StrCat("number of ", what), count, kMaxBlocks);
  uint64_t next = 0;
  for (const BlockRef& ref : refs) {
    if (absl::Status id = ValidateBlockId(IdOf(ref)); !id.ok()) return id;
    if (ref.first_token() != next || ref.token_count() == 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": one begins at token ", ref.first_token(), " with ",
                                                     ref.token_count(), " tokens where token ", next, " comes next"));
    }
    next += ref.token_count();
  }
  return next;
}

// Blocks end within the sequence.
absl::Status ValidateBlockRefs(const NodeRecord& record) {
  const NodeContents& contents = record.contents();
  const absl::StatusOr<uint64_t> end = EndOf(contents.blocks(), "blocks");
  if (!end.ok()) return end.status();
  if (*end > record.token_count()) return TooBig("tokens in blocks", *end, record.token_count());
  const int tokens = contents.token_ids_size();
  if (tokens != 0 && static_cast<uint32_t>(tokens) != record.token_count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_ids has ", tokens, " tokens, token_count says ", record.token_count()));
  }
  return absl::OkStatus();
}

bool IsResidualOf(const BlockRef& residual, const BlockRef& block) {
  return residual.id() == block.id() && residual.first_token() == block.first_token() &&
         residual.token_count() == block.token_count() && residual.codec() != block.codec();
}

// Each residual has a block, in the same order.
absl::Status ValidateResiduals(const v1::Encoding& encoding, absl::string_view what) {
  auto block = encoding.blocks().begin();
  for (const BlockRef& residual : encoding.residuals()) {
    if (absl::Status id = ValidateBlockId(IdOf(residual)); !id.ok()) return id;
    while (block != encoding.blocks().end() && !IsResidualOf(residual, *block)) ++block;
    if (block++ == encoding.blocks().end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": the residual at token ", residual.first_token(),
                       " has no block of the same id and tokens and another codec, or comes out of order"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateKey(const EncodingKey& key) {
  if (absl::Status codec = ValidateIdentifier("codec of an encoding", key.codec); !codec.ok()) return codec;
  if (!std::isfinite(key.step) || key.step < 0) {
    return absl::InvalidArgumentError(absl::StrCat(EncodingName(key), ": the step must be finite and not negative"));
  }
  return key.profile_id.empty() ? absl::OkStatus() : ValidateName("profile of an encoding", key.profile_id);
}

// Encodings of a commit.
absl::Status ValidateEncodingsOf(const NodeRecord& record) {
  absl::flat_hash_set<EncodingKey> seen;
  for (const v1::Encoding& encoding : record.contents().encodings()) {
    if (absl::Status valid = ValidateEncoding(encoding, record.token_count()); !valid.ok()) return valid;
    if (!seen.insert(EncodingKeyOf(encoding)).second) {
      return absl::InvalidArgumentError(absl::StrCat(EncodingName(EncodingKeyOf(encoding)), " is named twice"));
    }
  }
  return ValidateEncodings(record, record.contents());
}

// Hidden states are of tokens of the sequence.
absl::Status ValidateTaps(const NodeRecord& record) {
  const size_t count = record.contents().tap_blocks_size();
  if (count > kMaxBlocks) return TooBig("number of blocks of hidden states", count, kMaxBlocks);
  if (count > 0 && !record.has_taps())
    return absl::InvalidArgumentError("there are blocks of hidden states, but no taps");
  const v1::TapState& taps = record.taps();
  const uint64_t end = uint64_t{taps.first_token()} + taps.token_count();
  if (end > record.token_count()) return TooBig("end of the hidden states", end, record.token_count());
  for (const v1::TapBlock& tap : record.contents().tap_blocks()) {
    if (absl::Status id = ValidateBlockId(IdOf(tap.block())); !id.ok()) return id;
  }
  return absl::OkStatus();
}

// Blocks are given once, and only those that `contents` refers to; adds up their bytes.
absl::Status ValidateNewBlocks(absl::Span<const NewBlock> blocks, const NodeContents& contents, uint64_t* bytes) {
  absl::flat_hash_set<BlockId> referenced;
  ForEachBlock(contents, [&](const BlockRef& ref) { referenced.insert(IdOf(ref)); });
  absl::flat_hash_set<BlockId> given;
  for (const NewBlock& block : blocks) {
    const std::string name = absl::BytesToHexString(block.id.content_id);
    if (!referenced.contains(block.id)) return Invalid("block", name, "one that the record refers to");
    if (!given.insert(block.id).second) return Invalid("block", name, "given only once");
    if (block.bytes.size() > kMaxValueBytes) return TooBig("bytes of a block", block.bytes.size(), kMaxValueBytes);
    *bytes += block.bytes.size();
  }
  return absl::OkStatus();
}

absl::Status ValidateState(const NodeCommit& commit, uint64_t* bytes) {
  absl::flat_hash_set<std::string> seen;
  for (const StateValue& value : commit.state) {
    if (absl::Status name = ValidateName("name of a state value", value.name); !name.ok()) return name;
    if (!seen.insert(value.name).second) return Invalid("state value", value.name, "given only once");
    if (value.bytes.size() > kMaxValueBytes)
      return TooBig("bytes of a state value", value.bytes.size(), kMaxValueBytes);
    *bytes += value.bytes.size();
  }
  return absl::OkStatus();
}

// A record whose strings are not UTF-8 could be written but never read.
absl::Status ValidateReadable(const NodeRecord& record) {
  const size_t size = record.ByteSizeLong();
  if (size > kMaxRecordBytes) return TooBig("bytes of a record", size, kMaxRecordBytes);
  NodeRecord copy;
  if (!copy.ParseFromString(record.SerializeAsString())) {
    return absl::InvalidArgumentError("every string in a record must be UTF-8");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateNodeId(absl::string_view node_id) {
  const bool good = std::all_of(node_id.begin(), node_id.end(),
                                [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-'; });
  if (good && !node_id.empty() && node_id.size() <= kMaxNameBytes) return absl::OkStatus();
  return Invalid("node id", node_id, "1 to 63 of [a-z0-9-]");
}

absl::Status ValidateName(absl::string_view kind, absl::string_view name) {
  const bool good = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || absl::StrContains("._-", absl::string_view(&c, 1));
  });
  if (good && !name.empty() && name.size() <= kMaxNameBytes) return absl::OkStatus();
  return Invalid(kind, name, "1 to 63 of [a-z0-9._-]");
}

absl::Status ValidateIdentifier(absl::string_view kind, absl::string_view text) {
  if (!text.empty() && text.size() <= kMaxIdentifierBytes && IsPrintable(text)) return absl::OkStatus();
  return Invalid(kind, text, "1 to 128 characters of printable ASCII");
}

absl::Status ValidateBlockId(const BlockId& id) {
  if (id.content_id.size() != 16) return Invalid("content id", id.content_id, "16 bytes");
  return ValidateIdentifier("codec", id.codec);
}

absl::Status ValidateAnnotations(const NodeAnnotations& annotations) {
  if (annotations.labels().size() > kMaxLabels)
    return TooBig("number of labels", annotations.labels().size(), kMaxLabels);
  for (const auto& [key, value] : annotations.labels()) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes) return Invalid("label", key, "1 to 63 bytes");
    if (value.size() > kMaxLabelValueBytes) return Invalid("value of a label", value, "at most 255 bytes");
  }
  if (annotations.rewards().size() > kMaxRewards) {
    return TooBig("number of rewards", annotations.rewards().size(), kMaxRewards);
  }
  for (const auto& [key, value] : annotations.rewards()) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes) return Invalid("reward", key, "1 to 63 bytes");
  }
  if (annotations.note().size() > kMaxNoteBytes)
    return TooBig("bytes of the note", annotations.note().size(), kMaxNoteBytes);
  NodeAnnotations copy;
  if (copy.ParseFromString(annotations.SerializeAsString())) return absl::OkStatus();
  return absl::InvalidArgumentError("labels, rewards and the note must be UTF-8");
}

absl::Status ValidateCommit(const NodeCommit& commit) {
  const NodeRecord& record = commit.record;
  uint64_t bytes = 0;
  absl::Status status =
      First({ValidateIdentifier("tenant", record.tenant()), ValidateNodeId(record.node_id()),
             ValidateIdentifier("model fingerprint", record.model_fingerprint()), ValidateParents(record),
             ValidateBlockRefs(record), ValidateTaps(record), ValidateEncodingsOf(record),
             ValidateNewBlocks(commit.blocks, record.contents(), &bytes), ValidateState(commit, &bytes),
             ValidateAnnotations(record.annotations()), ValidateReadable(record)});
  if (!status.ok()) return status;
  if (bytes > kMaxCommitBytes) return TooBig("bytes of a commit", bytes, kMaxCommitBytes);
  return absl::OkStatus();
}

absl::Status ValidateEncodingChange(const EncodingChange& change) {
  absl::flat_hash_set<EncodingKey> named;
  std::vector<EncodingKey> keys = change.remove;
  keys.insert(keys.end(), change.remove_residuals.begin(), change.remove_residuals.end());
  NodeContents added;
  for (const v1::Encoding& encoding : change.add) {
    keys.push_back(EncodingKeyOf(encoding));
    *added.add_encodings() = encoding;
  }
  if (keys.empty() && !change.remove_saved) {
    return absl::InvalidArgumentError("a change of encodings must add or remove something");
  }
  for (const EncodingKey& key : keys) {
    if (absl::Status valid = ValidateKey(key); !valid.ok()) return valid;
    if (!named.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat(EncodingName(key), " is named twice in one change"));
    }
  }
  uint64_t bytes = 0;
  if (absl::Status valid = ValidateNewBlocks(change.blocks, added, &bytes); !valid.ok()) return valid;
  if (bytes > kMaxCommitBytes) return TooBig("bytes of a change of encodings", bytes, kMaxCommitBytes);
  return absl::OkStatus();
}

absl::Status ValidateEncoding(const v1::Encoding& encoding, uint32_t token_count) {
  const EncodingKey key = EncodingKeyOf(encoding);
  if (absl::Status valid = ValidateKey(key); !valid.ok()) return valid;
  const std::string name = EncodingName(key);
  const absl::StatusOr<uint64_t> end = EndOf(encoding.blocks(), absl::StrCat("blocks of ", name));
  if (!end.ok()) return end.status();
  if (*end != token_count || token_count == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " must cover all tokens, and at least one: it covers ", *end, " of ", token_count));
  }
  return ValidateResiduals(encoding, name);
}

absl::Status ValidateEncodings(const NodeRecord& head, const NodeContents& contents) {
  const size_t count = contents.encodings_size();
  if (count > kMaxEncodings) return TooBig("number of encodings", count, kMaxEncodings);
  const size_t size = head.ByteSizeLong() + contents.ByteSizeLong();
  if (size > kMaxRecordBytes) return TooBig("bytes of a record", size, kMaxRecordBytes);
  return absl::OkStatus();
}

}  // namespace quicksave::storage
