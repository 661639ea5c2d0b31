#include "client/cli/encoding_text.h"

#include "client/cli/testing_connection.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

client::Node NodeWith(const std::vector<client::Encoding>& encodings) {
  client::Node node = TestingNode("7f3a9c2100000000");
  node.encodings = encodings;
  return node;
}

TEST(EncodingTextTest, OneLineSaysNameSizesAndFidelity) {
  client::Encoding encoding = TestingEncoding(6, 0.05f);
  EXPECT_EQ(EncodingText(encoding),
            "latent, split 6, step 0.05, profile 3eb8bc5a: 288.0 KiB (10.00x); mean KL 0.00213 nats, largest 0.0341, "
            "top-1 98.4%");
  encoding.has_residual = true;
  encoding.residual_bytes = 1'179'648;
  encoding.fidelity->probe_tokens = 1063;
  encoding.fidelity->next_token_kl = 0.5;
  EXPECT_EQ(EncodingText(encoding),
            "latent, split 6, step 0.05, profile 3eb8bc5a: 288.0 KiB (10.00x), with residual 1.4 MiB (2.00x); mean KL "
            "0.00213 nats, largest 0.0341, top-1 98.4% over 1,063 tokens, 0.5 after the last");
  encoding.fidelity.reset();
  EXPECT_THAT(EncodingText(encoding), HasSubstr("; not measured"));
}

TEST(EncodingTextTest, SizesOfANodeAreThoseOfAllItsEncodings) {
  client::Node node = NodeWith({});
  EXPECT_EQ(StoredBytes(node), 1'890'000);
  EXPECT_EQ(StoredRatio(node), 1.56);
  client::Encoding encoding = TestingEncoding(0, 0.1f);
  encoding.residual_bytes = 5'088;
  encoding.has_residual = true;
  node = NodeWith({encoding, TestingEncoding(6, 0.1f)});
  EXPECT_EQ(StoredBytes(node), 1'890'000 + 300'000 + 294'912);
  node.encodings.pop_back();
  node.saved_dropped = true;
  node.storage.raw_bytes = node.storage.stored_bytes = 0;
  EXPECT_EQ(StoredBytes(node), 300'000);
  EXPECT_DOUBLE_EQ(StoredRatio(node), 2'949'120 / 300'000.0);
}

TEST(EncodingTextTest, EncodingsAreNamedByNumberOrByWhatSetsThemApart) {
  client::Encoding other = TestingEncoding(0, 0.05f);
  other.profile = "6241bf46689a8082a7bc85ad694813b8";
  // As the geometric mean of two steps is, and as it is shown.
  const client::Encoding between = TestingEncoding(6, 0.0866025f);
  const client::Node node = NodeWith({TestingEncoding(6, 0.05f), between, other});
  const auto found = [&node](const std::string& text) { return FindEncoding(node, text).value(); };
  EXPECT_EQ(found("1"), node.encodings[0]);
  EXPECT_EQ(found("3"), other);
  EXPECT_EQ(found("split=0"), other);
  EXPECT_EQ(found("profile=6241"), other);
  EXPECT_EQ(found("step=0.0866"), between);
  EXPECT_EQ(found("step=0.05,split=6"), node.encodings[0]);
}

TEST(EncodingTextTest, NamesOfNoneOrSeveralAreRefusedWithWhatThereIs) {
  const client::Node node = NodeWith({TestingEncoding(6, 0.05f), TestingEncoding(6, 0.1f)});
  const auto refusal = [&node](const std::string& text) { return FindEncoding(node, text).status(); };
  EXPECT_EQ(refusal("split=6").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal("split=6").message()),
              AllOf(HasSubstr("means 2 encodings"), HasSubstr("2: latent, split 6, step 0.1")));
  for (const char* none : {"0", "3", "step=0.051", "split=0", "profile=ffff"}) {
    EXPECT_EQ(refusal(none).code(), absl::StatusCode::kNotFound) << none;
    EXPECT_THAT(std::string(refusal(none).message()), HasSubstr("1: latent, split 6, step 0.05")) << none;
  }
  for (const char* wrong : {"-1", "step", "step=", "step=x", "split=1.5", "profile=", "layer=3", "split=6,,step=0.1"}) {
    EXPECT_EQ(refusal(wrong).code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
  EXPECT_THAT(std::string(FindEncoding(NodeWith({}), "1").status().message()), HasSubstr("quicksave encode"));
}

}  // namespace
}  // namespace quicksave::cli
