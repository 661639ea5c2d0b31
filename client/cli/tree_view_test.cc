#include "client/cli/tree_view.h"

#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/testing_connection.h"
#include "client/cli/text_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::cli {
namespace {

using client::EdgeType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TreeViewTest : public ::testing::Test {
 protected:
  std::istringstream in_;
  std::ostringstream out_;
  Console console_{.in = in_, .out = out_, .err = out_, .unicode = true, .width = 100};
};

std::vector<client::Node> Family() {
  std::vector<client::Node> nodes = {TestingNode("aaaa00001111"), TestingNode("bbbb00001111", "aaaa00001111", 128),
                                     TestingNode("cccc00001111", "aaaa00001111", 64, EdgeType::kCounterfactual),
                                     TestingNode("dddd00001111", "bbbb00001111", 128),
                                     TestingNode("eeee00001111", "bbbb00001111", 200, EdgeType::kMerge)};
  nodes[0].labels = {{"name", "opening"}};
  nodes[0].storage.added_bytes = 1'890'000;
  nodes[4].parents.push_back({.parent = "nodes/cccc00001111", .type = EdgeType::kMerge, .at_token = 64});
  nodes[4].text_tail = "日本語のテキストはとても長いので切られます。これは最後の部分です。";
  return nodes;
}

TEST_F(TreeViewTest, TreeWithBoxCharacters) {
  EXPECT_EQ(RenderTree(Family(), console_),
            "NODE            EDGE               TOKENS     SIZE  RATIO       ADDED  TEXT\n"
            "aaaa0000        root                  128  1.8 MiB  1.56x    +1.8 MiB  [name=opening] is Paris.\\nAnd\n"
            "├─ bbbb0000     continuation          128  1.8 MiB  1.56x  +302.7 KiB  is Paris.\\nAnd\n"
            "│  ├─ dddd0000  continuation          128  1.8 MiB  1.56x  +302.7 KiB  is Paris.\\nAnd\n"
            "│  └─ eeee0000  merge                 128  1.8 MiB  1.56x  +302.7 KiB  (and cccc0000) …の部分です。\n"
            "└─ cccc0000     counterfactual@64     128  1.8 MiB  1.56x  +302.7 KiB  is Paris.\\nAnd\n");
}

TEST_F(TreeViewTest, TreeInAscii) {
  console_.unicode = false;
  const std::string tree = RenderTree(Family(), console_);
  EXPECT_THAT(tree, HasSubstr("\n|- bbbb0000"));
  EXPECT_THAT(tree, HasSubstr("\n|  `- eeee0000"));
  EXPECT_THAT(tree, HasSubstr("\n`- cccc0000"));
  for (const char c : tree) EXPECT_LT(static_cast<unsigned char>(c), 0x80);
}

TEST_F(TreeViewTest, EveryLineFitsTheWidth) {
  for (const std::string& line :
       absl::StrSplit(RenderTree(Family(), console_), '\n').operator std::vector<std::string>()) {
    EXPECT_LE(DisplayWidth(line), 100) << line;
  }
}

TEST_F(TreeViewTest, ChildrenStandInOrderOfTime) {
  std::vector<client::Node> nodes = {TestingNode("aaaa"), TestingNode("bbbb", "aaaa"), TestingNode("cccc", "aaaa")};
  nodes[1].create_time += absl::Seconds(5);
  const std::string tree = RenderTree(nodes, console_);
  EXPECT_LT(tree.find("cccc"), tree.find("bbbb"));
}

TEST_F(TreeViewTest, NodeWhoseParentIsNotThereIsARoot) {
  EXPECT_THAT(RenderTree({TestingNode("bbbb", "gone")}, console_), HasSubstr("\nbbbb  continuation"));
}

TEST_F(TreeViewTest, LongChainIsNotIndentedOutOfSight) {
  std::vector<client::Node> nodes = {TestingNode("id10000")};
  for (int i = 10001; i < 15000; ++i) nodes.push_back(TestingNode(absl::StrCat("id", i), absl::StrCat("id", i - 1)));
  const std::string tree = RenderTree(nodes, console_);
  const std::vector<std::string> lines = absl::StrSplit(tree, '\n');
  ASSERT_EQ(lines.size(), 5002);
  EXPECT_THAT(lines[5000], ::testing::StartsWith("id14999  continuation"));
}

TEST_F(TreeViewTest, CircleOfEdgesEndsAndShowsEveryNodeOnce) {
  const std::string tree = RenderTree({TestingNode("aaaa", "bbbb"), TestingNode("bbbb", "aaaa")}, console_);
  EXPECT_THAT(tree, HasSubstr("aaaa"));
  EXPECT_THAT(tree, HasSubstr("└─ bbbb"));
  EXPECT_EQ(std::count(tree.begin(), tree.end(), '\n'), 3);
}

TEST_F(TreeViewTest, ShortIdsTellNodesApart) {
  EXPECT_THAT(ShortIds({TestingNode("aaaabbbbcc11"), TestingNode("aaaabbbbcc22")}),
              ElementsAre("aaaabbbbcc1", "aaaabbbbcc2"));
  EXPECT_THAT(ShortIds({TestingNode("aaaabbbbcccc"), TestingNode("ddddbbbbcccc")}),
              ElementsAre("aaaabbbb", "ddddbbbb"));
  EXPECT_THAT(ShortIds({TestingNode("abc")}), ElementsAre("abc"));
}

}  // namespace
}  // namespace quicksave::cli
