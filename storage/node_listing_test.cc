#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NodeListingTest : public StoreTest {
 protected:
  NodeListingTest() { request_.tenant = kTenant; }

  std::vector<std::string> List() {
    std::vector<std::string> ids;
    absl::StatusOr<NodePage> page = store_->ListNodes(request_);
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) return ids;
    for (const NodeRecord& record : page->nodes) ids.push_back(record.node_id());
    request_.page_token = page->next_page_token;
    return ids;
  }

  void Label(const std::string& node_id, const std::string& key, const std::string& value) {
    ASSERT_TRUE(store_
                    ->UpdateNode(kTenant, node_id, {},
                                 [&](NodeAnnotations& a) {
                                   (*a.mutable_labels())[key] = value;
                                   return absl::OkStatus();
                                 })
                    .ok());
  }

  ListRequest request_;
};

TEST_F(NodeListingTest, PagesFollowCreationInBothOrders) {
  for (const char* id : {"e", "b", "d", "a", "c"}) Commit(id, {}, {1});
  request_.page_size = 2;
  EXPECT_THAT(List(), ElementsAre("e", "b"));
  EXPECT_THAT(List(), ElementsAre("d", "a"));
  EXPECT_THAT(List(), ElementsAre("c"));
  EXPECT_EQ(request_.page_token, "");
  request_.order = ListOrder::kNewestFirst;
  EXPECT_THAT(List(), ElementsAre("c", "a"));
  EXPECT_THAT(List(), ElementsAre("d", "b"));
  EXPECT_THAT(List(), ElementsAre("e"));
  EXPECT_EQ(request_.page_token, "");
}

TEST_F(NodeListingTest, RecordsComeWithoutContents) {
  Commit("node", {}, {1});
  EXPECT_FALSE(store_->ListNodes(request_)->nodes[0].has_contents());
  EXPECT_EQ(store_->ListNodes(request_)->nodes[0].block_count(), 1u);
}

TEST_F(NodeListingTest, EveryFilterChoosesItsNodes) {
  Commit("root-1", {}, {1});
  Commit("child-1", {"root-1"}, {1, 2});
  NodeCommit other_model = TestCommit("root-2", {}, {1});
  other_model.record.set_model_fingerprint("other");
  ASSERT_TRUE(store_->CommitNode(other_model).ok());
  Commit("child-2", {"root-1"}, {1, 3});
  Commit("merged", {"root-2", "child-2"}, {4});
  Label("child-1", "kind", "good");
  Label("merged", "kind", "good");
  request_.filter.roots_only = true;
  EXPECT_THAT(List(), ElementsAre("root-1", "root-2"));
  request_.filter.model_fingerprint = kModel;
  EXPECT_THAT(List(), ElementsAre("root-1"));
  request_.filter.roots_only = false;
  EXPECT_THAT(List(), ElementsAre("root-1", "child-1", "child-2", "merged"));
  request_.filter.labels = {{"kind", "good"}};
  EXPECT_THAT(List(), ElementsAre("child-1", "merged"));
  request_.filter.labels = {{"kind", "good"}, {"name", "merged"}};
  EXPECT_THAT(List(), ElementsAre("merged"));
  request_.filter = {};
  request_.filter.parent = "root-1";
  EXPECT_THAT(List(), ElementsAre("child-1", "child-2"));
  request_.filter.labels = {{"kind", "good"}};
  EXPECT_THAT(List(), ElementsAre("child-1"));
  request_.filter.parent = "nobody";
  EXPECT_THAT(List(), IsEmpty());
  request_.tenant = "other";
  request_.filter = {};
  EXPECT_THAT(List(), IsEmpty());
}

TEST_F(NodeListingTest, LabelThatBeginsLikeAnotherIsAnother) {
  Commit("a", {}, {1});
  Commit("b", {}, {1});
  Label("a", "k", "v");
  Label("b", "k", "vv");
  request_.filter.labels = {{"k", "v"}};
  EXPECT_THAT(List(), ElementsAre("a"));
}

TEST_F(NodeListingTest, CreationRangeIncludesItsBeginAndNotItsEnd) {
  absl::Time now = absl::FromUnixSeconds(0);
  options_.clock = [&] { return now += absl::Seconds(10); };
  Reopen();
  for (const char* id : {"a", "b", "c", "d"}) Commit(id, {}, {1});
  request_.filter.created_from = absl::FromUnixSeconds(20);
  request_.filter.created_before = absl::FromUnixSeconds(40);
  EXPECT_THAT(List(), ElementsAre("b", "c"));
  request_.order = ListOrder::kNewestFirst;
  EXPECT_THAT(List(), ElementsAre("c", "b"));
  request_.filter.created_from += absl::Nanoseconds(1);
  EXPECT_THAT(List(), ElementsAre("c"));
}

TEST_F(NodeListingTest, PagingSeesLastingNodesOnceWhileOthersComeAndGo) {
  for (auto order : {ListOrder::kOldestFirst, ListOrder::kNewestFirst}) {
    SCOPED_TRACE(order == ListOrder::kOldestFirst ? "oldest first" : "newest first");
    const std::string run = order == ListOrder::kOldestFirst ? "o" : "n";
    std::set<std::string> lasting;
    for (int i = 0; i < 20; ++i) {
      lasting.insert(absl::StrCat(run, "-keep-", i));
      Commit(absl::StrCat(run, "-keep-", i), {}, {1});
      Commit(absl::StrCat(run, "-drop-", i), {}, {1});
    }
    request_.order = order;
    request_.page_size = 3;
    request_.page_token.clear();
    std::multiset<std::string> seen;
    int page = 0;
    do {
      for (const std::string& id : List()) seen.insert(id);
      Commit(absl::StrCat(run, "-new-", page), {}, {1});
      if (page < 20) {
        ASSERT_TRUE(store_->DeleteNode(kTenant, absl::StrCat(run, "-drop-", page)).ok());
      }
      ++page;
    } while (!request_.page_token.empty() && page < 100);
    for (const std::string& id : lasting) EXPECT_EQ(seen.count(id), 1u) << id;
    for (const std::string& id : seen) EXPECT_EQ(seen.count(id), 1u) << id;
  }
}

TEST_F(NodeListingTest, PageTokenOfAnotherRequestIsRefused) {
  for (const char* id : {"a", "b", "c"}) Commit(id, {}, {1});
  request_.page_size = 1;
  List();
  ASSERT_NE(request_.page_token, "");
  ListRequest other = request_;
  other.order = ListOrder::kNewestFirst;
  EXPECT_EQ(store_->ListNodes(other).status().code(), absl::StatusCode::kInvalidArgument);
  other = request_;
  other.filter.roots_only = true;
  EXPECT_EQ(store_->ListNodes(other).status().code(), absl::StatusCode::kInvalidArgument);
  other = request_;
  other.page_token = "nonsense";
  EXPECT_EQ(store_->ListNodes(other).status().code(), absl::StatusCode::kInvalidArgument);
  other = request_;
  other.page_size = 2;
  EXPECT_EQ(store_->ListNodes(other)->nodes.size(), 2u);
}

TEST_F(NodeListingTest, OrderOfTheLabelsDoesNotMatter) {
  for (const char* id : {"a", "b", "c"}) {
    Commit(id, {}, {1});
    Label(id, "k", "1");
    Label(id, "l", "2");
  }
  request_.page_size = 1;
  request_.filter.labels = {{"l", "2"}, {"k", "1"}};
  EXPECT_THAT(List(), ElementsAre("a"));
  request_.filter.labels = {{"k", "1"}, {"l", "2"}};
  EXPECT_THAT(List(), ElementsAre("b"));
}

TEST_F(NodeListingTest, PageSizeHasLimits) {
  for (int size : {-1, 0, 1001}) {
    request_.page_size = size;
    EXPECT_EQ(store_->ListNodes(request_).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

}  // namespace
}  // namespace quicksave::storage
