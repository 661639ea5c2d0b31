#include "compressor/row_block.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"
#include "compressor/entropy_table.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

constexpr std::string_view kMagic = "QSRB";
constexpr int kPlanes = 4;
constexpr size_t kIdBytes = 16;
constexpr size_t kChecksumBytes = sizeof(uint64_t);
constexpr size_t kTableBytes = kSymbols * sizeof(uint16_t);
// A plane is coded when that saves at least this share of it.
constexpr double kWorthCoding = 0.02;

enum class PlaneMode : uint8_t { kRaw = 0, kCoded = 1 };

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("row block: ", what)); }

// The exponent becomes the top byte, the sign follows: exponents are few, everything else is nearly random.
uint32_t Turn(uint32_t bits) { return std::rotl(bits, 1); }
uint32_t TurnBack(uint32_t bits) { return std::rotr(bits, 1); }

std::string RawBytes(const RowBlockShape& shape, absl::Span<const float> values) {
  std::string raw;
  AppendInteger(raw, static_cast<uint32_t>(shape.rows));
  AppendInteger(raw, static_cast<uint32_t>(shape.width));
  raw.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return raw;
}

// Bits that an ideal code takes for all symbols.
double Entropy(const std::array<uint64_t, kSymbols>& counts, size_t total) {
  double bits = 0;
  for (const uint64_t count : counts) {
    if (count > 0) bits -= static_cast<double>(count) * std::log2(static_cast<double>(count) / total);
  }
  return bits;
}

void AppendCoded(const std::array<uint64_t, kSymbols>& counts, std::vector<uint8_t>& plane, std::string& out) {
  const TableFrequencies frequencies = QuantizeFrequencies(counts);
  const EncodeTable table(frequencies);
  std::string escapes;
  for (uint8_t& symbol : plane) {
    const uint8_t available = table.Available(symbol);
    if (available == kEscapeSymbol) escapes.push_back(static_cast<char>(symbol));
    symbol = available;
  }
  for (const uint16_t frequency : frequencies) AppendInteger(out, frequency);
  AppendInteger(out, static_cast<uint32_t>(escapes.size()));
  out += escapes;
  std::vector<uint16_t> words;
  RansEncode(plane, std::vector<uint8_t>(plane.size(), 0), absl::MakeConstSpan(&table, 1), words, out);
}

void AppendPlane(std::vector<uint8_t>& plane, std::string& out) {
  std::array<uint64_t, kSymbols> counts = {};
  for (const uint8_t byte : plane) ++counts[byte];
  const double coded = Entropy(counts, plane.size()) / 8 + kTableBytes + kStateBytes;
  std::string payload;
  PlaneMode mode = PlaneMode::kRaw;
  if (coded < (1 - kWorthCoding) * static_cast<double>(plane.size())) {
    mode = PlaneMode::kCoded;
    AppendCoded(counts, plane, payload);
  } else {
    payload.assign(plane.begin(), plane.end());
  }
  AppendInteger(out, static_cast<uint8_t>(mode));
  AppendInteger(out, static_cast<uint32_t>(payload.size()));
  out += payload;
}

absl::Status ReadCoded(std::string_view payload, std::vector<uint8_t>& plane) {
  ByteReader reader(payload);
  TableFrequencies frequencies;
  for (uint16_t& frequency : frequencies) frequency = reader.Integer<uint16_t>();
  const std::string_view escapes = reader.Bytes(reader.Integer<uint32_t>());
  if (!reader.ok() || !ValidateFrequencies(frequencies).ok()) return Damaged("impossible table");
  const DecodeTable table(frequencies);
  const std::vector<uint8_t> table_of(plane.size(), 0);
  const absl::Status decoded =
      RansDecode(reader.rest(), table_of, absl::MakeConstSpan(&table, 1), absl::MakeSpan(plane));
  if (!decoded.ok()) return Damaged(decoded.message());
  size_t used = 0;
  for (uint8_t& symbol : plane) {
    if (symbol != kEscapeSymbol) continue;
    if (used == escapes.size()) return Damaged("escapes are missing");
    symbol = static_cast<uint8_t>(escapes[used++]);
  }
  return used == escapes.size() ? absl::OkStatus() : Damaged("escapes are left over");
}

absl::Status ReadPlane(ByteReader& reader, std::vector<uint8_t>& plane) {
  const auto mode = static_cast<PlaneMode>(reader.Integer<uint8_t>());
  const std::string_view payload = reader.Bytes(reader.Integer<uint32_t>());
  if (!reader.ok()) return Damaged("cut short");
  if (mode == PlaneMode::kCoded) return ReadCoded(payload, plane);
  if (mode != PlaneMode::kRaw || payload.size() != plane.size()) return Damaged("impossible plane");
  plane.assign(payload.begin(), payload.end());
  return absl::OkStatus();
}

// Checks the checksum and reads what comes before the planes, which the reader then stands at.
absl::StatusOr<RowBlockInfo> ReadHeader(std::string_view bytes, ByteReader& reader) {
  if (bytes.size() < kChecksumBytes || !ChecksumMatches(bytes)) return Damaged("checksum mismatch");
  reader = ByteReader(bytes.substr(0, bytes.size() - kChecksumBytes));
  if (reader.Bytes(kMagic.size()) != kMagic) return Damaged("not a row block");
  const auto version = reader.Integer<uint16_t>();
  if (version == 0) return Damaged("version 0");
  if (version > kRowBlockVersion) {
    return absl::UnimplementedError(
        absl::StrCat("row block of version ", version, ", this program reads up to ", kRowBlockVersion));
  }
  reader.Integer<uint16_t>();
  const auto rows = reader.Integer<uint32_t>();
  const auto width = reader.Integer<uint32_t>();
  const absl::StatusOr<BlockId> id = BlockId::FromBytes(reader.Bytes(kIdBytes));
  constexpr uint32_t kMost = std::numeric_limits<int>::max();
  if (!reader.ok() || !id.ok() || rows > kMost || width > kMost) return Damaged("impossible header");
  return RowBlockInfo{.shape = {.rows = static_cast<int>(rows), .width = static_cast<int>(width)}, .id = *id};
}

}  // namespace

BlockId ComputeRowBlockId(const RowBlockShape& shape, absl::Span<const float> values) {
  return ComputeDigest(RawBytes(shape, values));
}

std::string EncodeRowBlock(const RowBlockShape& shape, absl::Span<const float> values, const BlockId& id) {
  std::string out(kMagic);
  AppendInteger(out, kRowBlockVersion);
  AppendInteger(out, uint16_t{0});
  AppendInteger(out, static_cast<uint32_t>(shape.rows));
  AppendInteger(out, static_cast<uint32_t>(shape.width));
  out += id.ToBytes();
  std::vector<uint8_t> plane(values.size());
  for (int i = kPlanes - 1; i >= 0; --i) {
    for (size_t j = 0; j < values.size(); ++j) {
      plane[j] = static_cast<uint8_t>(Turn(std::bit_cast<uint32_t>(values[j])) >> (8 * i));
    }
    AppendPlane(plane, out);
  }
  AppendChecksum(out);
  return out;
}

absl::StatusOr<RowBlockInfo> PeekRowBlock(std::string_view bytes) {
  ByteReader reader("");
  return ReadHeader(bytes, reader);
}

absl::Status DecodeRowBlock(std::string_view bytes, const RowBlockShape& shape, const BlockId& id,
                            absl::Span<float> out) {
  ByteReader reader("");
  const absl::StatusOr<RowBlockInfo> info = ReadHeader(bytes, reader);
  if (!info.ok()) return info.status();
  if (info->shape != shape) {
    return Damaged(absl::StrCat("has ", info->shape.rows, " rows of ", info->shape.width, ", not ", shape.rows, " of ",
                                shape.width));
  }
  if (info->id != id) return Damaged("the stored bytes are another block");
  std::vector<uint32_t> turned(out.size(), 0);
  std::vector<uint8_t> plane(out.size());
  for (int i = kPlanes - 1; i >= 0; --i) {
    if (absl::Status status = ReadPlane(reader, plane); !status.ok()) return status;
    for (size_t j = 0; j < out.size(); ++j) turned[j] |= uint32_t{plane[j]} << (8 * i);
  }
  if (!reader.rest().empty()) return Damaged("bytes are left over");
  for (size_t j = 0; j < out.size(); ++j) out[j] = std::bit_cast<float>(TurnBack(turned[j]));
  if (ComputeRowBlockId(shape, out) != id) return Damaged("the values are another block's");
  return absl::OkStatus();
}

}  // namespace quicksave::compressor
