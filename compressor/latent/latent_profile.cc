#include "compressor/latent/latent_profile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "compressor/profile_tensors.h"
#include "nlohmann/json.hpp"

namespace quicksave::compressor {
namespace {

using Json = nlohmann::json;

constexpr char kFormat[] = "quicksave-latent-profile";
constexpr int kVersion = 2;
// Of profiles without matrices of 8-bit integers.
constexpr int kVersionOfBf16 = 1;
constexpr int kClassesPerOctave = 4;
// Larger dimensions than this are taken for damage, before memory is asked for.
constexpr int kMaxLayers = 4096;
constexpr int kMaxFeatures = 1 << 16;

// 2^(1/8): half a class, so that a class's deviation is in its middle.
constexpr float kHalfClass = 1.0905077f;
// In the last class.
constexpr float kHighestClass = 1 << (kSigmaClasses / kClassesPerOctave + kLowestSigmaExponent);
// Where the classes of an octave begin.
constexpr float kClassEdges[] = {1.1892071f, 1.4142135f, 1.6817929f};

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}
bool HasShape(const Bf16Matrix& matrix, int inputs, int outputs) {
  return matrix.inputs == inputs && matrix.outputs == outputs && IsSound(matrix);
}
bool HasShape(const WeightMatrix& matrix, int inputs, int outputs) {
  return !matrix.empty() && matrix.inputs() == inputs && matrix.outputs() == outputs && matrix.IsSound();
}
bool HasSize(absl::Span<const float> values, int size) {
  return values.size() == static_cast<size_t>(size) && AllFinite(values);
}
bool Positive(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return value > 0; });
}
// JSON has no other texts.
bool IsUtf8(const std::string& text) {
  const std::string dumped = Json(text).dump(-1, ' ', false, Json::error_handler_t::ignore);
  return Json::parse(dumped).get<std::string>() == text;
}

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("latent profile: ", what));
}

absl::Status ValidateGroup(const LatentProfile& profile, const LayerGroup& group) {
  const int channels = profile.channels(group);
  if (!HasSize(group.mean, channels)) return Invalid("means");
  if (!group.predictor.empty() && !HasShape(group.predictor, profile.features, channels)) return Invalid("a predictor");
  const int components = group.components();
  if (components == 0 || components > channels || !HasSize(group.sigma, components) || !Positive(group.sigma)) {
    return Invalid("deviations of components");
  }
  if (group.encode.empty() && group.decode.empty()) {
    if (components != channels || !HasSize(group.scale, channels) || !Positive(group.scale)) return Invalid("scales");
    return absl::OkStatus();
  }
  const int refined = group.refined();
  if (!group.scale.empty() || !HasShape(group.encode, channels, components) || refined < 0 || refined > components ||
      (refined > 0 && group.decode.int8() == nullptr) || !HasShape(group.decode, components + refined, channels)) {
    return Invalid("a basis");
  }
  return absl::OkStatus();
}

std::string GroupTensor(size_t group, const char* what) { return absl::StrCat("group", group, ".", what); }

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("latent profile damaged: ", what));
}

Json PointsToJson(const std::vector<DialPoint>& points) {
  Json array = Json::array();
  for (const DialPoint& point : points) {
    array.push_back({{"name", point.name}, {"step", point.step}, {"ratio", point.ratio}, {"mean_kl", point.mean_kl}});
  }
  return array;
}

// False where the array is not what PointsToJson makes.
bool ReadPoints(const Json& array, std::vector<DialPoint>& points) {
  if (!array.is_array()) return false;
  for (const Json& point : array) {
    const auto number = [&](const char* name) {
      const Json& member = Member(point, name);
      return member.is_number() ? member.get<double>() : std::nan("");
    };
    if (!point.is_object()) return false;
    const double step = number("step");
    points.push_back({.name = Text(point, "name"), .ratio = number("ratio"), .mean_kl = number("mean_kl")});
    // Not a number is refused by Validate, as is what no float can be.
    if (std::abs(step) <= std::numeric_limits<float>::max()) points.back().step = static_cast<float>(step);
  }
  return true;
}

bool ReadNotes(const Json& object, std::map<std::string, std::string>& notes) {
  if (!object.is_object()) return false;
  for (const auto& [name, value] : object.items()) {
    if (!value.is_string()) return false;
    notes[name] = value.get<std::string>();
  }
  return true;
}

void AddClasses(const std::vector<SigmaClass>& classes, TensorWriter& writer) {
  std::vector<uint16_t> frequencies;
  std::vector<float> shapes;
  for (const SigmaClass& one : classes) {
    frequencies.insert(frequencies.end(), one.frequencies.begin(), one.frequencies.end());
    shapes.insert(shapes.end(), one.centroids.begin(), one.centroids.end());
    shapes.push_back(one.error);
  }
  writer.Add("class.frequencies", "U16", {classes.size(), kSymbols}, frequencies.data(), frequencies.size() * 2);
  writer.Add("class.centroids_and_error", "F32", {classes.size(), kCentroids + 1}, shapes.data(), shapes.size() * 4);
}

std::vector<SigmaClass> ReadClasses(TensorReader& reader) {
  const std::string_view frequencies = reader.Table("class.frequencies", "U16", kSigmaClasses, kSymbols);
  const std::string_view shapes = reader.Table("class.centroids_and_error", "F32", kSigmaClasses, kCentroids + 1);
  if (!reader.ok()) return {};
  std::vector<SigmaClass> classes(kSigmaClasses);
  for (size_t i = 0; i < classes.size(); ++i) {
    std::memcpy(classes[i].frequencies.data(), frequencies.data() + i * kSymbols * 2, kSymbols * 2);
    float shape[kCentroids + 1];
    std::memcpy(shape, shapes.data() + i * sizeof(shape), sizeof(shape));
    std::copy_n(shape, kCentroids, classes[i].centroids.begin());
    classes[i].error = shape[kCentroids];
  }
  return classes;
}

void AddResidualTables(const std::vector<TableFrequencies>& tables, TensorWriter& writer) {
  std::vector<uint16_t> frequencies;
  for (const TableFrequencies& table : tables) frequencies.insert(frequencies.end(), table.begin(), table.end());
  writer.Add("residual.frequencies", "U16", {tables.size(), kSymbols}, frequencies.data(), frequencies.size() * 2);
}

std::vector<TableFrequencies> ReadResidualTables(TensorReader& reader) {
  const std::string_view frequencies = reader.Table("residual.frequencies", "U16", kResidualClasses, kSymbols);
  if (!reader.ok()) return {};
  std::vector<TableFrequencies> tables(kResidualClasses);
  for (size_t i = 0; i < tables.size(); ++i) {
    std::memcpy(tables[i].data(), frequencies.data() + i * kSymbols * 2, kSymbols * 2);
  }
  return tables;
}

// Everything but the tensors; of the groups, where they are.
absl::Status ReadMetadata(const Json& metadata, LatentProfile& profile) {
  profile.model_fingerprint = Text(metadata, "model_fingerprint");
  profile.layers = IntegerText(metadata, "layers");
  profile.kv_heads = IntegerText(metadata, "kv_heads");
  profile.head_dim = IntegerText(metadata, "head_dim");
  profile.split = IntegerText(metadata, "split");
  profile.features = IntegerText(metadata, "features");
  if (profile.split < 0 || profile.split > kMaxLayers) return Damaged("split");
  const auto parsed = [&](const char* name) {
    return Json::parse(Text(metadata, name), nullptr, /*allow_exceptions=*/false);
  };
  if (!ReadPoints(parsed("points"), profile.points)) return Damaged("points");
  if (!ReadNotes(parsed("notes"), profile.notes)) return Damaged("notes");
  const Json sizes = parsed("group_layers");
  if (!sizes.is_array() || sizes.size() > kMaxLayers) return Damaged("groups");
  int next = profile.first_layer();
  for (const Json& size : sizes) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > kMaxLayers) return Damaged("groups");
    LayerGroup& group = profile.groups.emplace_back();
    group.first_layer = next;
    group.layers = size.get<int>();
    next += group.layers;
  }
  return absl::OkStatus();
}

void ReadTensors(TensorReader& tensors, LatentProfile& profile) {
  profile.feature_mean = tensors.Floats("feature.mean");
  profile.feature_scale = tensors.Floats("feature.scale");
  for (size_t i = 0; i < profile.groups.size(); ++i) {
    LayerGroup& group = profile.groups[i];
    group.mean = tensors.Floats(GroupTensor(i, "mean"));
    group.predictor = tensors.Weights(GroupTensor(i, "predictor"), group.mean.size());
    group.encode = tensors.Matrix(GroupTensor(i, "encode"));
    group.decode = tensors.Weights(GroupTensor(i, "decode"), group.mean.size());
    group.scale = tensors.Floats(GroupTensor(i, "scale"));
    group.sigma = tensors.Floats(GroupTensor(i, "sigma"));
  }
  profile.classes = ReadClasses(tensors);
  profile.residual_tables = ReadResidualTables(tensors);
}

bool HasInt8(const LatentProfile& profile) {
  return std::any_of(profile.groups.begin(), profile.groups.end(), [](const LayerGroup& group) {
    return group.predictor.int8() != nullptr || group.decode.int8() != nullptr;
  });
}

}  // namespace

double LayerGroup::DecodeWeight(int component, int channel) const {
  const double weight = decode.at(component, channel);
  if (component >= refined()) return weight;
  return weight + decode.at(components() + component, channel) / Int8Matrix::kRefinement;
}

int SigmaClassOf(float sigma, float step) {
  const float relative = sigma / step * kHalfClass;
  // Written so that a NaN is not coded.
  if (!(relative >= std::ldexp(1.0f, kLowestSigmaExponent))) return -1;
  int exponent;
  // The bound is for infinity, which has no exponent.
  const float mantissa = 2 * std::frexp(std::min(relative, kHighestClass), &exponent);  // [1, 2)
  int index = (exponent - 1 - kLowestSigmaExponent) * kClassesPerOctave;
  for (const float edge : kClassEdges) index += mantissa >= edge ? 1 : 0;
  return std::min(index, kSigmaClasses - 1);
}

absl::Status LatentProfile::Validate() const {
  const BlockShape shape{.layers = layers, .kv_heads = kv_heads, .head_dim = head_dim, .tokens = 1};
  if (absl::Status status = shape.Validate(); !status.ok()) return status;
  if (head_dim % 2 != 0) return Invalid("an odd head_dim");
  if (split < 0 || split >= layers - 1) return Invalid("a split that leaves no layers to code");
  if (features < 0 || features > kMaxFeatures) return Invalid("the number of features");
  if (!IsUtf8(model_fingerprint)) return Invalid("a fingerprint that is not UTF-8");
  if (!HasSize(feature_mean, features) || !HasSize(feature_scale, features) || !Positive(feature_scale)) {
    return Invalid("statistics of the features");
  }
  int next = first_layer();
  for (const LayerGroup& group : groups) {
    if (group.first_layer != next || group.layers < 1 || group.layers > layers - next) return Invalid("groups");
    if (absl::Status status = ValidateGroup(*this, group); !status.ok()) return status;
    next += group.layers;
  }
  if (next != layers) return Invalid("groups that do not cover the layers");
  if (classes.size() != kSigmaClasses) return Invalid("tables");
  for (const SigmaClass& one : classes) {
    if (absl::Status status = ValidateFrequencies(one.frequencies); !status.ok()) return status;
    if (!AllFinite(one.centroids) || !std::isfinite(one.error) || one.error < 0) return Invalid("centroids");
  }
  if (residual_tables.size() != kResidualClasses) return Invalid("residual tables");
  for (const TableFrequencies& table : residual_tables) {
    if (absl::Status status = ValidateFrequencies(table); !status.ok()) return status;
  }
  for (const DialPoint& point : points) {
    if (!std::isfinite(point.step) || point.step <= 0) return Invalid("a step");
    if (!std::isfinite(point.ratio) || !std::isfinite(point.mean_kl)) return Invalid("what was measured at a step");
    if (!IsUtf8(point.name)) return Invalid("a name that is not UTF-8");
  }
  for (const auto& [name, text] : notes) {
    if (!IsUtf8(name) || !IsUtf8(text)) return Invalid("a note that is not UTF-8");
  }
  return absl::OkStatus();
}

std::string LatentProfile::Serialize() const {
  TensorWriter writer;
  writer.Add("feature.mean", feature_mean);
  writer.Add("feature.scale", feature_scale);
  Json sizes = Json::array();
  for (size_t i = 0; i < groups.size(); ++i) {
    const LayerGroup& group = groups[i];
    sizes.push_back(group.layers);
    writer.Add(GroupTensor(i, "mean"), group.mean);
    writer.Add(GroupTensor(i, "predictor"), group.predictor);
    writer.Add(GroupTensor(i, "encode"), group.encode);
    writer.Add(GroupTensor(i, "decode"), group.decode);
    writer.Add(GroupTensor(i, "scale"), group.scale);
    writer.Add(GroupTensor(i, "sigma"), group.sigma);
  }
  AddClasses(classes, writer);
  AddResidualTables(residual_tables, writer);
  writer.AddMetadata({{"format", kFormat},
                      {"version", absl::StrCat(HasInt8(*this) ? kVersion : kVersionOfBf16)},
                      {"model_fingerprint", model_fingerprint},
                      {"layers", absl::StrCat(layers)},
                      {"kv_heads", absl::StrCat(kv_heads)},
                      {"head_dim", absl::StrCat(head_dim)},
                      {"split", absl::StrCat(split)},
                      {"features", absl::StrCat(features)},
                      {"group_layers", sizes.dump()},
                      {"points", PointsToJson(points).dump()},
                      {"notes", Json(notes).dump()}});
  return writer.Finish();
}

absl::StatusOr<LatentProfile> LatentProfile::Parse(std::string_view bytes) {
  absl::StatusOr<ProfileFile> file = ProfileFile::Open(bytes, kFormat, kVersion);
  if (!file.ok()) return absl::Status(file.status().code(), absl::StrCat("latent profile ", file.status().message()));
  LatentProfile profile;
  if (absl::Status status = ReadMetadata(file->metadata(), profile); !status.ok()) return status;
  TensorReader tensors = file->tensors();
  ReadTensors(tensors, profile);
  if (!tensors.ok()) return Damaged("a tensor");
  if (absl::Status status = profile.Validate(); !status.ok()) return Damaged(status.message());
  return profile;
}

}  // namespace quicksave::compressor
