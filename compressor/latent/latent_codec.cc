#include "compressor/latent/latent_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

constexpr uint32_t kVersion = 1;
// A group's classes may be moved by so many, where its values are larger or smaller than those of the calibration.
constexpr int kMostShift = 4;

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("latent block: ", what)); }

int Shifted(int sigma_class, int shift) { return std::clamp(sigma_class + shift, 0, kSigmaClasses - 1); }

bool IsFiniteBf16(uint16_t bits) { return (bits & 0x7f80) != 0x7f80; }

// False where one of them is out of range.
bool ReadEscapes(std::string_view bytes, std::vector<int32_t>& escapes) {
  ByteReader reader(bytes);
  escapes.reserve(bytes.size() / sizeof(int32_t));
  while (!reader.rest().empty()) {
    escapes.push_back(static_cast<int32_t>(reader.Integer<uint32_t>()));
    if (escapes.back() < -kLargestInteger || escapes.back() > kLargestInteger) return false;
  }
  return true;
}

// The symbols of all groups, and the table of each.
struct Symbols {
  std::vector<uint8_t> symbols;
  std::vector<uint8_t> table_of;
  std::vector<int32_t> escapes;
};

class LatentCodec : public Codec {
 public:
  explicit LatentCodec(std::shared_ptr<const LatentProfile> profile)
      : profile_(std::move(profile)), profile_id_(ComputeDigest(profile_->Serialize())) {
    for (const SigmaClass& one : profile_->classes) {
      encode_tables_.emplace_back(one.frequencies);
      decode_tables_.emplace_back(one.frequencies);
      std::vector<float>& costs = costs_.emplace_back(kSymbols);
      const double escape = std::max<double>(one.frequencies[kEscapeSymbol], 1);
      for (int s = 0; s < kSymbols; ++s) {
        // An escape is followed by 32 bits.
        const double bits = one.frequencies[s] == 0 || s == kEscapeSymbol
                                ? std::log2(kFrequencyTotal / escape) + 32
                                : std::log2(kFrequencyTotal / static_cast<double>(one.frequencies[s]));
        costs[s] = static_cast<float>(bits);
      }
    }
  }

  std::string_view name() const override { return kLatentCodec; }
  uint32_t version() const override { return kVersion; }
  bool lossless() const override { return false; }
  Digest128 profile_id() const override { return profile_id_; }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    if (absl::Status status = Check(block.shape, context); !status.ok()) return status;
    if (!IsStep(context.step)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the latent codec needs a step above 0 that has an inverse, not ", context.step));
    }
    const LatentTransform transform(*profile_, block.shape, context);
    std::string shifts;
    Symbols coded;
    for (const LayerGroup& group : profile_->groups) {
      const std::vector<float> latent = transform.Analyse(group, block);
      if (!std::all_of(latent.begin(), latent.end(), [](float z) { return std::isfinite(z); })) {
        return absl::InvalidArgumentError("the latent codec codes finite values only");
      }
      shifts.push_back(static_cast<char>(AddGroup(group, latent, transform, context.step, coded) + kMostShift));
    }
    // What the decoder will make of it, for its digest.
    std::vector<uint16_t> values(block.values.begin(), block.values.end());
    const MutableBlockView decoded{block.shape, absl::MakeSpan(values)};
    SynthesiseAll(transform, context.step, coded.symbols, coded.escapes, decoded);
    for (size_t i = 0; i < values.size(); ++i) {
      // What is not coded may be anything, and is as it was.
      if (!IsFiniteBf16(values[i]) && values[i] != block.values[i]) {
        return absl::InvalidArgumentError("the latent codec codes values below the largest numbers only");
      }
    }
    return Frame(context.step, ComputeBlockId(decoded.view()), shifts, coded, block.shape);
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t /*payload_version*/, const BlockContext& context,
                      MutableBlockView out) const override {
    if (absl::Status status = out.Validate(); !status.ok()) return status;
    if (absl::Status status = Check(out.shape, context); !status.ok()) return status;
    ByteReader reader(encoded.bytes);
    const auto step_bits = reader.Integer<uint32_t>();
    float step;
    std::memcpy(&step, &step_bits, sizeof(step));
    const auto digest = Digest128::FromBytes(reader.Bytes(16));
    const std::string_view shifts = reader.Bytes(profile_->groups.size());
    const auto escape_count = reader.Integer<uint32_t>();
    const std::string_view escape_bytes = reader.Bytes(size_t{4} * escape_count);
    if (!reader.ok() || !digest.ok()) return Damaged("cut short");
    if (!IsStep(step)) return Damaged("impossible step");
    std::vector<int32_t> escapes;
    if (!ReadEscapes(escape_bytes, escapes)) return Damaged("impossible escape");

    const LatentTransform transform(*profile_, out.shape, context);
    std::vector<uint8_t> table_of;
    for (size_t g = 0; g < shifts.size(); ++g) {
      const int shift = static_cast<uint8_t>(shifts[g]) - kMostShift;
      if (shift > kMostShift) return Damaged("impossible shift");
      for (const CodedComponent& component : CodedComponents(profile_->groups[g], step)) {
        table_of.insert(table_of.end(), transform.tokens(), Shifted(component.sigma_class, shift));
      }
    }
    std::vector<uint8_t> symbols(table_of.size());
    absl::Status decoded = RansDecode(reader.rest(), table_of, decode_tables_, absl::MakeSpan(symbols));
    if (!decoded.ok()) return decoded;
    if (std::count(symbols.begin(), symbols.end(), kEscapeSymbol) != static_cast<int64_t>(escape_count)) {
      return Damaged("wrong number of escapes");
    }
    SynthesiseAll(transform, step, symbols, escapes, out);
    if (ComputeBlockId(out.view()) != *digest) {
      return Damaged("decoded values are not those that were measured when it was encoded");
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Check(const BlockShape& shape, const BlockContext& context) const {
    if (!context.model_fingerprint.empty() && context.model_fingerprint != profile_->model_fingerprint) {
      return absl::FailedPreconditionError(absl::StrCat("the latent profile is for model ", profile_->model_fingerprint,
                                                        ", the block is of model ",
                                                        std::string(context.model_fingerprint)));
    }
    return LatentTransform::CheckContext(*profile_, shape, context);
  }

  // Appends a group's symbols, coded with the shift that costs least; returns that.
  int AddGroup(const LayerGroup& group, const std::vector<float>& latent, const LatentTransform& transform, float step,
               Symbols& coded) const {
    const std::vector<CodedComponent> components = CodedComponents(group, step);
    const float inverse = 1 / step;
    const size_t begin = coded.symbols.size();
    for (const CodedComponent& component : components) {
      const float* row = latent.data() + static_cast<size_t>(component.index) * transform.columns();
      for (int t = 0; t < transform.tokens(); ++t) {
        const int32_t q = Quantise(row[t], inverse);
        const uint8_t symbol = SymbolOf(q);
        coded.symbols.push_back(symbol);
        if (symbol == kEscapeSymbol) coded.escapes.push_back(q);
      }
    }
    const int shift = CheapestShift(components, absl::MakeConstSpan(coded.symbols).subspan(begin), transform.tokens());
    // A table may lack a symbol that is rare in it.
    size_t place = begin;
    std::vector<int32_t> escapes;
    size_t old_escape =
        coded.escapes.size() - std::count(coded.symbols.begin() + begin, coded.symbols.end(), kEscapeSymbol);
    const std::vector<int32_t> old(coded.escapes.begin() + old_escape, coded.escapes.end());
    coded.escapes.resize(old_escape);
    size_t next_old = 0;
    for (const CodedComponent& component : components) {
      const int table = Shifted(component.sigma_class, shift);
      const EncodeTable& encode = encode_tables_[table];
      for (int t = 0; t < transform.tokens(); ++t, ++place) {
        const uint8_t symbol = coded.symbols[place];
        if (symbol == kEscapeSymbol) {
          coded.escapes.push_back(old[next_old++]);
        } else if (encode.available[symbol] == kEscapeSymbol) {
          coded.escapes.push_back(int32_t{symbol} - kZeroSymbol);
          coded.symbols[place] = kEscapeSymbol;
        }
        coded.table_of.push_back(static_cast<uint8_t>(table));
      }
    }
    return shift;
  }

  int CheapestShift(absl::Span<const CodedComponent> components, absl::Span<const uint8_t> symbols, int tokens) const {
    int best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int shift = -kMostShift; shift <= kMostShift; ++shift) {
      double bits = 0;
      size_t place = 0;
      for (const CodedComponent& component : components) {
        const std::vector<float>& costs = costs_[Shifted(component.sigma_class, shift)];
        for (int t = 0; t < tokens; ++t) bits += costs[symbols[place++]];
      }
      if (bits < least) {
        least = bits;
        best = shift;
      }
    }
    return best;
  }

  void SynthesiseAll(const LatentTransform& transform, float step, absl::Span<const uint8_t> symbols,
                     absl::Span<const int32_t> escapes, MutableBlockView out) const {
    size_t place = 0;
    size_t escape = 0;
    const int tokens = transform.tokens();
    std::vector<int> used;
    std::vector<float> latent;
    std::vector<float> row(transform.columns());
    for (const LayerGroup& group : profile_->groups) {
      used.clear();
      latent.clear();
      for (const CodedComponent& component : CodedComponents(group, step)) {
        const SigmaClass& statistics = profile_->classes[component.sigma_class];
        bool zero = true;
        for (int t = 0; t < tokens; ++t) {
          const uint8_t symbol = symbols[place++];
          const int32_t q = symbol == kEscapeSymbol ? escapes[escape++] : int32_t{symbol} - kZeroSymbol;
          zero = zero && q == 0;
          row[t] = Reconstruct(q, statistics) * step;
        }
        if (zero) continue;
        used.push_back(component.index);
        latent.insert(latent.end(), row.begin(), row.end());
      }
      transform.Synthesise(group, used, latent, out);
    }
  }

  static EncodedBlock Frame(float step, const Digest128& digest, const std::string& shifts, const Symbols& coded,
                            const BlockShape& shape, absl::Span<const EncodeTable> tables) {
    EncodedBlock encoded;
    uint32_t step_bits;
    std::memcpy(&step_bits, &step, sizeof(step_bits));
    AppendInteger(encoded.bytes, step_bits);
    encoded.bytes += digest.ToBytes();
    encoded.bytes += shifts;
    AppendInteger(encoded.bytes, static_cast<uint32_t>(coded.escapes.size()));
    for (const int32_t escape : coded.escapes) AppendInteger(encoded.bytes, static_cast<uint32_t>(escape));
    std::vector<uint16_t> scratch;
    RansEncode(coded.symbols, coded.table_of, tables, scratch, encoded.bytes);
    encoded.tensors_per_section = static_cast<uint32_t>(shape.tensors());
    encoded.section_sizes = {static_cast<uint32_t>(encoded.bytes.size())};
    return encoded;
  }
  EncodedBlock Frame(float step, const Digest128& digest, const std::string& shifts, const Symbols& coded,
                     const BlockShape& shape) const {
    return Frame(step, digest, shifts, coded, shape, encode_tables_);
  }

  const std::shared_ptr<const LatentProfile> profile_;
  const Digest128 profile_id_;
  std::vector<EncodeTable> encode_tables_;
  std::vector<DecodeTable> decode_tables_;
  std::vector<std::vector<float>> costs_;  // bits of each symbol, by class
};

}  // namespace

std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile) {
  return std::make_unique<LatentCodec>(std::move(profile));
}

}  // namespace quicksave::compressor
