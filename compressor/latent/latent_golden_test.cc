// The golden files of the latent codecs, which latent_golden_writer.cc wrote.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/latent/test_profile.h"
#include "compressor/row_block.h"

namespace quicksave::compressor {
namespace {

std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(QUICKSAVE_LATENT_TESTDATA) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

// The parameter is the version of the profile.
class LatentGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  LatentGoldenTest() {
    auto parsed = LatentProfile::Parse(ReadGolden(GetParam() + ".profile"));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    profile_ = std::make_shared<const LatentProfile>(*std::move(parsed));
    EXPECT_TRUE(RegisterBuiltinCodecs(registry_).ok());
    EXPECT_TRUE(registry_.Register(NewLatentCodec(profile_)).ok());
    EXPECT_TRUE(registry_.Register(NewResidualCodec(profile_)).ok());
  }

  // The block that was encoded, with its context.
  TestBlock ReadBlock(const std::string& name) const {
    TestBlock block;
    const std::string exact = ReadGolden(name + "_exact.qsbk");
    block.shape = PeekContainer(exact)->shape;
    block.values.resize(block.shape.values());
    EXPECT_TRUE(DecodeBlock(registry_, exact, {}, {block.shape, absl::MakeSpan(block.values)}).ok());
    const std::string rows = ReadGolden(name + "_hidden.qsrb");
    const auto info = PeekRowBlock(rows);
    block.hidden_states.resize(info->shape.values());
    EXPECT_TRUE(DecodeRowBlock(rows, info->shape, info->id, absl::MakeSpan(block.hidden_states)).ok());
    const std::string angles = ReadGolden(name + "_angles.f32");
    const size_t table = angles.size() / 2;
    EXPECT_EQ(table, sizeof(float) * block.shape.tokens * block.shape.head_dim);
    for (int i = 0; i < 2; ++i) {
      block.angle_tables[i].resize(table / sizeof(float));
      std::memcpy(block.angle_tables[i].data(), angles.data() + i * table, table);
    }
    for (int layer = 0; layer < block.shape.layers; ++layer) {
      block.angles.push_back(block.angle_tables[layer % 2].data());
    }
    return block;
  }

  std::shared_ptr<const LatentProfile> profile_;
  CodecRegistry registry_;
};

TEST_P(LatentGoldenTest, TheProfileIsWrittenAsItWas) {
  EXPECT_EQ(profile_->Serialize(), ReadGolden(GetParam() + ".profile"));
}

TEST_P(LatentGoldenTest, BlocksStillDecode) {
  std::istringstream list(ReadGolden(GetParam() + ".blocks"));
  std::string name;
  std::string id;
  int known = 0;
  int blocks = 0;
  for (; list >> name >> known >> id; ++blocks) {
    SCOPED_TRACE(name);
    const TestBlock block = ReadBlock(name);
    BlockContext context = block.Context(0, known);
    std::vector<uint16_t> values = block.Prefilled(*profile_, known);
    absl::Status status =
        DecodeBlock(registry_, ReadGolden(name + "_latent.qsbk"), context, {block.shape, absl::MakeSpan(values)});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(ComputeBlockId({block.shape, values}).ToHex(), id);
    EXPECT_NE(values, block.values);
    context.base = values;
    status =
        DecodeBlock(registry_, ReadGolden(name + "_residual.qsbk"), context, {block.shape, absl::MakeSpan(values)});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(values, block.values);
  }
  EXPECT_EQ(blocks, 2);
}

TEST_P(LatentGoldenTest, BlocksAreNotLargerThanTheyWere) {
  const std::string old = ReadGolden(GetParam() + "_40_latent.qsbk");
  const TestBlock block = ReadBlock(GetParam() + "_40");
  const auto again = EncodeBlock(registry_, kLatentCodec, block.view(), block.Context(0.25f, 4));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_LE(again->size(), old.size());
}

INSTANTIATE_TEST_SUITE_P(Versions, LatentGoldenTest, testing::Values("latent_v1", "latent_v2"),
                         [](const auto& version) { return version.param; });

}  // namespace
}  // namespace quicksave::compressor
