#include "compressor/latent/latent_profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"
#include "compressor/latent/test_profile.h"
#include "nlohmann/json.hpp"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const LatentProfile& Mixed() {
  static const auto& profile = *new std::shared_ptr(TestSource({.first_diagonal_group = 1}).profile());
  return *profile;
}

// The file with another header and right checksum; the data stay.
std::string WithHeader(const std::function<void(std::string&)>& change) {
  const std::string bytes = Mixed().Serialize();
  const auto size = ByteReader(bytes).Integer<uint64_t>();
  std::string header = bytes.substr(8, size);
  change(header);
  std::string changed;
  AppendInteger(changed, uint64_t{header.size()});
  changed += header;
  changed += bytes.substr(8 + size, bytes.size() - 16 - size);
  AppendChecksum(changed);
  return changed;
}

std::string Replaced(const std::string& from, const std::string& to) {
  return WithHeader([&](std::string& header) {
    const size_t place = header.find(from);
    ASSERT_NE(place, std::string::npos) << from << " is not in " << header.substr(0, 2000);
    header.replace(place, from.size(), to);
  });
}

StatusCode CodeOf(const std::string& bytes) { return LatentProfile::Parse(bytes).status().code(); }

TEST(LatentProfileTest, ComesBackAsItWas) {
  for (const int split : {0, 1}) {
    for (const int first_diagonal : {0, 1, 2}) {
      for (const int features : {0, 12}) {
        const auto profile =
            TestSource(
                {.split = split, .features = features, .first_diagonal_group = first_diagonal, .calibration_blocks = 1})
                .profile();
        ASSERT_TRUE(profile->Validate().ok()) << profile->Validate();
        const std::string bytes = profile->Serialize();
        const auto parsed = LatentProfile::Parse(bytes);
        ASSERT_TRUE(parsed.ok()) << parsed.status();
        EXPECT_EQ(parsed->Serialize(), bytes);
        EXPECT_EQ(parsed->model_fingerprint, "test-model");
        EXPECT_EQ(parsed->layers, 4 + split);
        EXPECT_EQ(parsed->split, split);
        EXPECT_EQ(parsed->features, features);
        ASSERT_EQ(parsed->groups.size(), 2U);
        EXPECT_EQ(parsed->groups[1].first_layer, profile->groups[1].first_layer);
        EXPECT_EQ(parsed->groups[0].encode.values, profile->groups[0].encode.values);
        ASSERT_NE(first_diagonal > 0, parsed->groups[0].decode.empty());
        if (first_diagonal > 0) {
          EXPECT_EQ(parsed->groups[0].decode.int8()->RowMajor(), profile->groups[0].decode.int8()->RowMajor());
          EXPECT_EQ(parsed->groups[0].decode.int8()->scales(), profile->groups[0].decode.int8()->scales());
        }
        EXPECT_EQ(parsed->groups[1].scale, profile->groups[1].scale);
        EXPECT_EQ(parsed->groups[1].sigma, profile->groups[1].sigma);
        EXPECT_EQ(parsed->classes[30].centroids, profile->classes[30].centroids);
        EXPECT_EQ(parsed->classes[30].error, profile->classes[30].error);
        EXPECT_EQ(parsed->residual_tables, profile->residual_tables);
        ASSERT_EQ(parsed->points.size(), 2U);
        EXPECT_EQ(parsed->points[0].name, "fine");
        EXPECT_EQ(parsed->points[0].step, 0.125f);
        EXPECT_EQ(parsed->points[0].mean_kl, 0.001);
        EXPECT_EQ(parsed->notes, profile->notes);
      }
    }
  }
}

TEST(LatentProfileTest, EqualProfilesHaveEqualBytes) {
  const LatentProfile& copy = Mixed();
  EXPECT_EQ(copy.Serialize(), Mixed().Serialize());
  LatentProfile other = Mixed();
  other.groups[0].sigma[3] *= 1.5f;
  EXPECT_NE(other.Serialize(), Mixed().Serialize());
}

TEST(LatentProfileTest, NumbersOfPointsComeBackExactly) {
  LatentProfile profile = Mixed();
  profile.points = {{.name = "\"\\\n", .step = 0.1f, .ratio = 1.0 / 3, .mean_kl = 1e-300}, {.step = 1e-38f}};
  const auto parsed = LatentProfile::Parse(profile.Serialize());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->points[0].name, "\"\\\n");
  EXPECT_EQ(parsed->points[0].step, 0.1f);
  EXPECT_EQ(parsed->points[0].ratio, 1.0 / 3);
  EXPECT_EQ(parsed->points[0].mean_kl, 1e-300);
  EXPECT_EQ(parsed->points[1].step, 1e-38f);
}

TEST(LatentProfileTest, EveryDamagedByteIsDataLoss) {
  std::string bytes = Mixed().Serialize();
  for (char& byte : bytes) {
    byte = static_cast<char>(byte ^ 0x10);
    ASSERT_EQ(CodeOf(bytes), StatusCode::kDataLoss) << &byte - bytes.data();
    byte = static_cast<char>(byte ^ 0x10);
  }
}

TEST(LatentProfileTest, EveryCutIsDataLoss) {
  const std::string bytes = Mixed().Serialize();
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 100) {
    EXPECT_EQ(CodeOf(bytes.substr(0, size)), StatusCode::kDataLoss) << size;
    std::string forged = bytes.substr(0, size);
    AppendChecksum(forged);
    EXPECT_EQ(CodeOf(forged), StatusCode::kDataLoss) << size;
  }
  EXPECT_EQ(CodeOf(bytes + "x"), StatusCode::kDataLoss);
}

TEST(LatentProfileTest, SaysThatANewerVersionIsNewer) {
  EXPECT_EQ(CodeOf(Replaced(R"("version":"2")", R"("version":"3")")), StatusCode::kUnimplemented);
  for (const char* const version : {R"("version":"0")", R"("version":"-1")", R"("version":"one")", R"("version":2)",
                                    R"("version":"99999999999999999999")", R"("revision":"1")"}) {
    EXPECT_EQ(CodeOf(Replaced(R"("version":"2")", version)), StatusCode::kDataLoss) << version;
  }
}

TEST(LatentProfileTest, VersionSaysWhetherMatricesAreOfBytes) {
  const auto version_of = [](const LatentProfile& profile) {
    const std::string bytes = profile.Serialize();
    return bytes.substr(bytes.find(R"("version":")"), 13);
  };
  EXPECT_EQ(version_of(Mixed()), R"("version":"2")");
  const auto old = TestSource({.bf16 = true, .calibration_blocks = 1}).profile();
  EXPECT_EQ(version_of(*old), R"("version":"1")");
  const auto parsed = LatentProfile::Parse(old->Serialize());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->groups[0].decode.bf16()->values, old->groups[0].decode.bf16()->values);
}

TEST(LatentProfileTest, RefusesTheByteThatNoMatrixHas) {
  std::string bytes = Mixed().Serialize();
  const auto head = ByteReader(bytes).Integer<uint64_t>();
  const auto header = nlohmann::json::parse(bytes.substr(8, head));
  const size_t place = 8 + head + header["group0.decode"]["data_offsets"][0].get<size_t>();
  bytes.resize(bytes.size() - sizeof(uint64_t));
  for (const int value : {-127, -128}) {
    std::string changed = bytes;
    changed[place + 5] = static_cast<char>(value);
    AppendChecksum(changed);
    EXPECT_EQ(CodeOf(changed), value == -128 ? StatusCode::kDataLoss : StatusCode::kOk);
  }
}

// Under a right checksum: what another program may have written, or an attacker.
TEST(LatentProfileTest, RefusesHeadersOfAnotherKind) {
  const std::vector<std::pair<const char*, const char*>> changes = {
      {R"("format":"quicksave-latent-profile")", R"("format":"other")"},
      {R"("format":"quicksave-latent-profile")", R"("format":5)"},
      {R"("layers":"4")", R"("layers":4)"},
      {R"("layers":"4")", R"("layers":"5")"},
      {R"("layers":"4")", R"("layers":"2147483647")"},
      {R"("kv_heads":"2")", R"("kv_heads":"4096")"},
      {R"("head_dim":"8")", R"("head_dim":"-8")"},
      {R"("split":"0")", R"("split":"2147483647")"},
      {R"("split":"0")", R"("split":"-1")"},
      {R"("split":"0")", R"("split":"3")"},
      {R"("features":"12")", R"("features":"2147483647")"},
      {R"("features":"12")", R"("features":"0")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[1,2]")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[2]")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[4294967298,1]")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[-2,1]")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[2.0,1]")"},
      {R"("group_layers":"[2,1]")", R"("group_layers":[2,1])"},
      {R"("group_layers":"[2,1]")", R"("group_layers":"[[[")"},
      {R"("points":"[)", R"("points":"{)"},
      {R"(\"step\":0.125)", R"(\"step\":\"x\")"},
      {R"(\"step\":0.125)", R"(\"step\":null)"},
      {R"(\"step\":0.125)", R"(\"step\":1e99)"},
      {R"(\"step\":0.125)", R"(\"step\":-1)"},
      {R"(\"ratio\":4.5)", R"(\"ratio\":[])"},
      {R"("notes":"{\"program\":\"test_profile\")", R"("notes":"{\"program\":5)"},
      {R"("notes":"{)", R"("notes":"[)"},
      {R"("dtype":"F32")", R"("dtype":"F16")"},
      {R"("dtype":"F32")", R"("dtype":32)"},
      {R"("shape":[60,256])", R"("shape":[256,60])"},
      {R"("shape":[60,256])", R"("shape":[60,-256])"},
      {R"("shape":[60,256])", R"("shape":"60")"},
      {R"("shape":[60,256])", R"("shape":[60])"},
      {R"("data_offsets":[)", R"("data_offsets":[1,)"},
      {R"("data_offsets":[)", R"("data_offsets":[18446744073709551615,)"},
      {R"("class.frequencies")", R"("class.frequency")"},
      {R"("group0.mean")", R"("group7.mean")"},
      {R"("group0.encode")", R"("group7.encode")"},
      {R"("group0.decode.scale")", R"("group7.decode.scale")"},
      {R"("dtype":"I8")", R"("dtype":"U8")"},
      {R"("group1.scale")", R"("group7.scale")"},
      {R"("residual.frequencies")", R"("residual")"},
      {R"("__metadata__")", R"("metadata")"},
  };
  for (const auto& [from, to] : changes) {
    EXPECT_EQ(CodeOf(Replaced(from, to)), StatusCode::kDataLoss) << from << " -> " << to;
  }
}

TEST(LatentProfileTest, RefusesHeadersThatAreNoObjects) {
  for (const char* const text : {"", "[]", "5", "{", "null", "{\"__metadata__\":[]}", "\xff\xfe"}) {
    EXPECT_EQ(CodeOf(WithHeader([&](std::string& header) { header = text; })), StatusCode::kDataLoss) << text;
  }
  std::string huge;
  AppendInteger(huge, ~uint64_t{0});
  AppendChecksum(huge);
  EXPECT_EQ(CodeOf(huge), StatusCode::kDataLoss);
}

// Neither depth nor claims of size take memory or stack that the file does not have.
TEST(LatentProfileTest, RefusesDepthAndSharedTensors) {
  const std::string deep(2'000'000, '[');
  EXPECT_EQ(CodeOf(Replaced(R"("shape":[60,256])", absl::StrCat(R"("shape":)", deep, std::string(2'000'000, ']')))),
            StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(Replaced(R"("group_layers":"[2,1]")",
                            absl::StrCat(R"("group_layers":")", deep, std::string(2'000'000, ']'), R"(")"))),
            StatusCode::kDataLoss);
  // 4,000 groups whose tensors are all the same bytes of the file.
  const std::string shared = WithHeader([](std::string& header) {
    std::string sizes = "[1";
    std::string tensors;
    for (int i = 0; i < 4000; ++i) {
      absl::StrAppend(&sizes, ",1");
      absl::StrAppend(&tensors, "\"group", i,
                      R"(.encode":{"dtype":"BF16","shape":[128,128],"data_offsets":[0,32768]},)");
    }
    const std::string old = R"("group_layers":"[2,1]")";
    header.replace(header.find(old), old.size(), absl::StrCat(R"("group_layers":")", sizes, R"(]")"));
    header.insert(1, tensors);
  });
  EXPECT_EQ(CodeOf(shared), StatusCode::kDataLoss);
}

std::vector<float> Numbers(size_t count) { return std::vector<float>(count, 0.5f); }
Int8Matrix WithScale(int inputs, int outputs, float scale) {
  const std::vector<int8_t> values(static_cast<size_t>(inputs) * outputs, 3);
  return {inputs, outputs, values, std::vector<float>(outputs, scale)};
}

struct Change {
  const char* what;
  std::function<void(LatentProfile&)> apply;
};

TEST(LatentProfileTest, ValidateNamesEachInconsistency) {
  const std::vector<Change> changes = {
      {"layers", [](LatentProfile& p) { p.layers = 0; }},
      {"more layers", [](LatentProfile& p) { p.layers = 5; }},
      {"heads", [](LatentProfile& p) { p.kv_heads = 3; }},
      {"huge heads", [](LatentProfile& p) { p.kv_heads = p.head_dim = p.layers = 4096; }},
      {"odd head_dim", [](LatentProfile& p) { p.head_dim = 7; }},
      {"split", [](LatentProfile& p) { p.split = 1; }},
      {"negative split", [](LatentProfile& p) { p.split = -1; }},
      {"largest split", [](LatentProfile& p) { p.split = std::numeric_limits<int>::max(); }},
      {"features", [](LatentProfile& p) { p.features = 11; }},
      {"negative features", [](LatentProfile& p) { p.features = -1; }},
      {"feature mean", [](LatentProfile& p) { p.feature_mean[0] = kNan; }},
      {"feature scale", [](LatentProfile& p) { p.feature_scale[0] = 0; }},
      {"no groups", [](LatentProfile& p) { p.groups.clear(); }},
      {"a group less", [](LatentProfile& p) { p.groups.pop_back(); }},
      {"a gap", [](LatentProfile& p) { p.groups[1].first_layer = 4; }},
      {"layers of a group", [](LatentProfile& p) { p.groups[0].layers = 3; }},
      {"empty group", [](LatentProfile& p) { p.groups[0].layers = 0; }},
      {"huge group", [](LatentProfile& p) { p.groups[0].layers = std::numeric_limits<int>::max(); }},
      {"mean", [](LatentProfile& p) { p.groups[0].mean.pop_back(); }},
      {"infinite mean", [](LatentProfile& p) { p.groups[0].mean[1] = -kInfinity; }},
      {"predictor", [](LatentProfile& p) { p.groups[0].predictor = Int8Matrix::Nearest(11, 64, Numbers(11 * 64)); }},
      {"a predictor's scale", [](LatentProfile& p) { p.groups[0].predictor = WithScale(12, 64, 0); }},
      {"an infinite scale", [](LatentProfile& p) { p.groups[0].predictor = WithScale(12, 64, kInfinity); }},
      {"a predictor without values",
       [](LatentProfile& p) {
         p.groups[0].predictor = Bf16Matrix{12, 64, std::vector<uint16_t>(12 * 64 - 1)};
       }},
      {"a NaN in the predictor",
       [](LatentProfile& p) {
         p.groups[0].predictor = Bf16Matrix{12, 64, std::vector<uint16_t>(12 * 64, 0x7fc0)};
       }},
      {"an infinity in the basis", [](LatentProfile& p) { p.groups[0].encode.values[9] = 0xff80; }},
      {"no decode", [](LatentProfile& p) { p.groups[0].decode = {}; }},
      {"no encode", [](LatentProfile& p) { p.groups[0].encode = {}; }},
      {"swapped basis", [](LatentProfile& p) { p.groups[0].decode = p.groups[0].encode; }},
      {"basis and scale", [](LatentProfile& p) { p.groups[0].scale.assign(128, 1); }},
      {"no scale", [](LatentProfile& p) { p.groups[1].scale.clear(); }},
      {"zero scale", [](LatentProfile& p) { p.groups[1].scale[0] = 0; }},
      {"fewer components without basis", [](LatentProfile& p) { p.groups[1].sigma.pop_back(); }},
      {"no components", [](LatentProfile& p) { p.groups[0].sigma.clear(); }},
      {"zero sigma", [](LatentProfile& p) { p.groups[0].sigma[2] = 0; }},
      {"NaN sigma", [](LatentProfile& p) { p.groups[0].sigma[2] = kNan; }},
      {"more components than channels", [](LatentProfile& p) { p.groups[0].sigma.resize(1000, 1); }},
      {"classes", [](LatentProfile& p) { p.classes.pop_back(); }},
      {"frequencies", [](LatentProfile& p) { ++p.classes[5].frequencies[1]; }},
      {"centroids", [](LatentProfile& p) { p.classes[5].centroids[2] = kNan; }},
      {"error", [](LatentProfile& p) { p.classes[5].error = -1; }},
      {"infinite error", [](LatentProfile& p) { p.classes[5].error = kInfinity; }},
      {"residual tables", [](LatentProfile& p) { p.residual_tables.pop_back(); }},
      {"residual frequencies", [](LatentProfile& p) { p.residual_tables[3].fill(0); }},
      {"step", [](LatentProfile& p) { p.points[0].step = 0; }},
      {"NaN step", [](LatentProfile& p) { p.points[0].step = kNan; }},
      {"ratio", [](LatentProfile& p) { p.points[0].ratio = kInfinity; }},
      {"divergence", [](LatentProfile& p) { p.points[0].mean_kl = kNan; }},
      {"fingerprint", [](LatentProfile& p) { p.model_fingerprint = "\xff"; }},
      {"name", [](LatentProfile& p) { p.points[0].name = "\xc3"; }},
      {"note", [](LatentProfile& p) { p.notes["x"] = "\x80"; }},
  };
  ASSERT_TRUE(Mixed().Validate().ok());
  for (const Change& change : changes) {
    LatentProfile profile = Mixed();
    change.apply(profile);
    EXPECT_EQ(profile.Validate().code(), StatusCode::kInvalidArgument) << change.what;
  }
}

}  // namespace
}  // namespace quicksave::compressor
