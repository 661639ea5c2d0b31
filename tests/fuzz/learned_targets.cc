#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compressor/byte_io.h"
#include "compressor/container.h"
#include "compressor/learned/learned_codec.h"
#include "compressor/learned/learned_profile.h"
#include "compressor/learned/test_learned_profile.h"
#include "compressor/test_blocks.h"
#include "tests/fuzz/decoder_targets.h"
#include "tests/fuzz/sealed_input.h"

namespace quicksave::fuzz {
namespace {

using namespace compressor;  // NOLINT(google-build-using-namespace): all that is tested here is there

constexpr Architecture kArchitectures[] = {Architecture::kGrouped, Architecture::kConv, Architecture::kUnified,
                                           Architecture::kRecurrent};

const TestSource& SmallSource() {
  static const auto& source = *new TestSource({.group_layers = {1, 1},
                                               .kv_heads = 1,
                                               .head_dim = 4,
                                               .features = 2,
                                               .first_diagonal_group = 1,
                                               .dropped = 1,
                                               .calibration_blocks = 2});
  return source;
}

// The codec of an architecture, and a block of it.
struct LearnedSubject {
  explicit LearnedSubject(Architecture architecture)
      : profile(RandomLearnedProfile(SmallSource(), architecture)),
        block(SmallSource().Draw(9, 1)),
        context(block.Context(0.1f, 1)) {
    Require(registry.Register(NewLearnedCodec(profile)).ok(), "a codec");
    encoded = *EncodeBlock(registry, kLearnedCodec, block.view(), context);
  }

  std::shared_ptr<const LearnedProfile> profile;
  CodecRegistry registry;
  TestBlock block;
  BlockContext context;
  std::string encoded;
};

const std::vector<std::unique_ptr<LearnedSubject>>& Subjects() {
  static const auto& subjects = *[] {
    auto* made = new std::vector<std::unique_ptr<LearnedSubject>>;
    for (const Architecture architecture : kArchitectures) {
      made->push_back(std::make_unique<LearnedSubject>(architecture));
    }
    return made;
  }();
  return subjects;
}

bool DecodeLearnedBlock(std::string_view bytes) {
  bool accepted = false;
  for (const auto& subject : Subjects()) {
    std::vector<uint16_t> values = subject->block.Prefilled(subject->profile->base, 1);
    const Digest128 profile = PeekContainer(subject->encoded)->profile_id;
    for (const std::string& container : {std::string(bytes), SealedContainer(bytes, profile)}) {
      const absl::Status status =
          DecodeBlock(subject->registry, container, subject->context, {subject->block.shape, absl::MakeSpan(values)});
      RequireDecoderStatus(status);
      accepted = accepted || status.ok();
    }
  }
  return accepted;
}

std::vector<std::string> LearnedBlockSeeds() {
  std::vector<std::string> seeds;
  for (const auto& subject : Subjects()) seeds.push_back(subject->encoded);
  for (const float step : {0.001f, 100.0f}) {
    BlockContext context = Subjects()[0]->context;
    context.step = step;
    seeds.push_back(*EncodeBlock(Subjects()[0]->registry, kLearnedCodec, Subjects()[0]->block.view(), context));
  }
  return seeds;
}

// The base's tables are larger than all else, and have a target of their own: inputs leave the base out, which stands
// first after the header.
size_t BaseAt(std::string_view bytes) {
  const auto header = ByteReader(bytes).Integer<uint64_t>();
  return bytes.size() < sizeof(header) ? bytes.size()
                                       : sizeof(header) + std::min(header, bytes.size() - sizeof(header));
}

std::string WithBase(std::string_view bytes) {
  static const std::string& base = *new std::string(SmallSource().profile()->Serialize());
  return std::string(bytes).insert(BaseAt(bytes), base);
}

std::string WithoutBase(const std::string& bytes) {
  return std::string(bytes).erase(BaseAt(bytes), SmallSource().profile()->Serialize().size());
}

// A profile that is valid can be used: what its codec encodes, it decodes.
void UseProfile(const LearnedProfile& profile) {
  const LatentProfile& base = profile.base;
  const BlockShape shape{.layers = base.layers, .kv_heads = base.kv_heads, .head_dim = base.head_dim, .tokens = 3};
  if (shape.values() > kMostValues || base.features > 1000) return;
  const std::vector<uint16_t> values = ModelLikeValues(shape, 1);
  const std::vector<float> angles(static_cast<size_t>(base.head_dim) * shape.tokens, 0.5f);
  const std::vector<const float*> tables(base.layers, angles.data());
  const std::vector<float> hidden(static_cast<size_t>(base.features) * shape.tokens, 1.0f);
  BlockContext context{.angles = tables, .hidden_states = hidden};
  context.step = 0.5f;
  CodecRegistry registry;
  Require(registry.Register(NewLearnedCodec(std::make_shared<LearnedProfile>(profile))).ok(), "a codec");
  const auto bytes = EncodeBlock(registry, kLearnedCodec, {shape, values}, context);
  // Numbers may be so large that sums are infinite.
  Require(bytes.ok() || absl::IsInvalidArgument(bytes.status()), bytes.status().ToString().c_str());
  if (!bytes.ok()) return;
  std::vector<uint16_t> decoded = values;
  const absl::Status status = DecodeBlock(registry, *bytes, context, {shape, absl::MakeSpan(decoded)});
  Require(status.ok(), status.ToString().c_str());
}

bool DecodeLearnedProfile(std::string_view bytes) {
  RequireDecoderStatus(LearnedProfile::Parse(bytes).status());
  const auto profile = LearnedProfile::Parse(Sealed(WithBase(bytes)));
  RequireDecoderStatus(profile.status());
  if (!profile.ok()) return false;
  Require(profile->Validate().ok(), "a profile that is not valid was read");
  const std::string written = profile->Serialize();
  const auto again = LearnedProfile::Parse(written);
  Require(again.ok() && again->Serialize() == written, "a profile that was read cannot be written");
  UseProfile(*profile);
  return true;
}

std::vector<std::string> LearnedProfileSeeds() {
  std::vector<std::string> seeds;
  for (const auto& subject : Subjects()) seeds.push_back(WithoutBase(Unsealed(subject->profile->Serialize())));
  return seeds;
}

}  // namespace

std::vector<DecoderTarget> LearnedTargets() {
  return {
      {"learned_block", DecodeLearnedBlock, LearnedBlockSeeds},
      {"learned_profile", DecodeLearnedProfile, LearnedProfileSeeds},
  };
}

}  // namespace quicksave::fuzz
