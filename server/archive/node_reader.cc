#include "server/archive/node_reader.h"

#include <atomic>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "server/archive/block_pages.h"
#include "server/archive/node_record.h"
#include "server/archive/stopwatch.h"

namespace quicksave::server {
namespace {

// Of bytes that cannot be decoded: are they at fault, and not what the record says about them?
bool AreAtFault(std::string_view bytes, const storage::BlockRef& ref) {
  const absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(bytes);
  if (!info.ok() || info->block_id.ToBytes() != ref.id()) return true;
  return info->shape.tokens == static_cast<int>(ref.token_count()) && info->shape.bytes() == ref.raw_bytes();
}

// The same of a block of rows, which is to have the shape that the record says.
bool AreAtFault(std::string_view bytes, const compressor::RowBlockShape& shape, const compressor::BlockId& id) {
  const absl::StatusOr<compressor::RowBlockInfo> info = compressor::PeekRowBlock(bytes);
  return !info.ok() || info->id != id || info->shape == shape;
}

absl::StatusOr<std::vector<float>> DecodeRows(std::string_view bytes, const compressor::RowBlockShape& shape,
                                              const compressor::BlockId& id) {
  const absl::StatusOr<compressor::RowBlockInfo> info = compressor::PeekRowBlock(bytes);
  if (!info.ok()) return info.status();
  // No memory on the word of a record that the block contradicts; decoding says how it does.
  std::vector<float> values(info->shape == shape ? shape.values() : 0);
  if (absl::Status status = DecodeRowBlock(bytes, shape, id, absl::MakeSpan(values)); !status.ok()) return status;
  return values;
}

std::string NameOf(const storage::BlockRef& ref) {
  return absl::StrCat("block ", absl::BytesToHexString(ref.id()), " of tokens ", ref.first_token(), " to ",
                      ref.first_token() + ref.token_count());
}

}  // namespace

absl::StatusOr<std::string> NodeReader::ReadBytes(const storage::BlockRef& ref, ReadCost& cost) const {
  Stopwatch watch;
  absl::StatusOr<std::string> bytes =
      d_.store->ReadBlock(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), NameOf(ref));
  cost.bytes += static_cast<int64_t>(bytes->size());
  return bytes;
}

absl::StatusOr<RawBlock> NodeReader::ReadBlock(const storage::BlockRef& ref, ReadCost& cost) const {
  const absl::StatusOr<std::string> bytes = ReadBytes(ref, cost);
  if (!bytes.ok()) return bytes.status();
  const compressor::BlockContext context{.model_fingerprint = record_.model_fingerprint(),
                                         .first_position = ref.first_token()};
  Stopwatch watch;
  absl::StatusOr<RawBlock> block = coder_.Decode(ref, *bytes, context);
  cost.decode += watch.Lap();
  if (absl::IsDataLoss(block.status()) && AreAtFault(*bytes, ref)) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  if (!block.ok()) return Explain(block.status(), NameOf(ref));
  return block;
}

absl::StatusOr<RawBlock> NodeReader::ReadBlock(const storage::BlockRef& ref, const storage::BlockRef* residual,
                                               const LatentSource& source, ReadCost& cost) const {
  const std::optional<LatentKey> key = ParseLatentKey(ref.codec());
  if (!key) return ReadBlock(ref, cost);
  const bool latent = key->kind == LatentKey::Kind::kLatent;
  const LatentProfileEntry* entry = latent ? coder_.latents().Find(key->profile_id) : nullptr;
  if (latent && entry == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("nodes/", record_.node_id(), ": ", NameOf(ref),
                                                      " needs latent profile ", key->profile_id,
                                                      ", which is not loaded"));
  }
  const int first = static_cast<int>(ref.first_token());
  RawBlock block(ShapeOfBlock(d_.pool->shape(), static_cast<int>(ref.token_count())));
  // The layers that the latent holds are overwritten.
  GatherBlock(source.pages, first, block.mutable_view());
  OwnedContext owned;
  if (latent) owned = source.replay->ContextOf(entry->profile->split, first, block.shape.tokens, *source.angles);
  owned.context.model_fingerprint = record_.model_fingerprint();
  owned.context.step = key->step;
  absl::Status decoded = DecodeLatent(ref, owned.context, block.mutable_view(), cost);
  if (!decoded.ok()) return decoded;
  if (residual == nullptr) return block;
  owned.context.base = block.view().values;
  decoded = DecodeLatent(*residual, owned.context, block.mutable_view(), cost);
  if (!decoded.ok()) return decoded;
  return block;
}

absl::Status NodeReader::DecodeLatent(const storage::BlockRef& ref, const compressor::BlockContext& context,
                                      compressor::MutableBlockView block, ReadCost& cost) const {
  const absl::StatusOr<std::string> bytes = ReadBytes(ref, cost);
  if (!bytes.ok()) return bytes.status();
  Stopwatch watch;
  const absl::Status decoded = coder_.DecodeLatent(ref, *bytes, context, block);
  cost.decode += watch.Lap();
  // Bytes that are whole decode to something else when what was recomputed is: no fault of theirs.
  if (absl::IsDataLoss(decoded) && absl::IsDataLoss(compressor::ParseContainer(*bytes).status())) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  return decoded.ok() ? decoded : Explain(decoded, NameOf(ref));
}

absl::Status NodeReader::CheckLatent(const storage::BlockRef& ref, ReadCost& cost) const {
  const absl::StatusOr<std::string> bytes = ReadBytes(ref, cost);
  if (!bytes.ok()) return bytes.status();
  const absl::StatusOr<compressor::Container> container = compressor::ParseContainer(*bytes);
  absl::Status status = container.status();
  if (status.ok() && container->info.block_id.ToBytes() != ref.id()) {
    status = absl::DataLossError(absl::StrCat("the stored bytes are block ", container->info.block_id.ToHex()));
  }
  if (absl::IsDataLoss(status)) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  return status.ok() ? status : Explain(status, NameOf(ref));
}

absl::StatusOr<std::shared_ptr<const engine::Logits>> NodeReader::ReadLogits(int vocab_size, ReadCost& cost) const {
  Stopwatch watch;
  absl::StatusOr<std::string> bytes = d_.store->GetState(record_.tenant(), record_.node_id(), kLogitsState);
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), "logits");
  cost.bytes += static_cast<int64_t>(bytes->size());
  const size_t count = bytes->size() / sizeof(float);
  const bool whole = !bytes->empty() && bytes->size() % sizeof(float) == 0;
  if (!whole || (vocab_size != 0 && count != static_cast<size_t>(vocab_size))) {
    return Explain(absl::DataLossError(absl::StrCat(bytes->size(), " bytes for a vocabulary of ", vocab_size)),
                   "logits");
  }
  return LogitsFromBytes(*bytes);
}

absl::StatusOr<std::vector<float>> NodeReader::ReadTaps(const TapPiece& piece, const storage::BlockRef& ref,
                                                        ReadCost& cost) const {
  const auto name = [&] {
    return absl::StrCat("hidden states of layer ", piece.layer, ", tokens ", piece.first_token, " to ",
                        piece.first_token + piece.token_count, " (block ", absl::BytesToHexString(ref.id()), ")");
  };
  Stopwatch watch;
  const absl::StatusOr<std::string> bytes =
      d_.store->ReadBlock(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  cost.read += watch.Lap();
  if (!bytes.ok()) return Explain(bytes.status(), name());
  cost.bytes += static_cast<int64_t>(bytes->size());
  if (ref.codec() != compressor::kRowBlockCodec) {
    return Explain(absl::UnimplementedError(absl::StrCat("this program does not read ", ref.codec())), name());
  }
  const absl::StatusOr<compressor::BlockId> id = compressor::Digest128::FromBytes(ref.id());
  if (!id.ok()) return Explain(absl::DataLossError(id.status().message()), name());
  absl::StatusOr<std::vector<float>> values = DecodeRows(*bytes, piece.shape(), *id);
  cost.decode += watch.Lap();
  if (absl::IsDataLoss(values.status()) && AreAtFault(*bytes, piece.shape(), *id)) {
    d_.store->ReportDamaged(record_.tenant(), record_.model_fingerprint(), storage::IdOf(ref));
  }
  if (!values.ok()) return Explain(values.status(), name());
  return values;
}

absl::Status NodeReader::ForEach(int count, absl::FunctionRef<absl::Status(int, ReadCost&)> work,
                                 ReadCost& cost) const {
  std::vector<ReadCost> costs(count);
  std::vector<absl::Status> statuses(count);
  std::atomic<bool> failed = false;
  d_.workers->ParallelFor(count, [&](int i) {
    if (failed) return;
    statuses[i] = work(i, costs[i]);
    if (!statuses[i].ok()) failed = true;
  });
  for (int i = 0; i < count; ++i) {
    if (!statuses[i].ok()) return statuses[i];
    cost.bytes += costs[i].bytes;
    cost.read += costs[i].read;
    cost.decode += costs[i].decode;
  }
  return absl::OkStatus();
}

absl::Status NodeReader::Explain(const absl::Status& status, const std::string& part) const {
  const std::string name = absl::StrCat("nodes/", record_.node_id());
  if (!absl::IsNotFound(status)) {
    return absl::Status(status.code(), absl::StrCat(name, ": ", part, ": ", status.message()));
  }
  // The record names it, so it is either damage or a delete since the record was read.
  const auto nodes = d_.store->GetNodes(record_.tenant(), {record_.node_id()});
  if (nodes.ok() && !nodes->front().has_value()) {
    return absl::NotFoundError(absl::StrCat(name, " was deleted while it was read"));
  }
  return absl::DataLossError(absl::StrCat(name, ": ", part, " is missing: ", status.message()));
}

}  // namespace quicksave::server
