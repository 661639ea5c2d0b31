#include "storage/keys.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::storage {
namespace {

using testing::UnorderedElementsAre;

std::string Escaped(absl::string_view text) {
  std::string key;
  AppendEscaped(&key, text);
  return key;
}

std::string RandomText(std::mt19937* random) {
  std::string text;
  const char alphabet[] = {'\x00', '\x01', 'a', 'b', '\xff'};
  for (int i = (*random)() % 5; i > 0; --i) text.push_back(alphabet[(*random)() % 5]);
  return text;
}

TEST(KeysTest, EscapedStringsComeBack) {
  const std::string text("a\0\x01\xff\0", 5);
  const std::string key = Escaped(text) + "rest";
  absl::string_view rest = key;
  EXPECT_EQ(ConsumeEscaped(&rest), text);
  EXPECT_EQ(rest, "rest");
}

TEST(KeysTest, BrokenEscapesAreNoticed) {
  for (absl::string_view broken :
       {absl::string_view("abc"), absl::string_view("a\0", 2), absl::string_view("a\0b", 3)}) {
    absl::string_view rest = broken;
    EXPECT_EQ(ConsumeEscaped(&rest), std::nullopt);
    EXPECT_EQ(rest, broken);
  }
}

TEST(KeysTest, PairsOfEscapedStringsKeepTheirOrder) {
  std::mt19937 random(20261101);
  for (int i = 0; i < 20000; ++i) {
    const std::pair a(RandomText(&random), RandomText(&random));
    const std::pair b(RandomText(&random), RandomText(&random));
    EXPECT_EQ(a < b, Escaped(a.first) + Escaped(a.second) < Escaped(b.first) + Escaped(b.second));
  }
}

TEST(KeysTest, NoTenantIsThePrefixOfAnother) {
  EXPECT_NE(NodeKey("a", "bc"), NodeKey("ab", "c"));
  EXPECT_FALSE(absl::string_view(NodeKey("ab", "c")).substr(0, AllNodesPrefix("a").size() - 1) ==
               AllNodesPrefix("a").substr(1));
}

TEST(KeysTest, TimesBeforeAndAfterTheEpochKeepTheirOrder) {
  const int64_t times[] = {std::numeric_limits<int64_t>::min(), -2, -1, 0, 1, 255, 256, 1700000000000000,
                           std::numeric_limits<int64_t>::max()};
  for (size_t i = 1; i < std::size(times); ++i) EXPECT_LT(IndexTail(times[i - 1], "z"), IndexTail(times[i], "a"));
}

TEST(KeysTest, ReferenceKeysComeApart) {
  const BlockId id{std::string("\0\x01\xff\0 0123456789ab", 16), "codec"};
  const std::string block = BlockKey("tenant", "model", id);
  const std::string reference = ReferenceKey(block, "node");
  const auto entry = ParseReferenceKey(block);
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->block_key, block);
  EXPECT_EQ(entry->node_id, "");
  const auto parsed = ParseReferenceKey(reference);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->block_key, block);
  EXPECT_EQ(parsed->node_id, "node");
  EXPECT_FALSE(ParseReferenceKey("short").has_value());
}

TEST(KeysTest, EveryIndexKeyTellsItsNodeAndTenant) {
  NodeRecord record;
  record.set_tenant(std::string("t\0", 2));
  record.set_node_id("n");
  record.set_model_fingerprint("m");
  (*record.mutable_annotations()->mutable_labels())["k"] = std::string("\0v", 2);
  std::vector<std::string> keys = IndexKeys(record);
  record.add_parents()->set_node_id("p");
  for (const std::string& key : IndexKeys(record)) keys.push_back(key);
  // Its time has zeros, too.
  keys.push_back(BeginningPrefix(record.tenant(), "m", 0x00ff000100000000) + IndexTail(0, "n"));
  const std::vector<std::string> prefixes = IndexPrefixes(record.tenant());
  for (const std::string& key : keys) {
    EXPECT_EQ(IndexedNode(key), "n");
    EXPECT_EQ(IndexedTenant(key), record.tenant());
    EXPECT_EQ(std::count_if(prefixes.begin(), prefixes.end(),
                            [&](const std::string& prefix) { return key.compare(0, prefix.size(), prefix) == 0; }),
              1);
    EXPECT_EQ(IndexedNode(key.substr(0, key.size() - 1)), "");
  }
  EXPECT_EQ(IndexedNode(""), "");
  EXPECT_EQ(IndexedNode("x"), "");
  EXPECT_EQ(IndexedTenant("x"), std::nullopt);
}

TEST(KeysTest, EndOfAPrefixIsJustBehindIt) {
  EXPECT_EQ(PrefixEnd("ab"), "ac");
  EXPECT_EQ(PrefixEnd("a\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff\xff"), "");
  EXPECT_EQ(PrefixEnd(""), "");
}

TEST(KeysTest, ANodeStandsInTheIndexOfEachOfItsProperties) {
  NodeRecord record;
  record.set_tenant("t");
  record.set_node_id("n");
  record.set_model_fingerprint("m");
  record.set_create_time_us(5);
  (*record.mutable_annotations()->mutable_labels())["k"] = "v";
  const std::string tail = IndexTail(5, "n");
  EXPECT_THAT(IndexKeys(record), UnorderedElementsAre(AllNodesPrefix("t") + tail, ModelPrefix("t", "m") + tail,
                                                      RootsPrefix("t") + tail, LabelPrefix("t", "k", "v") + tail));
  record.add_parents()->set_node_id("p");
  EXPECT_THAT(IndexKeys(record),
              UnorderedElementsAre(AllNodesPrefix("t") + tail, ModelPrefix("t", "m") + tail,
                                   ChildrenByTimePrefix("t", "p") + tail, LabelPrefix("t", "k", "v") + tail));
}

}  // namespace
}  // namespace quicksave::storage
