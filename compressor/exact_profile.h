// The profile of the `exact` codec: static entropy tables of one model, calibrated once from some thousand tokens.
//
// Each channel refers to one of a few shared tables, with its own offset of magnitude and its own sign, so that the
// tables fit the cache. A profile never changes; blocks name it by its id. Byte format:
// docs/formats/block_container.md.
//
//   ExactProfileBuilder builder("model-fingerprint");
//   for (BlockView block : calibration_blocks) { if (auto s = builder.AddBlock(block); !s.ok()) return s; }
//   absl::StatusOr<ExactProfile> profile = builder.Build();
//   std::string bytes = profile->Serialize();

#ifndef QUICKSAVE_COMPRESSOR_EXACT_PROFILE_H_
#define QUICKSAVE_COMPRESSOR_EXACT_PROFILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

// Immutable after it was parsed or built; any thread may read it. Copies are deep (some hundred KiB).
class ExactProfile {
 public:
  // Reads what Serialize wrote. DATA_LOSS for damage, UNIMPLEMENTED for a newer version.
  static absl::StatusOr<ExactProfile> Parse(std::string_view bytes);

  // Versioned and checksummed; equal profiles give equal bytes.
  std::string Serialize() const;

  // Digest of the serialized bytes, never none.
  const Digest128& id() const { return id_; }
  // The model that the tables were calibrated on.
  const std::string& model_fingerprint() const { return model_fingerprint_; }
  int layers() const { return layers_; }
  int kv_heads() const { return kv_heads_; }
  int head_dim() const { return head_dim_; }
  // The shared tables, 1 to kMaxTables of them.
  absl::Span<const TableFrequencies> tables() const { return tables_; }
  // The channels' parameters in canonical order, layers * 2 * kv_heads * head_dim of them.
  absl::Span<const ChannelModel> channels() const { return channels_; }

 private:
  friend class ExactProfileBuilder;
  std::string model_fingerprint_;
  int layers_ = 0;
  int kv_heads_ = 0;
  int head_dim_ = 0;
  std::vector<TableFrequencies> tables_;
  std::vector<ChannelModel> channels_;
  Digest128 id_;
};

// Collects statistics of calibration blocks of one model and makes a profile of them. Not thread-safe. Holds 2 KiB per
// channel (23 MiB for SmolLM2-135M).
class ExactProfileBuilder {
 public:
  explicit ExactProfileBuilder(std::string model_fingerprint);

  // Counts a block's values. All blocks must have the same shape but for `tokens`: INVALID_ARGUMENT otherwise.
  absl::Status AddBlock(BlockView block);

  // Tokens counted so far.
  int64_t tokens() const { return tokens_; }

  // Clusters the channels and makes the tables; the same blocks in any order give the same profile. Some thousand
  // tokens, spread over the positions that will be used, make a good one. FAILED_PRECONDITION if there were no blocks,
  // INVALID_ARGUMENT if the fingerprint is longer than 4,096 bytes. Costs about a second for a small model.
  absl::StatusOr<ExactProfile> Build() const;

 private:
  std::string model_fingerprint_;
  BlockShape shape_;
  int64_t tokens_ = 0;
  // [channels, 2 signs, kCountedClasses]: values by sign and magnitude class, from kFirstCountedClass on.
  std::vector<uint32_t> counts_;
  // [channels]: values of other classes.
  std::vector<uint32_t> outside_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_EXACT_PROFILE_H_
