#include "server/engine/model/safetensors.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

// A file with this header, whatever it says, and data.
std::string FileOf(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

Json Entry(const std::string& dtype, const Json& shape, const Json& begin, const Json& end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

absl::Status OpenBytes(const std::string& bytes) {
  const TestFolder folder;
  folder.Write("model.safetensors", bytes);
  return SafetensorsModel::Open(folder.path()).status();
}

void ExpectDamaged(const std::string& bytes, const std::string& named) {
  const absl::Status status = OpenBytes(bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << named << ": " << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(named));
}

const std::map<std::string, TestTensor> kTensors = {{"a", {.shape = {2, 3}, .data = "aAbBcCdDeEfF"}},
                                                    {"b", {.dtype = "F32", .shape = {1}, .data = "wxyz"}},
                                                    {"empty", {.shape = {0, 5}, .data = ""}},
                                                    {"scalar", {.shape = {}, .data = "ss"}}};

TEST(SafetensorsTest, ReadsTensorsOfOneFile) {
  const TestFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes(kTensors));
  const auto model = SafetensorsModel::Open(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->tensors().size(), 4u);
  for (const auto& [name, expected] : kTensors) {
    const absl::StatusOr<TensorView> tensor = (*model)->Tensor(name, expected.shape);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->dtype, expected.dtype);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size()), expected.data);
  }
  EXPECT_TRUE((*model)->Contains("a"));
  EXPECT_FALSE((*model)->Contains("c"));
  EXPECT_FALSE((*model)->Contains("__metadata__"));
}

TEST(SafetensorsTest, NamesAMissingTensorAndAWrongShape) {
  const TestFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes(kTensors));
  const auto model = SafetensorsModel::Open(folder.path());
  ASSERT_TRUE(model.ok());
  const absl::Status missing = (*model)->Tensor("model.norm.weight", {1}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("model.norm.weight"));
  const absl::Status wrong = (*model)->Tensor("a", {3, 2}).status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.message()), HasSubstr("tensor a has shape [2, 3], config.json asks for [3, 2]"));
}

TEST(SafetensorsTest, ReadsShardsThatTheIndexNames) {
  const TestFolder folder;
  folder.Write("one.safetensors", SafetensorsBytes({{"a", kTensors.at("a")}}));
  folder.Write("two.safetensors", SafetensorsBytes({{"b", kTensors.at("b")}}));
  folder.Write("model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  EXPECT_THAT(*ListWeightFiles(folder.path()), testing::ElementsAre("one.safetensors", "two.safetensors"));
  const auto model = SafetensorsModel::Open(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->tensors().size(), 2u);

  folder.Write("two.safetensors", SafetensorsBytes({{"a", kTensors.at("a")}}));
  const absl::Status twice = SafetensorsModel::Open(folder.path()).status();
  EXPECT_EQ(twice.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("two.safetensors"));

  std::filesystem::remove(folder.path() + "/two.safetensors");
  const absl::Status missing = SafetensorsModel::Open(folder.path()).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("two.safetensors"));
}

TEST(SafetensorsTest, RefusesAnIndexThatIsDamagedOrLeavesTheDirectory) {
  const TestFolder folder;
  EXPECT_EQ(ListWeightFiles(folder.path()).status().code(), absl::StatusCode::kNotFound);
  for (const char* bad : {"", "{", "[]", "{}", R"({"weight_map": 3})", R"({"weight_map": {"a": 3}})",
                          R"({"weight_map": {"a": "../secret"}})", R"({"weight_map": {"a": "/etc/passwd"}})",
                          R"({"weight_map": {"a": ".."}})", R"({"weight_map": {"a": ""}})"}) {
    folder.Write("model.safetensors.index.json", bad);
    EXPECT_EQ(SafetensorsModel::Open(folder.path()).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(SafetensorsTest, EveryTruncationIsDamage) {
  const std::string bytes = SafetensorsBytes(kTensors);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(OpenBytes(bytes.substr(0, size)).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_TRUE(OpenBytes(bytes).ok());
  ExpectDamaged(bytes + "x", "");
}

TEST(SafetensorsTest, RefusesALyingHeader) {
  std::string bytes = FileOf("{}", "");
  EXPECT_TRUE(OpenBytes(bytes).ok());
  for (const uint64_t size : {uint64_t{3}, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::memcpy(bytes.data(), &size, 8);
    ExpectDamaged(bytes, "header");
  }
  for (const char* header : {"", "[]", "null", "{\"a\"", "\xff\xff"}) ExpectDamaged(FileOf(header, ""), "header");
}

TEST(SafetensorsTest, RefusesMalformedEntries) {
  const std::string data(16, 'x');
  for (const Json& entry : {Json(3), Json::object(), Json{{"dtype", "BF16"}}, Entry("BF16", 8, 0, 16),
                            Entry("BF16", {-8}, 0, 16), Entry("BF16", {8.0}, 0, 16), Entry("BF16", {"8"}, 0, 16),
                            Entry("BF16", {8}, -1, 16), Entry("BF16", {8}, 0.0, 16), Entry("BF16", {8}, "0", 16),
                            Json{{"dtype", 1}, {"shape", {8}}, {"data_offsets", {0, 16}}},
                            Json{{"dtype", "BF16"}, {"shape", {8}}, {"data_offsets", {0, 16, 16}}}}) {
    ExpectDamaged(FileOf(Json{{"tensor", entry}}.dump(), data), "tensor");
  }
}

TEST(SafetensorsTest, RefusesShapesThatDoNotFitTheData) {
  const std::string data(16, 'x');
  for (const Json& entry :
       {Entry("BF16", {7}, 0, 16), Entry("BF16", {9}, 0, 16), Entry("F32", {8}, 0, 16), Entry("BF16", {7}, 0, 15),
        Entry("BF16", {8}, 0, 17), Entry("BF16", {8}, 16, 0), Entry("BF16", {uint64_t{1} << 63, 2}, 0, 16),
        Entry("BF16", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), Entry("BF16", {~uint64_t{0}}, 0, 16)}) {
    ExpectDamaged(FileOf(Json{{"tensor", entry}}.dump(), data), "tensor");
  }
}

TEST(SafetensorsTest, RefusesTensorsThatOverlapOrLeaveHoles) {
  const std::string data(16, 'x');
  const auto two = [&](const Json& first, const Json& second) {
    std::string header = Json{{"one", first}, {"two", second}}.dump();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return FileOf(header, data);
  };
  EXPECT_TRUE(OpenBytes(two(Entry("BF16", {4}, 0, 8), Entry("BF16", {4}, 8, 16))).ok());
  EXPECT_TRUE(OpenBytes(two(Entry("BF16", {4}, 8, 16), Entry("BF16", {4}, 0, 8))).ok());
  ExpectDamaged(two(Entry("BF16", {8}, 0, 16), Entry("BF16", {4}, 8, 16)), "two");
  ExpectDamaged(two(Entry("BF16", {4}, 0, 8), Entry("BF16", {3}, 10, 16)), "two");
  ExpectDamaged(two(Entry("BF16", {4}, 0, 8), Entry("BF16", {2}, 8, 12)), "");
}

TEST(SafetensorsTest, RefusesTensorsThatAreNotAligned) {
  // The header's length is odd, so every 2-byte element would stand at an odd address.
  std::string header = Json{{"tensor", Entry("BF16", {8}, 0, 16)}}.dump();
  if (header.size() % 2 == 0) header += " ";
  ExpectDamaged(FileOf(header, std::string(16, 'x')), "aligned");
}

TEST(SafetensorsTest, RandomDamageNeverCrashes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string good = SafetensorsBytes(kTensors);
  const TestFolder folder;
  for (int round = 0; round < 500; ++round) {
    std::string bytes = good;
    for (size_t i = 0; i < 1 + random() % 4; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random() % 3 == 0 ? random() : '0' + random() % 10);
    }
    folder.Write("model.safetensors", bytes);
    const auto model = SafetensorsModel::Open(folder.path());
    if (!model.ok()) continue;
    // What is accepted must be readable.
    unsigned sum = 0;
    for (const auto& [name, tensor] : (*model)->tensors()) {
      for (const std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
    }
    EXPECT_GT(sum, 0u);
  }
}

}  // namespace
}  // namespace quicksave::engine
