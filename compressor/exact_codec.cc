#include "compressor/exact_codec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/exact_section.h"

namespace quicksave::compressor {
namespace {

constexpr uint32_t kVersion = 1;
// Sections get about this many values: enough to make the streams' states cheap, few enough for the second-level cache.
constexpr size_t kValuesPerSection = 98'304;

std::vector<TableFrequencies> TablesOf(const ExactProfile* profile) {
  if (profile != nullptr) return {profile->tables().begin(), profile->tables().end()};
  std::vector<TableFrequencies> tables;
  for (size_t i = 0; i < kMaxTables; ++i) tables.push_back(BuiltinTable(i));
  return tables;
}

uint32_t TensorsPerSection(const BlockShape& shape) {
  const size_t tensor_values = shape.channels_per_tensor() * static_cast<size_t>(shape.tokens);
  return static_cast<uint32_t>(std::clamp<size_t>(kValuesPerSection / tensor_values, 1, shape.tensors()));
}

// Calls f(first channel, channels) for each section.
template <typename Function>
absl::Status ForEachSection(const BlockShape& shape, uint32_t tensors_per_section, Function f) {
  for (size_t tensor = 0; tensor < shape.tensors(); tensor += tensors_per_section) {
    const size_t tensors = std::min<size_t>(tensors_per_section, shape.tensors() - tensor);
    absl::Status status = f(tensor * shape.channels_per_tensor(), tensors * shape.channels_per_tensor());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

class ExactCodec final : public Codec {
 public:
  explicit ExactCodec(std::shared_ptr<const ExactProfile> profile)
      : profile_(std::move(profile)), encoder_(TablesOf(profile_.get())), decoder_(TablesOf(profile_.get())) {}

  std::string_view name() const override { return "exact"; }
  uint32_t version() const override { return kVersion; }
  bool lossless() const override { return true; }
  Digest128 profile_id() const override { return profile_ == nullptr ? Digest128{} : profile_->id(); }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    if (absl::Status status = CheckProfile(block.shape, context); !status.ok()) return status;
    const auto tokens = static_cast<size_t>(block.shape.tokens);
    EncodedBlock encoded{.tensors_per_section = TensorsPerSection(block.shape)};
    const size_t sections = (block.shape.tensors() - 1) / encoded.tensors_per_section + 1;
    encoded.header_room = ContainerHeaderBytes(sections);
    encoded.bytes.reserve(encoded.header_room + block.shape.bytes() / 4 * 3);
    encoded.bytes.resize(encoded.header_room);
    SectionScratch scratch;
    const auto encode = [&](size_t first, size_t channels) {
      const size_t before = encoded.bytes.size();
      encoder_.Encode(block.values.subspan(first * tokens, channels * tokens), tokens, Models(first, channels), scratch,
                      encoded.bytes);
      encoded.section_sizes.push_back(static_cast<uint32_t>(encoded.bytes.size() - before));
      return absl::OkStatus();
    };
    absl::Status status = ForEachSection(block.shape, encoded.tensors_per_section, encode);
    if (!status.ok()) return status;
    return encoded;
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t payload_version, const BlockContext& context,
                      MutableBlockView out) const override {
    if (absl::Status status = out.Validate(); !status.ok()) return status;
    if (absl::Status status = CheckProfile(out.shape, context); !status.ok()) return status;
    if (payload_version != kVersion || encoded.tensors_per_section == 0) {
      return absl::DataLossError("exact payload of an impossible version or division");
    }
    absl::StatusOr<std::vector<SectionInput>> sections = Divide(encoded, out);
    if (!sections.ok()) return sections.status();
    const auto tokens = static_cast<size_t>(out.shape.tokens);
    SectionScratch first;
    SectionScratch second;
    size_t i = 0;
    for (; i + 2 <= sections->size(); i += 2) {
      absl::Status status = decoder_.DecodePair((*sections)[i], (*sections)[i + 1], tokens, first, second);
      if (!status.ok()) return status;
    }
    return i < sections->size() ? decoder_.Decode((*sections)[i], tokens, first) : absl::OkStatus();
  }

 private:
  absl::Status CheckProfile(const BlockShape& shape, const BlockContext& context) const {
    if (profile_ == nullptr) return absl::OkStatus();
    if (shape.layers != profile_->layers() || shape.kv_heads != profile_->kv_heads() ||
        shape.head_dim != profile_->head_dim()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "block of ", shape.DebugString(), " does not fit exact profile ", profile_->id().ToHex(), " (",
          profile_->layers(), " layers x ", profile_->kv_heads(), " heads x ", profile_->head_dim(), " dims)"));
    }
    if (!context.model_fingerprint.empty() && context.model_fingerprint != profile_->model_fingerprint()) {
      return absl::FailedPreconditionError(absl::StrCat("exact profile ", profile_->id().ToHex(), " is for model ",
                                                        profile_->model_fingerprint(), ", the block is of ",
                                                        std::string(context.model_fingerprint)));
    }
    return absl::OkStatus();
  }

  // DATA_LOSS if the sections are not those of the shape.
  absl::StatusOr<std::vector<SectionInput>> Divide(const EncodedBlockView& encoded, MutableBlockView out) const {
    const auto tokens = static_cast<size_t>(out.shape.tokens);
    std::string_view rest = encoded.bytes;
    std::vector<SectionInput> sections;
    const auto divide = [&](size_t first, size_t channels) {
      const size_t section = sections.size();
      if (section == encoded.section_sizes.size() || encoded.section_sizes[section] > rest.size()) {
        return absl::DataLossError("exact payload cut short");
      }
      sections.push_back({.bytes = rest.substr(0, encoded.section_sizes[section]),
                          .models = Models(first, channels),
                          .values = out.values.subspan(first * tokens, channels * tokens)});
      rest.remove_prefix(encoded.section_sizes[section]);
      return absl::OkStatus();
    };
    absl::Status status = ForEachSection(out.shape, encoded.tensors_per_section, divide);
    if (!status.ok()) return status;
    if (sections.size() != encoded.section_sizes.size() || !rest.empty()) {
      return absl::DataLossError("exact payload too long");
    }
    return sections;
  }

  absl::Span<const ChannelModel> Models(size_t first, size_t channels) const {
    if (profile_ == nullptr) return {};
    return profile_->channels().subspan(first, channels);
  }

  const std::shared_ptr<const ExactProfile> profile_;
  const SectionEncoder encoder_;
  const SectionDecoder decoder_;
};

}  // namespace

std::unique_ptr<const Codec> NewExactCodec(std::shared_ptr<const ExactProfile> profile) {
  return std::make_unique<ExactCodec>(std::move(profile));
}

}  // namespace quicksave::compressor
