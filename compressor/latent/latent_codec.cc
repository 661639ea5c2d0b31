#include "compressor/latent/latent_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
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

// What is left of a block's symbols, and of the integers that its escapes stand for.
struct CodedValues {
  absl::Span<const uint8_t> symbols;
  absl::Span<const int32_t> escapes;
};

// Makes values of symbols. Does not own the transform.
class Synthesiser {
 public:
  Synthesiser(const LatentTransform& transform, absl::Span<const SigmaClass> classes, float step)
      : transform_(transform), classes_(classes), step_(step), values_(classes.size()) {
    for (size_t i = 0; i < classes.size(); ++i) {
      for (int s = 0; s < kEscapeSymbol; ++s) values_[i][s] = Reconstruct(s - kZeroSymbol, classes[i]) * step;
    }
  }

  // Writes a group, whose values come first in `coded`; returns those of the next groups.
  CodedValues Write(const LayerGroup& group, absl::Span<const CodedComponent> components, CodedValues coded,
                    std::vector<float> predicted, MutableBlockView out) const {
    const auto tokens = static_cast<size_t>(transform_.tokens());
    std::vector<int> used;
    std::vector<float> latent;
    latent.reserve(components.size() * transform_.columns());
    for (const CodedComponent& component : components) {
      const absl::Span<const uint8_t> symbols = coded.symbols.first(tokens);
      coded.symbols.remove_prefix(tokens);
      absl::Span<const int32_t> escapes =
          coded.escapes.first(std::count(symbols.begin(), symbols.end(), kEscapeSymbol));
      coded.escapes.remove_prefix(escapes.size());
      if (AllZero(symbols, escapes)) continue;
      used.push_back(component.index);
      latent.resize(latent.size() + transform_.columns());
      float* row = latent.data() + latent.size() - transform_.columns();
      for (const uint8_t symbol : symbols) {
        if (symbol == kEscapeSymbol) {
          *row++ = Reconstruct(escapes.front(), classes_[component.sigma_class]) * step_;
          escapes.remove_prefix(1);
        } else {
          *row++ = values_[component.sigma_class][symbol];
        }
      }
    }
    transform_.Synthesise(group, used, latent, std::move(predicted), out);
    return coded;
  }

 private:
  static bool AllZero(absl::Span<const uint8_t> symbols, absl::Span<const int32_t> escapes) {
    return std::all_of(symbols.begin(), symbols.end(),
                       [](uint8_t symbol) { return symbol == kZeroSymbol || symbol == kEscapeSymbol; }) &&
           std::all_of(escapes.begin(), escapes.end(), [](int32_t q) { return q == 0; });
  }

  const LatentTransform& transform_;
  const absl::Span<const SigmaClass> classes_;
  const float step_;
  // What each symbol stands for, by class.
  std::vector<std::array<float, kSymbols>> values_;
};

class LatentCodec : public Codec {
 public:
  LatentCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id)
      : profile_(std::move(profile)), profile_id_(profile_id) {
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
    const Synthesiser synthesiser(transform, profile_->classes, context.step);
    std::string shifts;
    Symbols coded;
    // What the decoder will make of it, for its digest.
    std::vector<uint16_t> values(block.values.begin(), block.values.end());
    const MutableBlockView decoded{block.shape, absl::MakeSpan(values)};
    for (const LayerGroup& group : profile_->groups) {
      std::vector<float> predicted = transform.Predict(group);
      const std::vector<float> latent = transform.Analyse(group, block, predicted);
      if (!std::all_of(latent.begin(), latent.end(), [](float z) { return std::isfinite(z); })) {
        return absl::InvalidArgumentError("the latent codec codes finite values only");
      }
      const std::vector<CodedComponent> components = CodedComponents(group, context.step);
      const size_t first_symbol = coded.symbols.size();
      const size_t first_escape = coded.escapes.size();
      shifts.push_back(static_cast<char>(AddGroup(components, latent, transform, context.step, coded) + kMostShift));
      const absl::Span<const int32_t> escapes = absl::MakeConstSpan(coded.escapes).subspan(first_escape);
      const absl::Span<const uint8_t> symbols = absl::MakeConstSpan(coded.symbols).subspan(first_symbol);
      synthesiser.Write(group, components, {symbols, escapes}, std::move(predicted), decoded);
    }
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
    std::vector<std::vector<CodedComponent>> components;
    std::vector<uint8_t> table_of;
    for (size_t g = 0; g < shifts.size(); ++g) {
      const int shift = static_cast<uint8_t>(shifts[g]) - kMostShift;
      if (shift > kMostShift) return Damaged("impossible shift");
      components.push_back(CodedComponents(profile_->groups[g], step));
      for (const CodedComponent& component : components.back()) {
        table_of.insert(table_of.end(), transform.tokens(), Shifted(component.sigma_class, shift));
      }
    }
    std::vector<uint8_t> symbols(table_of.size());
    absl::Status decoded = RansDecode(reader.rest(), table_of, decode_tables_, absl::MakeSpan(symbols));
    if (!decoded.ok()) return decoded;
    if (std::count(symbols.begin(), symbols.end(), kEscapeSymbol) != static_cast<int64_t>(escape_count)) {
      return Damaged("wrong number of escapes");
    }
    const Synthesiser synthesiser(transform, profile_->classes, step);
    CodedValues rest{symbols, escapes};
    for (size_t g = 0; g < components.size(); ++g) {
      const LayerGroup& group = profile_->groups[g];
      rest = synthesiser.Write(group, components[g], rest, transform.Predict(group), out);
    }
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
  int AddGroup(absl::Span<const CodedComponent> components, const std::vector<float>& latent,
               const LatentTransform& transform, float step, Symbols& coded) const {
    const auto tokens = static_cast<size_t>(transform.tokens());
    const size_t begin = coded.symbols.size();
    std::vector<int32_t> escapes = AddSymbols(components, latent, transform, step, coded);
    const absl::Span<uint8_t> symbols = absl::MakeSpan(coded.symbols).subspan(begin);
    const int shift = CheapestShift(components, symbols, tokens);
    // A table may lack a symbol that is rare in it.
    size_t next = 0;
    for (size_t i = 0; i < components.size(); ++i) {
      const int table = Shifted(components[i].sigma_class, shift);
      const std::array<uint8_t, kSymbols>& available = encode_tables_[table].available;
      for (uint8_t& symbol : symbols.subspan(i * tokens, tokens)) {
        if (available[symbol] != kEscapeSymbol) continue;
        coded.escapes.push_back(symbol == kEscapeSymbol ? escapes[next++] : int32_t{symbol} - kZeroSymbol);
        symbol = kEscapeSymbol;
      }
      coded.table_of.insert(coded.table_of.end(), tokens, static_cast<uint8_t>(table));
    }
    return shift;
  }

  // Appends the symbols of a group; returns the integers that have none.
  static std::vector<int32_t> AddSymbols(absl::Span<const CodedComponent> components, const std::vector<float>& latent,
                                         const LatentTransform& transform, float step, Symbols& coded) {
    const auto tokens = static_cast<size_t>(transform.tokens());
    const float inverse = 1 / step;
    std::vector<int32_t> escapes;
    std::vector<int32_t> integers(tokens);
    coded.symbols.resize(coded.symbols.size() + components.size() * tokens);
    uint8_t* to = coded.symbols.data() + coded.symbols.size() - components.size() * tokens;
    for (const CodedComponent& component : components) {
      const float* row = latent.data() + static_cast<size_t>(component.index) * transform.columns();
      for (size_t t = 0; t < tokens; ++t) integers[t] = Quantise(row[t], inverse);
      for (size_t t = 0; t < tokens; ++t) to[t] = SymbolOf(integers[t]);
      if (std::count(to, to + tokens, kEscapeSymbol) > 0) {
        std::copy_if(integers.begin(), integers.end(), std::back_inserter(escapes),
                     [](int32_t q) { return SymbolOf(q) == kEscapeSymbol; });
      }
      to += tokens;
    }
    return escapes;
  }

  int CheapestShift(absl::Span<const CodedComponent> components, absl::Span<const uint8_t> symbols,
                    size_t tokens) const {
    // How often each symbol occurs in each class.
    std::vector<std::array<uint32_t, kSymbols>> counts(kSigmaClasses);
    for (size_t i = 0; i < components.size(); ++i) {
      std::array<uint32_t, kSymbols>& of_class = counts[components[i].sigma_class];
      for (const uint8_t symbol : symbols.subspan(i * tokens, tokens)) ++of_class[symbol];
    }
    int best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int shift = -kMostShift; shift <= kMostShift; ++shift) {
      double bits = 0;
      for (int i = 0; i < kSigmaClasses; ++i) {
        const std::vector<float>& costs = costs_[Shifted(i, shift)];
        for (int s = 0; s < kSymbols; ++s) bits += static_cast<double>(costs[s]) * counts[i][s];
      }
      if (bits < least) {
        least = bits;
        best = shift;
      }
    }
    return best;
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
  const Digest128 id = ComputeDigest(profile->Serialize());
  return NewLatentCodec(std::move(profile), id);
}

std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id) {
  return std::make_unique<LatentCodec>(std::move(profile), profile_id);
}

}  // namespace quicksave::compressor
