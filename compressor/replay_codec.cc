#include "compressor/replay_codec.h"

namespace quicksave::compressor {
namespace {

class ReplayCodec : public Codec {
 public:
  std::string_view name() const override { return kReplayCodec; }
  uint32_t version() const override { return 1; }
  bool lossless() const override { return true; }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& /*context*/) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    return EncodedBlock{.tensors_per_section = static_cast<uint32_t>(block.shape.tensors()), .section_sizes = {0}};
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t /*payload_version*/, const BlockContext& /*context*/,
                      MutableBlockView /*out*/) const override {
    if (encoded.bytes.empty()) return absl::OkStatus();
    return absl::DataLossError("replay block: it has a payload");
  }
};

}  // namespace

std::unique_ptr<const Codec> NewReplayCodec() { return std::make_unique<ReplayCodec>(); }

}  // namespace quicksave::compressor
