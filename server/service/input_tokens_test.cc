#include "server/service/input_tokens.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

using testing::HasSubstr;

// A core with as much of a model as text needs: byte tokens, <|im_start|> 298, <|im_end|> 299, and ChatML.
class InputTokensTest : public testing::Test {
 protected:
  InputTokensTest() {
    core_.tokenizer = text::Tokenizer::Load(model_.dir()).value();
    core_.chat_template = text::ChatTemplate::Load(model_.dir()).value();
    core_.identity.vocab_size = 300;
  }

  absl::StatusOr<std::vector<int32_t>> Tokens(const v1::GenerateRequest& request, bool continues) {
    return InputTokens(core_, request, continues);
  }
  static std::vector<int32_t> Bytes(const std::string& text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  static std::vector<int32_t> Join(std::vector<int32_t> a, const std::vector<int32_t>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
  static void ExpectInvalid(const absl::Status& status, const std::string& named) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(named));
  }

  const engine::TinyModel model_{{.layers = 1, .tokenizer = true}};
  Core core_;
};

TEST_F(InputTokensTest, APromptIsItsText) {
  v1::GenerateRequest request;
  request.set_prompt("caf\xc3\xa9");
  EXPECT_EQ(*Tokens(request, false), Bytes("caf\xc3\xa9"));
  EXPECT_EQ(*Tokens(request, true), Bytes("caf\xc3\xa9"));
}

TEST_F(InputTokensTest, APromptCannotForgeAControlToken) {
  v1::GenerateRequest request;
  request.set_prompt("<|im_end|>");
  EXPECT_EQ(*Tokens(request, false), Bytes("<|im_end|>"));
  EXPECT_EQ(*TextTokens(core_, "<|im_end|>"), Bytes("<|im_end|>"));
}

TEST_F(InputTokensTest, MessagesGetTheWholeTemplate) {
  v1::GenerateRequest request;
  v1::ChatMessage* message = request.mutable_messages()->add_messages();
  message->set_role("user");
  message->set_content("hi <|im_end|>");
  const std::vector<int32_t> turn = Join(Join({298}, Bytes("user\nhi <|im_end|>")),
                                         Join({299}, Join(Bytes("\n"), Join({298}, Bytes("assistant\n")))));
  EXPECT_EQ(*Tokens(request, false), turn);
  // After a reply, which the model ended without its end-of-turn token in the state, that token comes first.
  EXPECT_EQ(*Tokens(request, true), Join({299}, Join(Bytes("\n"), turn)));
}

TEST_F(InputTokensTest, MessagesNeedARole) {
  v1::GenerateRequest request;
  request.mutable_messages();
  ExpectInvalid(Tokens(request, false).status(), "no message");
  request.mutable_messages()->add_messages()->set_content("hi");
  ExpectInvalid(Tokens(request, false).status(), "role");
}

TEST_F(InputTokensTest, TokenIdsAreTakenAsTheyAre) {
  v1::GenerateRequest request;
  for (const int32_t id : {0, 299, 5}) request.mutable_token_ids()->add_ids(id);
  EXPECT_THAT(*Tokens(request, false), testing::ElementsAre(0, 299, 5));
}

TEST_F(InputTokensTest, TokenIdsMustBeInTheVocabulary) {
  for (const int32_t bad : {-1, 300, INT32_MIN, INT32_MAX}) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->add_ids(7);
    request.mutable_token_ids()->add_ids(bad);
    ExpectInvalid(Tokens(request, true).status(), std::to_string(bad));
    ExpectInvalid(CheckTokenIds(core_, {bad}), "0 to 299");
  }
  EXPECT_TRUE(CheckTokenIds(core_, {}).ok());
}

TEST_F(InputTokensTest, TokenIdsOfAPaddedVocabularyMustBeTheTokenizers) {
  core_.identity.vocab_size = 320;
  EXPECT_TRUE(CheckTokenIds(core_, {299}).ok());
  ExpectInvalid(CheckTokenIds(core_, {5, 300}), "token id 300 is not in the vocabulary; ids are from 0 to 299");
  ExpectInvalid(CheckTokenIds(core_, {320}), "0 to 299");
}

TEST_F(InputTokensTest, OnlyANewSessionNeedsInput) {
  v1::GenerateRequest request;
  ExpectInvalid(Tokens(request, false).status(), "needs input");
  EXPECT_TRUE(Tokens(request, true)->empty());
  request.set_prompt("");
  ExpectInvalid(Tokens(request, false).status(), "needs input");
  EXPECT_TRUE(Tokens(request, true)->empty());
  request.mutable_token_ids();
  ExpectInvalid(Tokens(request, false).status(), "needs input");
}

TEST_F(InputTokensTest, TextMustBeUtf8) {
  v1::GenerateRequest request;
  request.set_prompt("a\xff");
  ExpectInvalid(Tokens(request, false).status(), "UTF-8");
  ExpectInvalid(TextTokens(core_, "\xc3").status(), "UTF-8");
}

}  // namespace
}  // namespace quicksave::server
