#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"
#include "compressor/row_block.h"
#include "compressor/test_blocks.h"
#include "tests/fuzz/decoder_targets.h"
#include "tests/fuzz/sealed_input.h"

namespace quicksave::fuzz {
namespace {

using namespace compressor;  // NOLINT(google-build-using-namespace): all that is tested here is there

constexpr BlockShape kExactShape{.layers = 2, .kv_heads = 1, .head_dim = 8, .tokens = 40};

const std::shared_ptr<const ExactProfile>& SmallExactProfile() {
  static const auto& profile = *new std::shared_ptr([] {
    ExactProfileBuilder builder("fuzz-model");
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const std::vector<uint16_t> values = ModelLikeValues(kExactShape, seed);
      builder.AddBlock({kExactShape, values}).IgnoreError();
    }
    return std::make_shared<const ExactProfile>(*builder.Build());
  }());
  return profile;
}

bool DecodeContainer(const CodecRegistry& registry, std::string_view bytes) {
  const auto info = PeekContainer(bytes);
  RequireDecoderStatus(info.status());
  RequireDecoderStatus(ParseContainer(bytes).status());
  if (!info.ok() || info->shape.values() > kMostValues) return false;
  std::vector<uint16_t> values(info->shape.values());
  const absl::Status status = DecodeBlock(registry, bytes, {}, {info->shape, absl::MakeSpan(values)});
  RequireDecoderStatus(status);
  Require(!status.ok() || ComputeBlockId({info->shape, values}) == info->block_id, "a block of another id was decoded");
  return status.ok();
}

bool DecodeExactBlock(std::string_view bytes) {
  static const CodecRegistry& registry = *[] {
    auto* made = new CodecRegistry;
    Require(RegisterBuiltinCodecs(*made).ok() && made->Register(NewExactCodec(SmallExactProfile())).ok(), "codecs");
    return made;
  }();
  const bool as_is = DecodeContainer(registry, bytes);
  const bool sealed = DecodeContainer(registry, SealedContainer(bytes, {}));
  return DecodeContainer(registry, SealedContainer(bytes, SmallExactProfile()->id())) || sealed || as_is;
}

std::vector<std::string> ExactBlockSeeds() {
  std::vector<std::string> seeds;
  for (const bool with_profile : {false, true}) {
    CodecRegistry registry;
    registry.Register(NewExactCodec(with_profile ? SmallExactProfile() : nullptr)).IgnoreError();
    for (const int tokens : {40, 5}) {
      BlockShape shape = kExactShape;
      shape.tokens = tokens;
      seeds.push_back(*EncodeBlock(registry, "exact", {shape, ModelLikeValues(shape, 9)}, {}));
      seeds.push_back(*EncodeBlock(registry, "exact", {shape, RandomBits(shape, 9)}, {}));
    }
  }
  return seeds;
}

bool DecodeExactProfile(std::string_view bytes) {
  const std::string sealed = Sealed(bytes);
  const auto profile = ExactProfile::Parse(sealed);
  RequireDecoderStatus(profile.status());
  if (!profile.ok()) return false;
  const auto again = ExactProfile::Parse(profile->Serialize());
  Require(again.ok() && again->Serialize() == profile->Serialize(), "a profile that was read cannot be written");
  return true;
}

std::vector<std::string> ExactProfileSeeds() { return {Unsealed(SmallExactProfile()->Serialize())}; }

bool DecodeRows(std::string_view bytes) {
  const std::string sealed = Sealed(bytes);
  const auto info = PeekRowBlock(sealed);
  RequireDecoderStatus(info.status());
  if (!info.ok() || info->shape.values() > kMostValues) return false;
  std::vector<float> values(info->shape.values());
  const absl::Status status = DecodeRowBlock(sealed, info->shape, info->id, absl::MakeSpan(values));
  RequireDecoderStatus(status);
  Require(!status.ok() || ComputeRowBlockId(info->shape, values) == info->id, "rows of another id were decoded");
  return status.ok();
}

std::vector<std::string> RowSeeds() {
  std::vector<std::string> seeds;
  for (const RowBlockShape shape : {RowBlockShape{.rows = 1, .width = 3}, RowBlockShape{.rows = 20, .width = 100}}) {
    TestRandom random(3);
    std::vector<float> values(shape.values());
    for (float& value : values) value = random.Normal();
    seeds.push_back(Unsealed(EncodeRowBlock(shape, values, ComputeRowBlockId(shape, values))));
  }
  return seeds;
}

}  // namespace

std::vector<DecoderTarget> LosslessTargets() {
  return {
      {"exact_block", DecodeExactBlock, ExactBlockSeeds},
      {"exact_profile", DecodeExactProfile, ExactProfileSeeds},
      {"row_block", DecodeRows, RowSeeds},
  };
}

}  // namespace quicksave::fuzz
