#include "compressor/latent/latent_payload.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

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

// Whether all are kZeroSymbol.
bool AllZero(absl::Span<const uint8_t> symbols) {
  uint8_t difference = 0;
  for (const uint8_t symbol : symbols) difference |= symbol ^ uint8_t { kZeroSymbol };
  return difference == 0;
}

// Where the first escape is; nothing if there is none.
const void* FindEscape(absl::Span<const uint8_t> symbols) {
  return symbols.empty() ? nullptr : std::memchr(symbols.data(), kEscapeSymbol, symbols.size());
}

bool HasEscape(absl::Span<const uint8_t> symbols) { return FindEscape(symbols) != nullptr; }

// They are few, so most of it is a search.
size_t CountEscapes(absl::Span<const uint8_t> symbols) {
  size_t count = 0;
  while (const void* escape = FindEscape(symbols)) {
    ++count;
    symbols.remove_prefix(static_cast<const uint8_t*>(escape) + 1 - symbols.data());
  }
  return count;
}

// Appends the symbols of a group; returns the integers that have none.
std::vector<int32_t> AddSymbols(absl::Span<const CodedComponent> components, absl::Span<const float> latent,
                                size_t tokens, size_t columns, PayloadDraft& draft) {
  const float inverse = 1 / draft.step;
  std::vector<int32_t> escapes;
  std::vector<int32_t> integers(tokens);
  draft.symbols.resize(draft.symbols.size() + components.size() * tokens);
  uint8_t* to = draft.symbols.data() + draft.symbols.size() - components.size() * tokens;
  for (const CodedComponent& component : components) {
    const float* row = latent.data() + static_cast<size_t>(component.index) * columns;
    for (size_t t = 0; t < tokens; ++t) integers[t] = Quantise(row[t], inverse);
    for (size_t t = 0; t < tokens; ++t) to[t] = SymbolOf(integers[t]);
    if (HasEscape({to, tokens})) {
      std::copy_if(integers.begin(), integers.end(), std::back_inserter(escapes),
                   [](int32_t q) { return SymbolOf(q) == kEscapeSymbol; });
    }
    to += tokens;
  }
  return escapes;
}

}  // namespace

LatentPayloadCoder::LatentPayloadCoder(absl::Span<const SigmaClass> classes) : classes_(classes) {
  for (const SigmaClass& one : classes_) {
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

bool LatentPayloadCoder::TakeEscapes(absl::Span<const uint8_t> symbols, int sigma_class,
                                     absl::Span<const int32_t>& escapes, float* row) const {
  if (!HasEscape(symbols)) return true;
  bool any = false;
  for (size_t t = 0; t < symbols.size(); ++t) {
    if (symbols[t] != kEscapeSymbol) {
      any = any || symbols[t] != kZeroSymbol;
      continue;
    }
    any = any || escapes.front() != 0;
    row[t] = Reconstruct(escapes.front(), classes_[sigma_class]);
    escapes.remove_prefix(1);
  }
  return any;
}

void LatentPayloadCoder::Take(absl::Span<const CodedComponent> components, int tokens, int columns, float step,
                              CodedValues& coded, SparseLatent& latent) const {
  latent.unit = step;
  latent.used.clear();
  latent.values.resize(std::max(latent.values.size(), components.size() * columns));
  float* row = latent.values.data();
  for (const CodedComponent& component : components) {
    const absl::Span<const uint8_t> symbols = coded.symbols.first(tokens);
    coded.symbols.remove_prefix(tokens);
    if (AllZero(symbols)) continue;
    ReconstructSymbols(symbols, classes_[component.sigma_class], row);
    if (!TakeEscapes(symbols, component.sigma_class, coded.escapes, row)) continue;
    std::fill(row + tokens, row + columns, 0.0f);
    latent.used.push_back(component.index);
    row += columns;
  }
}

SparseLatent LatentPayloadCoder::Add(absl::Span<const float> sigma, absl::Span<const float> latent, int tokens,
                                     int columns, PayloadDraft& draft) const {
  const std::vector<CodedComponent> components = CodedComponents(sigma, draft.step);
  const size_t begin = draft.symbols.size();
  const size_t first_escape = draft.escapes.size();
  const std::vector<int32_t> escapes = AddSymbols(components, latent, tokens, columns, draft);
  const absl::Span<uint8_t> symbols = absl::MakeSpan(draft.symbols).subspan(begin);
  const int shift = CheapestShift(components, symbols, tokens);
  // A table may lack a symbol that is rare in it.
  size_t next = 0;
  for (size_t i = 0; i < components.size(); ++i) {
    const int table = Shifted(components[i].sigma_class, shift);
    const EncodeTable& encode_table = encode_tables_[table];
    for (uint8_t& symbol : symbols.subspan(i * tokens, tokens)) {
      if (encode_table.Available(symbol) != kEscapeSymbol) continue;
      draft.escapes.push_back(symbol == kEscapeSymbol ? escapes[next++] : int32_t{symbol} - kZeroSymbol);
      symbol = kEscapeSymbol;
    }
    draft.table_of.insert(draft.table_of.end(), tokens, static_cast<uint8_t>(table));
  }
  draft.shifts.push_back(static_cast<char>(shift + kMostShift));
  CodedValues coded{symbols, absl::MakeConstSpan(draft.escapes).subspan(first_escape)};
  SparseLatent decoded;
  Take(components, tokens, columns, draft.step, coded, decoded);
  return decoded;
}

int LatentPayloadCoder::CheapestShift(absl::Span<const CodedComponent> components, absl::Span<const uint8_t> symbols,
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

EncodedBlock LatentPayloadCoder::Finish(const PayloadDraft& draft, const Digest128& digest,
                                        const BlockShape& shape) const {
  EncodedBlock encoded;
  uint32_t step_bits;
  std::memcpy(&step_bits, &draft.step, sizeof(step_bits));
  AppendInteger(encoded.bytes, step_bits);
  encoded.bytes += digest.ToBytes();
  encoded.bytes += draft.shifts;
  AppendInteger(encoded.bytes, static_cast<uint32_t>(draft.escapes.size()));
  for (const int32_t escape : draft.escapes) AppendInteger(encoded.bytes, static_cast<uint32_t>(escape));
  std::vector<uint16_t> scratch;
  RansEncode(draft.symbols, draft.table_of, encode_tables_, scratch, encoded.bytes);
  encoded.tensors_per_section = static_cast<uint32_t>(shape.tensors());
  encoded.section_sizes = {static_cast<uint32_t>(encoded.bytes.size())};
  return encoded;
}

absl::StatusOr<LatentPayload> LatentPayloadCoder::Decode(std::string_view bytes,
                                                         absl::Span<const absl::Span<const float>> sigmas, int tokens,
                                                         int columns) const {
  ByteReader reader(bytes);
  LatentPayload payload(*this, tokens, columns);
  const auto step_bits = reader.Integer<uint32_t>();
  std::memcpy(&payload.step, &step_bits, sizeof(payload.step));
  const auto digest = Digest128::FromBytes(reader.Bytes(16));
  const std::string_view shifts = reader.Bytes(sigmas.size());
  const auto escape_count = reader.Integer<uint32_t>();
  const std::string_view escape_bytes = reader.Bytes(size_t{4} * escape_count);
  if (!reader.ok() || !digest.ok()) return Damaged("cut short");
  if (!IsStep(payload.step)) return Damaged("impossible step");
  payload.digest = *digest;
  if (!ReadEscapes(escape_bytes, payload.escapes_)) return Damaged("impossible escape");
  std::vector<uint8_t> table_of;
  size_t components = 0;
  for (const absl::Span<const float> sigma : sigmas) components += sigma.size();
  table_of.reserve(components * tokens);
  for (size_t g = 0; g < shifts.size(); ++g) {
    const int shift = static_cast<uint8_t>(shifts[g]) - kMostShift;
    if (shift > kMostShift) return Damaged("impossible shift");
    payload.components_.push_back(CodedComponents(sigmas[g], payload.step));
    for (const CodedComponent& component : payload.components_.back()) {
      table_of.insert(table_of.end(), tokens, Shifted(component.sigma_class, shift));
    }
  }
  std::vector<uint8_t>& symbols = payload.symbols_;
  symbols.resize(table_of.size());
  absl::Status decoded = RansDecode(reader.rest(), table_of, decode_tables_, absl::MakeSpan(symbols));
  if (!decoded.ok()) return decoded;
  if (CountEscapes(symbols) != escape_count) return Damaged("wrong number of escapes");
  return payload;
}

void LatentPayload::TakeGroup(SparseLatent& latent) {
  LatentPayloadCoder::CodedValues rest{absl::MakeConstSpan(symbols_).subspan(next_symbol_),
                                       absl::MakeConstSpan(escapes_).subspan(next_escape_)};
  coder_->Take(components_[next_group_++], tokens_, columns_, step, rest, latent);
  next_symbol_ = symbols_.size() - rest.symbols.size();
  next_escape_ = escapes_.size() - rest.escapes.size();
}

absl::Status CheckDecodedIsFinite(BlockView block, BlockView decoded) {
  for (size_t i = 0; i < block.values.size(); ++i) {
    if (!IsFiniteBf16(decoded.values[i]) && decoded.values[i] != block.values[i]) {
      return absl::InvalidArgumentError("the latent codec codes values below the largest numbers only");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDigest(const Digest128& digest, BlockView decoded) {
  if (ComputeBlockId(decoded) == digest) return absl::OkStatus();
  return Damaged("decoded values are not those that were measured when it was encoded");
}

}  // namespace quicksave::compressor
