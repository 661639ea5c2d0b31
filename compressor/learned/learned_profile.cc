#include "compressor/learned/learned_profile.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "compressor/latent/weight_matrix.h"
#include "compressor/profile_tensors.h"

namespace quicksave::compressor {
namespace {

constexpr char kFormat[] = "quicksave-learned-profile";
constexpr int kVersion = 1;
// Larger dimensions than these are taken for damage: of hidden layers, and of a latent for each component that it
// stands for. Decoding takes memory in proportion to them.
constexpr int kMaxHidden = 1 << 14;
constexpr size_t kMaxLatentShare = 4;

struct NamedArchitecture {
  Architecture architecture;
  std::string_view name;
};
constexpr NamedArchitecture kArchitectures[] = {{Architecture::kGrouped, "grouped"},
                                                {Architecture::kConv, "conv"},
                                                {Architecture::kUnified, "unified"},
                                                {Architecture::kRecurrent, "recurrent"}};

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("learned profile: ", what));
}
absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("learned profile damaged: ", what));
}

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}
bool HasSize(absl::Span<const float> values, int size) {
  return values.size() == static_cast<size_t>(size) && AllFinite(values);
}
bool HasShape(const LinearLayer& layer, int inputs, int outputs) {
  const Bf16Matrix& weight = layer.weight;
  return inputs > 0 && outputs > 0 && weight.inputs == inputs && weight.outputs == outputs && IsSound(weight) &&
         HasSize(layer.bias, outputs);
}
bool HasWidth(const NormLayer& layer, int width) { return HasSize(layer.gain, width) && HasSize(layer.shift, width); }
bool IsNetwork(const GroupNetwork& network, int inputs, int outputs) {
  const int hidden = network.first.outputs();
  return hidden <= kMaxHidden && HasShape(network.first, inputs, hidden) && HasWidth(network.norm, hidden) &&
         HasShape(network.second, hidden, outputs);
}
bool IsAttention(const AttentionLayer& layer, int width) {
  return layer.heads > 0 && layer.heads <= width && width % layer.heads == 0 && HasWidth(layer.norm, width) &&
         HasShape(layer.query_key_value, width, 3 * width) && HasShape(layer.output, width, width);
}

void Add(const std::string& name, const LinearLayer& layer, TensorWriter& writer) {
  writer.Add(name + ".weight", layer.weight);
  writer.Add(name + ".bias", layer.bias);
}
void Add(const std::string& name, const NormLayer& layer, TensorWriter& writer) {
  writer.Add(name + ".gain", layer.gain);
  writer.Add(name + ".shift", layer.shift);
}
void Add(const std::string& name, const GroupNetwork& network, TensorWriter& writer) {
  Add(name + ".first", network.first, writer);
  Add(name + ".norm", network.norm, writer);
  Add(name + ".second", network.second, writer);
}
void Add(const std::string& name, const AttentionLayer& layer, TensorWriter& writer) {
  Add(name + ".norm", layer.norm, writer);
  Add(name + ".query_key_value", layer.query_key_value, writer);
  Add(name + ".output", layer.output, writer);
}

LinearLayer ReadLinear(const std::string& name, TensorReader& reader) {
  return {.weight = reader.Matrix(name + ".weight"), .bias = reader.Floats(name + ".bias")};
}
NormLayer ReadNorm(const std::string& name, TensorReader& reader) {
  return {.gain = reader.Floats(name + ".gain"), .shift = reader.Floats(name + ".shift")};
}
GroupNetwork ReadNetwork(const std::string& name, TensorReader& reader) {
  return {.first = ReadLinear(name + ".first", reader),
          .norm = ReadNorm(name + ".norm", reader),
          .second = ReadLinear(name + ".second", reader)};
}
AttentionLayer ReadAttention(const std::string& name, int heads, TensorReader& reader) {
  return {.heads = heads,
          .norm = ReadNorm(name + ".norm", reader),
          .query_key_value = ReadLinear(name + ".query_key_value", reader),
          .output = ReadLinear(name + ".output", reader)};
}

// What a first layer takes: a convolution three tokens and where they stand.
int FirstInputs(Architecture architecture, int width) {
  return architecture == Architecture::kConv ? 3 * width + 1 : width;
}

}  // namespace

std::string_view NameOf(Architecture architecture) {
  for (const NamedArchitecture& one : kArchitectures) {
    if (one.architecture == architecture) return one.name;
  }
  return "";
}

absl::StatusOr<Architecture> ArchitectureOf(std::string_view name) {
  for (const NamedArchitecture& one : kArchitectures) {
    if (one.name == name) return one.architecture;
  }
  return Invalid(absl::StrCat("no architecture '", std::string(name), "'"));
}

int LearnedProfile::EncoderInputs(size_t group) const {
  const int fed_back = architecture == Architecture::kRecurrent ? latent_width(group) : 0;
  return FirstInputs(architecture, base.groups[group].components()) + fed_back;
}

int LearnedProfile::DecoderInputs(size_t group) const { return FirstInputs(architecture, latent_width(group)); }

absl::Status LearnedProfile::Validate() const {
  if (absl::Status status = base.Validate(); !status.ok()) return status;
  const size_t groups = base.groups.size();
  if (encoders.size() != groups || decoders.size() != groups || sigma.size() != groups) return Invalid("groups");
  const bool recurrent = architecture == Architecture::kRecurrent;
  if (decay.size() != (recurrent ? groups : 0)) return Invalid("decays");
  for (size_t g = 0; g < groups; ++g) {
    if (sigma[g].empty() || sigma[g].size() > kMaxLatentShare * static_cast<size_t>(base.groups[g].components()))
      return Invalid("the width of a latent");
    const bool positive = std::all_of(sigma[g].begin(), sigma[g].end(), [](float value) { return value > 0; });
    if (!positive || !AllFinite(sigma[g])) return Invalid("deviations of latents");
    if (!IsNetwork(encoders[g], EncoderInputs(g), latent_width(g))) return Invalid("an encoder");
    if (!IsNetwork(decoders[g], DecoderInputs(g), base.groups[g].components())) return Invalid("a decoder");
    if (!recurrent) continue;
    const bool steady = std::all_of(decay[g].begin(), decay[g].end(), [](float a) { return std::abs(a) < 1; });
    if (!steady || !HasSize(decay[g], latent_width(g))) return Invalid("decays");
  }
  if (architecture != Architecture::kUnified) return absl::OkStatus();
  for (size_t g = 0; g < groups; ++g) {
    if (!IsAttention(encoder_attention, encoders[g].first.outputs())) return Invalid("the encoder's attention");
    if (!IsAttention(decoder_attention, decoders[g].first.outputs())) return Invalid("the decoder's attention");
  }
  return absl::OkStatus();
}

std::string LearnedProfile::Serialize() const {
  TensorWriter writer;
  const std::string front = base.Serialize();
  writer.Add("base", "U8", {front.size()}, front.data(), front.size());
  for (size_t g = 0; g < encoders.size(); ++g) {
    const std::string group = absl::StrCat("group", g, ".");
    Add(group + "encoder", encoders[g], writer);
    Add(group + "decoder", decoders[g], writer);
    writer.Add(group + "sigma", sigma[g]);
    if (architecture == Architecture::kRecurrent) writer.Add(group + "decay", decay[g]);
  }
  const bool unified = architecture == Architecture::kUnified;
  if (unified) {
    Add("encoder.attention", encoder_attention, writer);
    Add("decoder.attention", decoder_attention, writer);
  }
  writer.AddMetadata({{"format", kFormat},
                      {"version", absl::StrCat(kVersion)},
                      {"architecture", std::string(NameOf(architecture))},
                      {"encoder_heads", absl::StrCat(encoder_attention.heads)},
                      {"decoder_heads", absl::StrCat(decoder_attention.heads)}});
  return writer.Finish();
}

bool LearnedProfile::IsOne(std::string_view bytes) { return FormatOfProfile(bytes) == kFormat; }

absl::StatusOr<LearnedProfile> LearnedProfile::Parse(std::string_view bytes) {
  const absl::StatusOr<ProfileFile> file = ProfileFile::Open(bytes, kFormat, kVersion);
  if (!file.ok()) return absl::Status(file.status().code(), absl::StrCat("learned profile ", file.status().message()));
  TensorReader tensors = file->tensors();
  absl::StatusOr<LatentProfile> base = LatentProfile::Parse(tensors.Bytes("base"));
  if (!base.ok()) return base.status();
  LearnedProfile profile;
  profile.base = *std::move(base);
  const absl::StatusOr<Architecture> architecture = ArchitectureOf(Text(file->metadata(), "architecture"));
  if (!architecture.ok()) return Damaged(architecture.status().message());
  profile.architecture = *architecture;
  for (size_t g = 0; g < profile.base.groups.size(); ++g) {
    const std::string group = absl::StrCat("group", g, ".");
    profile.encoders.push_back(ReadNetwork(group + "encoder", tensors));
    profile.decoders.push_back(ReadNetwork(group + "decoder", tensors));
    profile.sigma.push_back(tensors.Floats(group + "sigma"));
    if (profile.architecture == Architecture::kRecurrent) profile.decay.push_back(tensors.Floats(group + "decay"));
  }
  if (profile.architecture == Architecture::kUnified) {
    const auto heads = [&](const char* name) { return IntegerText(file->metadata(), name); };
    profile.encoder_attention = ReadAttention("encoder.attention", heads("encoder_heads"), tensors);
    profile.decoder_attention = ReadAttention("decoder.attention", heads("decoder_heads"), tensors);
  }
  if (!tensors.ok()) return Damaged("a tensor");
  if (absl::Status status = profile.Validate(); !status.ok()) return Damaged(status.message());
  return profile;
}

}  // namespace quicksave::compressor
