#include "storage/block_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/block_reader.h"
#include "storage/keys.h"

namespace quicksave::storage {

std::vector<BlockRef*> PointersTo(google::protobuf::RepeatedPtrField<BlockRef>* refs) {
  return {refs->pointer_begin(), refs->pointer_end()};
}

BlockWriter::BlockWriter(const NodeRecord& node, absl::Span<const NewBlock> given, const WriterState& state,
                         Batch* batch, v1::UsageEntry* usage)
    : node_(node), state_(state), batch_(*batch), usage_(*usage) {
  for (const NewBlock& block : given) new_blocks_.try_emplace(block.id, &block);
}

absl::Status BlockWriter::Add(absl::Span<BlockRef* const> refs, BlockSizes* sizes) {
  if (absl::Status loaded = LoadStoredBlocks(refs); !loaded.ok()) return loaded;
  for (BlockRef* const ref : refs) {
    absl::StatusOr<v1::BlockEntry> entry = EntryFor(*ref);
    if (!entry.ok()) return entry.status();
    ref->set_stored_bytes(entry->stored_bytes());
    sizes->raw_bytes += entry->raw_bytes();
    sizes->stored_bytes += entry->stored_bytes();
  }
  return absl::OkStatus();
}

absl::Status BlockWriter::Add(int64_t time_us, v1::Encoding* encoding) {
  BlockSizes blocks, residuals;
  if (absl::Status added = Add(PointersTo(encoding->mutable_blocks()), &blocks); !added.ok()) return added;
  if (absl::Status added = Add(PointersTo(encoding->mutable_residuals()), &residuals); !added.ok()) return added;
  encoding->set_create_time_us(time_us);
  encoding->set_raw_bytes(blocks.raw_bytes);
  encoding->set_stored_bytes(blocks.stored_bytes);
  encoding->set_residual_bytes(residuals.stored_bytes);
  return absl::OkStatus();
}

std::string BlockWriter::KeyOf(const BlockId& id) const {
  return BlockKey(node_.tenant(), node_.model_fingerprint(), id);
}

absl::Status BlockWriter::LoadStoredBlocks(absl::Span<BlockRef* const> refs) {
  std::vector<BlockId> ids;
  std::vector<std::string> keys, names;
  for (const BlockRef* const ref : refs) {
    BlockId id = IdOf(*ref);
    if (entries_.contains(id)) continue;
    keys.push_back(KeyOf(id));
    names.push_back(BlockName(node_.tenant(), id));
    ids.push_back(std::move(id));
  }
  const auto payloads = state_.database->MultiGet(Family::kReferences, keys, names);
  for (size_t i = 0; i < payloads.size(); ++i) {
    if (absl::IsNotFound(payloads[i].status())) continue;
    if (!payloads[i].ok() && !absl::IsDataLoss(payloads[i].status())) return payloads[i].status();
    v1::BlockEntry entry;
    const bool readable = payloads[i].ok() && entry.ParseFromString(*payloads[i]);
    if (!readable || state_.damaged.Contains(keys[i])) {
      replaced_.insert_or_assign(ids[i], readable ? std::make_optional(std::move(entry)) : std::nullopt);
      continue;
    }
    entries_.insert_or_assign(ids[i], std::move(entry));
    batch_.PutKey(Family::kReferences, ReferenceKey(keys[i], node_.node_id()));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::BlockEntry> BlockWriter::EntryFor(const BlockRef& ref) {
  const BlockId id = IdOf(ref);
  if (!entries_.contains(id)) {
    auto given = new_blocks_.find(id);
    if (given == new_blocks_.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat(BlockName(node_.tenant(), id), replaced_.contains(id) ? " is stored with damage and not given"
                                                                             : " is neither stored nor given"));
    }
    AddBlock(*given->second, ref.raw_bytes());
  }
  const v1::BlockEntry& entry = entries_.at(id);
  if (entry.raw_bytes() == ref.raw_bytes()) return entry;
  return absl::InvalidArgumentError(
      absl::StrCat(BlockName(node_.tenant(), id), " has ", entry.raw_bytes(), " raw bytes, not ", ref.raw_bytes()));
}

void BlockWriter::AddBlock(const NewBlock& block, uint64_t raw_bytes) {
  v1::BlockEntry entry;
  entry.set_raw_bytes(raw_bytes);
  entry.set_stored_bytes(block.bytes.size());
  const std::string key = KeyOf(block.id);
  batch_.Put(Family::kBlocks, key, block.bytes);
  batch_.PutMessage(Family::kReferences, key, entry);
  batch_.PutKey(Family::kReferences, ReferenceKey(key, node_.node_id()));
  // Equal ids mean interchangeable bytes: an entry that cannot be read said what the new one says.
  if (auto old = replaced_.find(block.id); old != replaced_.end()) SubtractBlock(old->second.value_or(entry), &usage_);
  usage_.set_blocks(usage_.blocks() + 1);
  usage_.set_block_raw_bytes(usage_.block_raw_bytes() + raw_bytes);
  usage_.set_block_stored_bytes(usage_.block_stored_bytes() + block.bytes.size());
  written_bytes_ += block.bytes.size();
  written_.push_back(key);
  entries_.insert_or_assign(block.id, std::move(entry));
}

}  // namespace quicksave::storage
