#include "compressor/latent/residual_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "compressor/byte_io.h"
#include "compressor/latent/quantiser.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

constexpr uint32_t kVersion = 1;

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("residual block: ", what)); }

// Calls use(index of its first value, values, level) for the tokens of each channel that the latent codes.
template <typename Use>
void ForEachRow(const LatentProfile& profile, const std::vector<ErrorLevel>& levels, const BlockShape& shape,
                int known_tokens, Use use) {
  const size_t first_channel = 2 * profile.kv_width() * profile.first_layer();
  for (size_t c = 0; c < levels.size(); ++c) {
    use((first_channel + c) * shape.tokens + known_tokens, static_cast<size_t>(shape.tokens - known_tokens), levels[c]);
  }
}

// Appends values of a few bits each, the first in the lowest bits.
class BitWriter {
 public:
  void Add(uint32_t value, int bits) {
    pending_ |= uint64_t{value} << count_;
    count_ += bits;
    if (count_ < 32) return;
    AppendInteger(bytes_, static_cast<uint32_t>(pending_));
    pending_ >>= 32;
    count_ -= 32;
  }
  std::string Finish() {
    for (; count_ > 0; count_ -= 8, pending_ >>= 8) bytes_.push_back(static_cast<char>(pending_));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
  uint64_t pending_ = 0;
  int count_ = 0;
};

// Reads what BitWriter wrote; zeros past the end.
class BitReader {
 public:
  explicit BitReader(std::string_view bytes) : bytes_(bytes) {}

  // At most 16 bits.
  uint16_t Take(int bits) {
    if (count_ < bits) Refill();
    const auto value = static_cast<uint16_t>(pending_ & ((uint64_t{1} << bits) - 1));
    pending_ >>= bits;
    count_ -= bits;
    return value;
  }
  // Whether exactly all bytes were used.
  bool AtEnd() const { return (8 * next_ - count_ + 7) / 8 == bytes_.size(); }

 private:
  void Refill() {
    uint32_t more = 0;
    if (next_ + sizeof(more) <= bytes_.size()) {
      std::memcpy(&more, bytes_.data() + next_, sizeof(more));
    } else if (next_ < bytes_.size()) {
      std::memcpy(&more, bytes_.data() + next_, bytes_.size() - next_);
    }
    pending_ |= uint64_t{more} << count_;
    count_ += 32;
    next_ += sizeof(more);
  }

  const std::string_view bytes_;
  size_t next_ = 0;
  uint64_t pending_ = 0;
  int count_ = 0;
};

// The error levels of the steps that were asked for last. Any thread.
class LevelCache {
 public:
  using Levels = std::shared_ptr<const std::vector<ErrorLevel>>;

  Levels Get(const LatentProfile& profile, float step) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      const absl::MutexLock lock(&mutex_);
      for (const auto& [known_step, levels] : entries_) {
        if (known_step == step) return levels;
      }
    }
    auto levels = std::make_shared<const std::vector<ErrorLevel>>(ErrorLevels(profile, step));
    const absl::MutexLock lock(&mutex_);
    if (entries_.size() < kMost) {
      entries_.emplace_back(step, levels);
    } else {
      entries_[next_++ % kMost] = {step, levels};
    }
    return levels;
  }

 private:
  // A profile's named points and some more.
  static constexpr size_t kMost = 8;

  absl::Mutex mutex_;
  std::vector<std::pair<float, Levels>> entries_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
};

class ResidualCodec : public Codec {
 public:
  ResidualCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id)
      : profile_(std::move(profile)), profile_id_(profile_id) {
    for (const TableFrequencies& table : profile_->residual_tables) {
      encode_tables_.emplace_back(table);
      decode_tables_.emplace_back(table);
    }
  }

  std::string_view name() const override { return kResidualCodec; }
  uint32_t version() const override { return kVersion; }
  bool lossless() const override { return true; }
  Digest128 profile_id() const override { return profile_id_; }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    if (absl::Status status = Check(block.shape, context); !status.ok()) return status;
    if (!IsStep(context.step)) return absl::InvalidArgumentError("a residual needs its latent's step");
    if (!SameWhereNotCoded(block, context)) {
      return absl::InvalidArgumentError("a residual's base must have the block's values where its latent codes none");
    }
    const LevelCache::Levels levels = levels_.Get(*profile_, context.step);
    const int known = Known(block.shape, context);
    std::vector<uint8_t> symbols(levels->size() * (block.shape.tokens - known));
    std::vector<uint8_t> table_of(symbols.size());
    std::string escapes;
    BitWriter raw;
    size_t next = 0;
    ForEachRow(*profile_, *levels, block.shape, known, [&](size_t first, size_t count, ErrorLevel level) {
      const ResidualClasses& classes = ResidualClasses::Of(level);
      for (size_t i = first; i < first + count; ++i, ++next) {
        const uint16_t base = context.base[i];
        const ResidualClass& residual_class = classes[base];
        const ResidualSymbol symbol = SymbolOf(block.values[i], base, classes);
        symbols[next] = encode_tables_[residual_class.table].Available(symbol.symbol);
        table_of[next] = residual_class.table;
        if (symbols[next] == kEscapeSymbol) {
          AppendInteger(escapes, block.values[i]);
        } else {
          raw.Add(symbol.raw, residual_class.raw_bits);
        }
      }
    });
    const std::string raw_bytes = raw.Finish();
    EncodedBlock encoded;
    uint32_t step_bits;
    std::memcpy(&step_bits, &context.step, sizeof(step_bits));
    AppendInteger(encoded.bytes, step_bits);
    encoded.bytes += ComputeBlockId({block.shape, context.base}).ToBytes();
    AppendInteger(encoded.bytes, static_cast<uint32_t>(escapes.size() / 2));
    AppendInteger(encoded.bytes, static_cast<uint32_t>(raw_bytes.size()));
    encoded.bytes += escapes;
    encoded.bytes += raw_bytes;
    std::vector<uint16_t> scratch;
    RansEncode(symbols, table_of, encode_tables_, scratch, encoded.bytes);
    encoded.tensors_per_section = static_cast<uint32_t>(block.shape.tensors());
    encoded.section_sizes = {static_cast<uint32_t>(encoded.bytes.size())};
    return encoded;
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t /*payload_version*/, const BlockContext& context,
                      MutableBlockView out) const override {
    if (absl::Status status = out.Validate(); !status.ok()) return status;
    if (absl::Status status = Check(out.shape, context); !status.ok()) return status;
    ByteReader reader(encoded.bytes);
    const auto step_bits = reader.Integer<uint32_t>();
    float step;
    std::memcpy(&step, &step_bits, sizeof(step));
    const auto base = Digest128::FromBytes(reader.Bytes(16));
    const auto escape_count = reader.Integer<uint32_t>();
    const auto raw_count = reader.Integer<uint32_t>();
    ByteReader escapes(reader.Bytes(size_t{2} * escape_count));
    BitReader raw(reader.Bytes(raw_count));
    if (!reader.ok() || !base.ok()) return Damaged("cut short");
    if (!IsStep(step)) return Damaged("impossible step");
    if (ComputeBlockId({out.shape, context.base}) != *base) return Damaged("it belongs to another latent");
    const LevelCache::Levels levels = levels_.Get(*profile_, step);
    const int known = Known(out.shape, context);
    std::vector<uint8_t> table_of(levels->size() * (out.shape.tokens - known));
    size_t next = 0;
    ForEachRow(*profile_, *levels, out.shape, known, [&](size_t first, size_t count, ErrorLevel level) {
      const ResidualClasses& classes = ResidualClasses::Of(level);
      for (size_t i = first; i < first + count; ++i) table_of[next++] = classes[context.base[i]].table;
    });
    std::vector<uint8_t> symbols(table_of.size());
    absl::Status decoded = RansDecode(reader.rest(), table_of, decode_tables_, absl::MakeSpan(symbols));
    if (!decoded.ok()) return decoded;
    // What is not coded is the same in both.
    if (out.values.data() != context.base.data()) {
      std::copy(context.base.begin(), context.base.end(), out.values.begin());
    }
    next = 0;
    ForEachRow(*profile_, *levels, out.shape, known, [&](size_t first, size_t count, ErrorLevel level) {
      const ResidualClasses& classes = ResidualClasses::Of(level);
      for (uint16_t& value : out.values.subspan(first, count)) {
        const uint8_t symbol = symbols[next++];
        value = symbol == kEscapeSymbol ? escapes.Integer<uint16_t>()
                                        : ValueOf({symbol, raw.Take(classes[value].raw_bits)}, value, classes);
      }
    });
    if (!escapes.ok() || !escapes.rest().empty() || !raw.AtEnd()) return Damaged("wrong number of escapes or raw bits");
    return absl::OkStatus();
  }

 private:
  static int Known(const BlockShape& shape, const BlockContext& context) {
    return std::min(context.known_tokens, shape.tokens);
  }

  bool SameWhereNotCoded(BlockView block, const BlockContext& context) const {
    const size_t tokens = block.shape.tokens;
    const size_t coded = 2 * profile_->kv_width() * profile_->first_layer() * tokens;
    if (!std::equal(block.values.begin(), block.values.begin() + coded, context.base.begin())) return false;
    const size_t known = Known(block.shape, context);
    for (size_t row = coded; row < block.values.size(); row += tokens) {
      if (!std::equal(block.values.begin() + row, block.values.begin() + row + known, context.base.begin() + row)) {
        return false;
      }
    }
    return true;
  }

  absl::Status Check(const BlockShape& shape, const BlockContext& context) const {
    if (!context.model_fingerprint.empty() && context.model_fingerprint != profile_->model_fingerprint) {
      return absl::FailedPreconditionError(absl::StrCat("the residual's profile is for model ",
                                                        profile_->model_fingerprint, ", the block is of model ",
                                                        std::string(context.model_fingerprint)));
    }
    if (context.known_tokens < 0) return absl::InvalidArgumentError("known_tokens must not be negative");
    if (shape.layers != profile_->layers || shape.kv_heads != profile_->kv_heads ||
        shape.head_dim != profile_->head_dim) {
      return absl::FailedPreconditionError(
          absl::StrCat("the residual's profile is for another shape than ", shape.DebugString()));
    }
    if (context.base.size() != shape.values()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a residual needs the decoded latent: ", shape.values(), " values, not ", context.base.size()));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<const LatentProfile> profile_;
  const Digest128 profile_id_;
  std::vector<EncodeTable> encode_tables_;
  std::vector<DecodeTable> decode_tables_;
  mutable LevelCache levels_;
};

}  // namespace

std::vector<ErrorLevel> ErrorLevels(const LatentProfile& profile, float step) {
  std::vector<ErrorLevel> levels;
  const size_t half = static_cast<size_t>(profile.head_dim) / 2;
  for (const LayerGroup& group : profile.groups) {
    const size_t channels = profile.channels(group);
    std::vector<double> squares(channels);
    for (int k = 0; k < group.components(); ++k) {
      const int sigma_class = SigmaClassOf(group.sigma[k], step);
      const double error = sigma_class < 0 ? double{group.sigma[k]} * group.sigma[k]
                                           : double{profile.classes[sigma_class].error} * step * step;
      if (group.decode.empty()) {
        squares[k] += error * group.scale[k] * group.scale[k];
        continue;
      }
      for (size_t c = 0; c < channels; ++c) {
        const double weight = group.DecodeWeight(k, static_cast<int>(c));
        squares[c] += error * (weight * weight);
      }
    }
    // RoPE turns the keys' pairs, and with them their errors: on average both have half of the sum.
    for (size_t tensor = 0; tensor < channels / profile.kv_width(); tensor += 2) {
      for (size_t head = 0; head < static_cast<size_t>(profile.kv_heads); ++head) {
        double* keys = squares.data() + tensor * profile.kv_width() + head * 2 * half;
        for (size_t i = 0; i < half; ++i) keys[i] = keys[i + half] = (keys[i] + keys[i + half]) / 2;
      }
    }
    for (const double square : squares) levels.push_back(LevelOf(std::sqrt(square)));
  }
  return levels;
}

ResidualStatistics::ResidualStatistics() : counts_(kResidualClasses, std::vector<uint64_t>(kSymbols)) {}

void ResidualStatistics::Add(const LatentProfile& profile, const std::vector<ErrorLevel>& levels, BlockView block,
                             BlockView base, int known_tokens) {
  ForEachRow(profile, levels, block.shape, std::min(known_tokens, block.shape.tokens),
             [&](size_t first, size_t count, ErrorLevel level) {
               const ResidualClasses& classes = ResidualClasses::Of(level);
               for (size_t i = first; i < first + count; ++i) {
                 const uint16_t prediction = base.values[i];
                 ++counts_[classes[prediction].table][SymbolOf(block.values[i], prediction, classes).symbol];
               }
             });
}

std::vector<TableFrequencies> ResidualStatistics::Build() const {
  std::vector<TableFrequencies> tables;
  for (const std::vector<uint64_t>& counts : counts_) tables.push_back(QuantizeFrequencies(counts));
  return tables;
}

std::unique_ptr<const Codec> NewResidualCodec(std::shared_ptr<const LatentProfile> profile) {
  const Digest128 id = ComputeDigest(profile->Serialize());
  return NewResidualCodec(std::move(profile), id);
}

std::unique_ptr<const Codec> NewResidualCodec(std::shared_ptr<const LatentProfile> profile,
                                              const Digest128& profile_id) {
  return std::make_unique<ResidualCodec>(std::move(profile), profile_id);
}

}  // namespace quicksave::compressor
