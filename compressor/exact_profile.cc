#include "compressor/exact_profile.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"

namespace quicksave::compressor {
namespace {

constexpr std::string_view kMagic = "QSXP";
constexpr uint16_t kVersion = 1;
constexpr uint32_t kMaxFingerprintBytes = 4096;

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("exact profile: ", what)); }

// Magic, version and checksum, which are at the same place in every version.
absl::Status CheckFrame(std::string_view bytes) {
  ByteReader reader(bytes);
  if (reader.Bytes(kMagic.size()) != kMagic) return Damaged("not a profile");
  const auto version = reader.Integer<uint16_t>();
  if (!ChecksumMatches(bytes)) return Damaged("checksum mismatch");
  if (version == 0) return Damaged("version 0");
  if (version > kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("exact profile of version ", version, ", this program reads up to ", kVersion));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TableFrequencies>> ReadTables(ByteReader& reader, size_t count) {
  if (count < 1 || count > kMaxTables) return Damaged(absl::StrCat(count, " tables"));
  std::vector<TableFrequencies> tables(count);
  for (TableFrequencies& table : tables) {
    for (uint16_t& frequency : table) frequency = reader.Integer<uint16_t>();
    if (!reader.ok()) return Damaged("cut short");
    if (absl::Status status = ValidateFrequencies(table); !status.ok()) return Damaged(status.message());
  }
  return tables;
}

absl::StatusOr<std::vector<ChannelModel>> ReadChannels(ByteReader& reader, size_t count, size_t tables) {
  if (reader.rest().size() / sizeof(uint16_t) < count) return Damaged("cut short");
  std::vector<ChannelModel> channels(count);
  for (ChannelModel& channel : channels) {
    channel = ChannelModel::Unpack(reader.Integer<uint16_t>());
    if (!channel.Valid(tables)) return Damaged("channel model out of range");
  }
  return channels;
}

}  // namespace

absl::StatusOr<ExactProfile> ExactProfile::Parse(std::string_view bytes) {
  if (absl::Status status = CheckFrame(bytes); !status.ok()) return status;
  ByteReader reader(bytes.substr(0, bytes.size() - sizeof(uint64_t)));
  reader.Bytes(kMagic.size() + 2 * sizeof(uint16_t));
  BlockShape shape{.tokens = 1};
  shape.layers = static_cast<int>(reader.Integer<uint32_t>());
  shape.kv_heads = static_cast<int>(reader.Integer<uint32_t>());
  shape.head_dim = static_cast<int>(reader.Integer<uint32_t>());
  const auto table_count = reader.Integer<uint32_t>();
  const auto fingerprint_bytes = reader.Integer<uint32_t>();
  if (fingerprint_bytes > kMaxFingerprintBytes) return Damaged("fingerprint too long");
  ExactProfile profile;
  profile.model_fingerprint_ = std::string(reader.Bytes(fingerprint_bytes));
  if (!reader.ok() || !shape.Validate().ok()) return Damaged("shape out of range");
  auto tables = ReadTables(reader, table_count);
  if (!tables.ok()) return tables.status();
  auto channels = ReadChannels(reader, shape.channels(), tables->size());
  if (!channels.ok()) return channels.status();
  if (!reader.rest().empty()) return Damaged("bytes left over");
  profile.layers_ = shape.layers;
  profile.kv_heads_ = shape.kv_heads;
  profile.head_dim_ = shape.head_dim;
  profile.tables_ = *std::move(tables);
  profile.channels_ = *std::move(channels);
  profile.id_ = ComputeDigest(bytes);
  return profile;
}

std::string ExactProfile::Serialize() const {
  std::string out(kMagic);
  AppendInteger(out, kVersion);
  AppendInteger(out, uint16_t{0});
  for (const int dimension : {layers_, kv_heads_, head_dim_}) AppendInteger(out, static_cast<uint32_t>(dimension));
  AppendInteger(out, static_cast<uint32_t>(tables_.size()));
  AppendInteger(out, static_cast<uint32_t>(model_fingerprint_.size()));
  out += model_fingerprint_;
  for (const TableFrequencies& table : tables_) {
    for (const uint16_t frequency : table) AppendInteger(out, frequency);
  }
  for (const ChannelModel& channel : channels_) AppendInteger(out, channel.Pack());
  AppendChecksum(out);
  return out;
}

}  // namespace quicksave::compressor
