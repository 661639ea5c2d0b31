#include "server/engine/model/fingerprint.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

class FingerprintTest : public testing::Test {
 protected:
  FingerprintTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/fingerprint-XXXXXX");
    dir_ = mkdtemp(name.data());
    Write("config.json", "{}");
    Write("tokenizer.json", "{\"model\": 1}");
    Write("model.safetensors", std::string(3 << 20, 'w'));
  }
  ~FingerprintTest() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(std::filesystem::path(dir_) / name, std::ios::binary) << content;
  }
  std::string Fingerprint(const std::string& numerics = "n1") {
    const absl::StatusOr<std::string> fingerprint = ModelFingerprint(dir_, numerics);
    EXPECT_TRUE(fingerprint.ok()) << fingerprint.status();
    return fingerprint.value_or("");
  }

  std::string dir_;
};

TEST_F(FingerprintTest, IsThirtyTwoHexadecimalDigits) {
  const std::string fingerprint = Fingerprint();
  EXPECT_EQ(fingerprint.size(), 32u);
  EXPECT_EQ(fingerprint.find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST_F(FingerprintTest, IsWhatSha256OfTheFramedFilesIs) {
  Write("model.safetensors", "abc");
  // printf 'quicksave model fingerprint 1\nn1\nconfig.json\n2\n{}tokenizer.json\n12\n{"model":
  // 1}model.safetensors\n3\nabc' | sha256sum
  EXPECT_EQ(Fingerprint(), "7e238cd6164b19161242f6ce292b2c58");
}

TEST_F(FingerprintTest, DoesNotDependOnPlaceOrOtherFiles) {
  const std::string before = Fingerprint();
  Write("README.md", "hello");
  Write("generation_config.json", "{}");
  EXPECT_EQ(Fingerprint(), before);
  const std::string moved = dir_ + "-moved";
  std::filesystem::rename(dir_, moved);
  dir_ = moved;
  EXPECT_EQ(Fingerprint(), before);
}

TEST_F(FingerprintTest, ChangesWithEveryPart) {
  const std::string before = Fingerprint();
  EXPECT_NE(Fingerprint("n2"), before);
  std::string weights(3 << 20, 'w');
  weights[(2 << 20) + 17] = 'x';
  Write("model.safetensors", weights);
  const std::string other_weights = Fingerprint();
  EXPECT_NE(other_weights, before);
  Write("tokenizer.json", "{\"model\": 2}");
  const std::string other_tokenizer = Fingerprint();
  EXPECT_NE(other_tokenizer, other_weights);
  Write("config.json", "{ }");
  EXPECT_NE(Fingerprint(), other_tokenizer);
}

TEST_F(FingerprintTest, CoversEveryShard) {
  std::filesystem::remove(std::filesystem::path(dir_) / "model.safetensors");
  Write("model.safetensors.index.json", R"({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})");
  Write("m-1.safetensors", "one");
  Write("m-2.safetensors", "two");
  const std::string before = Fingerprint();
  Write("m-2.safetensors", "TWO");
  EXPECT_NE(Fingerprint(), before);
}

TEST_F(FingerprintTest, NamesAMissingFile) {
  std::filesystem::remove(std::filesystem::path(dir_) / "tokenizer.json");
  const absl::Status status = ModelFingerprint(dir_, "n1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("tokenizer.json"), std::string::npos) << status;
}

}  // namespace
}  // namespace quicksave::engine
