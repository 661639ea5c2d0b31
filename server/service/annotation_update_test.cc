#include "server/service/annotation_update.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

google::protobuf::FieldMask MaskOf(const std::vector<std::string>& paths) {
  google::protobuf::FieldMask mask;
  for (const std::string& path : paths) mask.add_paths(path);
  return mask;
}

v1::Node NodeWithLabels(int count) {
  v1::Node node;
  for (int i = 0; i < count; ++i) (*node.mutable_labels())[absl::StrCat("k", i)] = "v";
  return node;
}

void ExpectRefused(const v1::Node& node, const std::vector<std::string>& paths, const std::string& message) {
  const absl::Status status = CheckUpdate(node, MaskOf(paths));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(AnnotationUpdateTest, MaskHasALimit) {
  const v1::Node node = NodeWithLabels(1);
  EXPECT_TRUE(CheckUpdate(node, MaskOf(std::vector<std::string>(256, "labels"))).ok());
  ExpectRefused(node, std::vector<std::string>(257, "labels"), "update_mask: has 257 paths, the limit is 256");
  ExpectRefused(node, {}, "update_mask: is empty");
  ExpectRefused(node, {"labels", "token_ids"}, "'token_ids' cannot be changed");
  ExpectRefused(node, {"labels."}, "'labels.' cannot be changed");
}

TEST(AnnotationUpdateTest, WhatIsGivenIsCheckedBeforeAnythingIsLocked) {
  ExpectRefused(NodeWithLabels(65), {"labels"}, "64");
  v1::Node node;
  (*node.mutable_rewards())["r"] = std::numeric_limits<double>::quiet_NaN();
  ExpectRefused(node, {"rewards"}, "finite");
  ExpectRefused(node, {"rewards.r"}, "finite");
  node.set_note(std::string(65537, 'n'));
  ExpectRefused(node, {"note"}, "note");
  node.set_note("\xff");
  ExpectRefused(node, {"note"}, "UTF-8");
}

TEST(AnnotationUpdateTest, WhatTheMaskDoesNotNameIsIgnored) {
  v1::Node node = NodeWithLabels(65);
  node.set_note("n");
  EXPECT_TRUE(CheckUpdate(node, MaskOf({"note", "labels.k1", "labels.absent"})).ok());
}

TEST(AnnotationUpdateTest, MapsAreReplacedAndEntriesAreSetOrRemoved) {
  storage::NodeAnnotations annotations;
  (*annotations.mutable_labels())["old"] = "1";
  (*annotations.mutable_labels())["kept"] = "2";
  (*annotations.mutable_rewards())["r"] = 3;
  annotations.set_note("before");
  v1::Node node = NodeWithLabels(2);
  node.set_note("after");
  ASSERT_TRUE(UpdateAnnotations(node, MaskOf({"labels.k0", "labels.old", "rewards"}), annotations).ok());
  EXPECT_THAT(annotations.labels(), UnorderedElementsAre(Pair("k0", "v"), Pair("kept", "2")));
  EXPECT_THAT(annotations.rewards(), UnorderedElementsAre());
  EXPECT_EQ(annotations.note(), "before");
  ASSERT_TRUE(UpdateAnnotations(node, MaskOf({"labels", "note"}), annotations).ok());
  EXPECT_THAT(annotations.labels(), UnorderedElementsAre(Pair("k0", "v"), Pair("k1", "v")));
  EXPECT_EQ(annotations.note(), "after");
}

}  // namespace
}  // namespace quicksave::server
