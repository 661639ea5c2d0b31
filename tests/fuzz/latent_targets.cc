#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compressor/container.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/latent/test_profile.h"
#include "compressor/test_blocks.h"
#include "tests/fuzz/decoder_targets.h"
#include "tests/fuzz/sealed_input.h"

namespace quicksave::fuzz {
namespace {

using namespace compressor;  // NOLINT(google-build-using-namespace): all that is tested here is there

// A profile as small as they get, with both kinds of group.
const TestSource& SmallSource() {
  static const auto& source = *new TestSource({.group_layers = {1, 1},
                                               .kv_heads = 1,
                                               .head_dim = 4,
                                               .features = 3,
                                               .first_diagonal_group = 1,
                                               .dropped = 1,
                                               .calibration_blocks = 2});
  return source;
}

// Blocks of it, and their latents and residuals.
struct LatentSubject {
  LatentSubject() : block(SmallSource().Draw(9, 1)), context(block.Context(0.25f, 1)) {
    const auto& profile = SmallSource().profile();
    Require(registry.Register(NewLatentCodec(profile)).ok() && registry.Register(NewResidualCodec(profile)).ok(),
            "codecs");
    latent = *EncodeBlock(registry, kLatentCodec, block.view(), context);
    base = block.Prefilled(*profile, 1);
    Require(DecodeBlock(registry, latent, context, {block.shape, absl::MakeSpan(base)}).ok(), "a latent");
    context.base = base;
    residual = *EncodeBlock(registry, kResidualCodec, block.view(), context);
  }

  CodecRegistry registry;
  TestBlock block;
  BlockContext context;
  std::vector<uint16_t> base;
  std::string latent;
  std::string residual;
};

const LatentSubject& Latents() {
  static const auto& subject = *new LatentSubject;
  return subject;
}

bool DecodeWithContext(std::string_view bytes) {
  const LatentSubject& subject = Latents();
  std::vector<uint16_t> values = subject.block.Prefilled(*SmallSource().profile(), 1);
  const Digest128 profile = PeekContainer(subject.latent)->profile_id;
  bool accepted = false;
  for (const std::string& container : {std::string(bytes), SealedContainer(bytes, profile)}) {
    const absl::Status status =
        DecodeBlock(subject.registry, container, subject.context, {subject.block.shape, absl::MakeSpan(values)});
    RequireDecoderStatus(status);
    accepted = accepted || status.ok();
  }
  return accepted;
}

std::vector<std::string> LatentBlockSeeds() {
  const LatentSubject& subject = Latents();
  std::vector<std::string> seeds = {subject.latent};
  for (const float step : {0.001f, 100.0f}) {
    BlockContext context = subject.context;
    context.step = step;
    seeds.push_back(*EncodeBlock(subject.registry, kLatentCodec, subject.block.view(), context));
  }
  return seeds;
}

std::vector<std::string> ResidualBlockSeeds() {
  const LatentSubject& subject = Latents();
  std::vector<std::string> seeds = {subject.residual};
  for (const float step : {0.001f, 100.0f}) {
    BlockContext context = subject.context;
    context.step = step;
    seeds.push_back(*EncodeBlock(subject.registry, kResidualCodec, subject.block.view(), context));
  }
  return seeds;
}

// A profile that is valid can be used: what its codec encodes, it decodes.
void UseProfile(const LatentProfile& profile) {
  const BlockShape shape{
      .layers = profile.layers, .kv_heads = profile.kv_heads, .head_dim = profile.head_dim, .tokens = 3};
  if (shape.values() > kMostValues || profile.features > 1000) return;
  const std::vector<uint16_t> values = ModelLikeValues(shape, 1);
  const std::vector<float> angles(static_cast<size_t>(profile.head_dim) * shape.tokens, 0.5f);
  const std::vector<const float*> tables(profile.layers, angles.data());
  const std::vector<float> hidden(static_cast<size_t>(profile.features) * shape.tokens, 1.0f);
  BlockContext context{.angles = tables, .hidden_states = hidden};
  context.step = 0.5f;
  CodecRegistry registry;
  Require(registry.Register(NewLatentCodec(std::make_shared<LatentProfile>(profile))).ok(), "a codec");
  const auto bytes = EncodeBlock(registry, kLatentCodec, {shape, values}, context);
  // Numbers may be so large that sums are infinite.
  Require(bytes.ok() || absl::IsInvalidArgument(bytes.status()), bytes.status().ToString().c_str());
  if (!bytes.ok()) return;
  std::vector<uint16_t> decoded = values;
  const absl::Status status = DecodeBlock(registry, *bytes, context, {shape, absl::MakeSpan(decoded)});
  Require(status.ok(), status.ToString().c_str());
}

bool DecodeLatentProfile(std::string_view bytes) {
  const std::string sealed = Sealed(bytes);
  const auto profile = LatentProfile::Parse(sealed);
  RequireDecoderStatus(profile.status());
  if (!profile.ok()) return false;
  Require(profile->Validate().ok(), "a profile that is not valid was read");
  const std::string written = profile->Serialize();
  const auto again = LatentProfile::Parse(written);
  Require(again.ok() && again->Serialize() == written, "a profile that was read cannot be written");
  UseProfile(*profile);
  return true;
}

std::vector<std::string> LatentProfileSeeds() { return {Unsealed(SmallSource().profile()->Serialize())}; }

}  // namespace

std::vector<DecoderTarget> LatentTargets() {
  return {
      {"latent_block", DecodeWithContext, LatentBlockSeeds},
      {"latent_profile", DecodeLatentProfile, LatentProfileSeeds},
      {"residual_block", DecodeWithContext, ResidualBlockSeeds},
  };
}

}  // namespace quicksave::fuzz
