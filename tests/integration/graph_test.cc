// The thought graph: reading, filtering, paging, annotating, walking, deleting, verifying.

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

using Labels = std::map<std::string, std::string>;

SharedServer* const kServer = SharedServer::Register({"--durability=process"});
const client::Client& Client() { return kServer->client(); }

std::vector<std::string> Names(const std::vector<client::Node>& nodes) {
  std::vector<std::string> names;
  names.reserve(nodes.size());
  for (const client::Node& node : nodes) names.push_back(node.name);
  return names;
}

// Each test has a store of its own making: a tree
//   root - left - leaf_a
//        |      ` leaf_b
//        ` right
// and `lone`, another root.
class GraphTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = Save({.input = std::string("Once upon a time"), .save = Labelled("tree", "root")});
    left_ = Save({.start = From(root_), .input = std::string(" left"), .save = Labelled("tree", "left")});
    right_ = Save({.start = From(root_), .input = std::string(" right"), .save = Labelled("tree", "right")});
    leaf_a_ = Save({.start = From(left_), .input = std::string(" a"), .save = Labelled("tree", "leaf")});
    leaf_b_ = Save({.start = From(left_), .input = std::string(" b"), .save = Labelled("tree", "leaf")});
    lone_ = Save({.input = std::string("Another beginning"), .save = Labelled("lone", "root")});
  }

  void TearDown() override {
    for (const std::string& name : {root_, lone_}) {
      const absl::Status deleted = ErrorOf(Client().DeleteNode({.name = name, .force = true}));
      EXPECT_TRUE(deleted.ok() || absl::IsNotFound(deleted)) << deleted;
    }
    EXPECT_TRUE(Client().CollectGarbage().ok());
    const client::ServerStatus status = Client().GetStatus().value();
    EXPECT_EQ(status.store.nodes, 0);
    EXPECT_EQ(status.store.blocks, 0);
  }

  static client::FromNode From(const std::string& name) { return client::FromNode{.name = name}; }
  static client::SaveOptions Labelled(const std::string& tree, const std::string& kind) {
    return {.labels = {{"tree", tree}, {"kind", kind}}};
  }
  static std::string Save(client::GenerateRequest request) {
    request.stop.max_tokens = 0;
    const absl::StatusOr<Generation> saved = Generate(Client(), request);
    EXPECT_TRUE(saved.ok()) << saved.status();
    return saved.ok() ? saved->saved.at(0).node.name : "";
  }
  static client::Node Get(const std::string& name) {
    return Client().GetNode({.name = name, .view = client::View::kFull}).value();
  }

  std::string root_, left_, right_, leaf_a_, leaf_b_, lone_;
};

TEST_F(GraphTest, NodeTellsWhatItIs) {
  const client::Node node = Get(leaf_a_);
  const client::Node basic = Client().GetNode({.name = leaf_a_}).value();
  EXPECT_EQ(node.text, "Once upon a time left a");
  EXPECT_THAT(node.text, EndsWith(node.text_tail));
  EXPECT_THAT(node.text_tail, EndsWith("left a"));
  EXPECT_EQ(node.token_count, static_cast<int32_t>(node.token_ids.size()));
  EXPECT_EQ(node.model_fingerprint, Client().GetStatus()->model.fingerprint);
  EXPECT_THAT(node.lacks, IsEmpty());
  ASSERT_THAT(node.parents, SizeIs(1));
  EXPECT_EQ(node.parents[0], (client::Edge{left_, client::EdgeType::kContinuation, Get(left_).token_count}));
  EXPECT_THAT(node.blocks, SizeIs(node.storage.blocks));
  EXPECT_THAT(basic.token_ids, IsEmpty());
  EXPECT_THAT(basic.text, IsEmpty());
  EXPECT_THAT(basic.blocks, IsEmpty());
  EXPECT_EQ(basic.text_tail, node.text_tail);
  EXPECT_LT(absl::Now() - node.create_time, absl::Minutes(5));
  EXPECT_GT(absl::Now() + absl::Minutes(1), node.create_time);
}

TEST_F(GraphTest, ListsInOrderOfTime) {
  EXPECT_THAT(Names(Client().ListNodes()->nodes), ElementsAre(root_, left_, right_, leaf_a_, leaf_b_, lone_));
  EXPECT_THAT(Names(Client().ListNodes({.newest_first = true})->nodes),
              ElementsAre(lone_, leaf_b_, leaf_a_, right_, left_, root_));
}

TEST_F(GraphTest, FiltersHoldTogether) {
  const auto list = [](const client::NodeFilter& filter) {
    return Names(Client().ListNodes({.filter = filter})->nodes);
  };
  EXPECT_THAT(list({.labels = {{"kind", "root"}}}), ElementsAre(root_, lone_));
  EXPECT_THAT(list({.labels = {{"kind", "root"}, {"tree", "lone"}}}), ElementsAre(lone_));
  EXPECT_THAT(list({.labels = {{"kind", "roo"}}}), IsEmpty());
  EXPECT_THAT(list({.labels = {{"none", ""}}}), IsEmpty());
  EXPECT_THAT(list({.parent = left_}), ElementsAre(leaf_a_, leaf_b_));
  EXPECT_THAT(list({.labels = {{"kind", "left"}}, .parent = root_}), ElementsAre(left_));
  EXPECT_THAT(list({.parent = leaf_a_}), IsEmpty());
  EXPECT_THAT(list({.roots_only = true}), ElementsAre(root_, lone_));
  EXPECT_THAT(list({.labels = {{"tree", "tree"}}, .roots_only = true}), ElementsAre(root_));
  EXPECT_THAT(list({.model_fingerprint = Get(root_).model_fingerprint}), SizeIs(6));
  EXPECT_THAT(list({.model_fingerprint = "0123456789abcdef"}), IsEmpty());
  const absl::Time middle = Get(leaf_a_).create_time;
  EXPECT_THAT(list({.created_from = middle}), ElementsAre(leaf_a_, leaf_b_, lone_));
  EXPECT_THAT(list({.created_before = middle}), ElementsAre(root_, left_, right_));
  EXPECT_THAT(list({.roots_only = true, .created_from = middle}), ElementsAre(lone_));
}

TEST_F(GraphTest, PagesCoverEverythingOnce) {
  for (const bool newest_first : {false, true}) {
    for (const int size : {1, 2, 5, 6, 7}) {
      client::ListNodesRequest request{.newest_first = newest_first, .page_size = size};
      std::vector<std::string> names;
      do {
        QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ListNodesResponse page, Client().ListNodes(request));
        EXPECT_LE(page.nodes.size(), static_cast<size_t>(size));
        for (const std::string& name : Names(page.nodes)) names.push_back(name);
        request.page_token = page.next_page_token;
      } while (!request.page_token.empty() && names.size() < 20);
      EXPECT_THAT(names, SizeIs(6)) << "page size " << size;
      EXPECT_THAT(std::set<std::string>(names.begin(), names.end()), SizeIs(6));
    }
  }
  const std::string token = Client().ListNodes({.page_size = 2})->next_page_token;
  for (const client::ListNodesRequest& wrong :
       std::vector<client::ListNodesRequest>{{.page_token = "rubbish"},
                                             {.filter = {.roots_only = true}, .page_token = token},
                                             {.page_size = -1},
                                             {.page_size = 1001}}) {
    const absl::Status refused = ErrorOf(Client().ListNodes(wrong));
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  }
}

TEST_F(GraphTest, UpdatesWhatTheMaskNames) {
  const client::Node before = Get(root_);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node first,
                                 Client().UpdateNode({.name = root_,
                                                      .labels = {{"new", "label"}},
                                                      .rewards = {{"correct", 1.0}, {"length", -2.5}},
                                                      .note = "seen",
                                                      .update_mask = {"labels", "rewards", "note"}}));
  EXPECT_EQ(first.labels, (Labels{{"new", "label"}}));
  EXPECT_EQ(first.rewards, (std::map<std::string, double>{{"correct", 1.0}, {"length", -2.5}}));
  EXPECT_EQ(first.note, "seen");
  EXPECT_NE(first.etag, before.etag);
  EXPECT_GE(first.update_time, before.update_time);
  EXPECT_EQ(first.create_time, before.create_time);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::Node second,
      Client().UpdateNode({.name = root_,
                           .labels = {{"kind", "x"}, {"ignored", "y"}},
                           .rewards = {{"extra", 3}},
                           .note = "ignored",
                           .etag = first.etag,
                           .update_mask = {"labels.kind", "labels.new", "rewards.correct"}}));
  EXPECT_EQ(second.labels, (Labels{{"kind", "x"}}));
  EXPECT_EQ(second.rewards, (std::map<std::string, double>{{"length", -2.5}}));
  EXPECT_EQ(second.note, "seen");
  // The index follows.
  EXPECT_THAT(Names(Client().ListNodes({.filter = {.labels = {{"kind", "x"}}}})->nodes), ElementsAre(root_));
  EXPECT_THAT(Names(Client().ListNodes({.filter = {.labels = {{"kind", "root"}}}})->nodes), ElementsAre(lone_));
  EXPECT_EQ(Get(root_).token_ids, before.token_ids);
}

TEST_F(GraphTest, OldEtagLosesTheRace) {
  const std::string etag = Get(lone_).etag;
  ASSERT_TRUE(Client().UpdateNode({.name = lone_, .note = "1", .etag = etag, .update_mask = {"note"}}).ok());
  const absl::Status update =
      ErrorOf(Client().UpdateNode({.name = lone_, .note = "2", .etag = etag, .update_mask = {"note"}}));
  EXPECT_TRUE(absl::IsAborted(update)) << update;
  const absl::Status deleted = ErrorOf(Client().DeleteNode({.name = lone_, .etag = etag}));
  EXPECT_TRUE(absl::IsAborted(deleted)) << deleted;
  EXPECT_EQ(Get(lone_).note, "1");
  EXPECT_TRUE(Client().DeleteNode({.name = lone_, .etag = Get(lone_).etag}).ok());
}

TEST_F(GraphTest, RefusesAnnotationsBeyondTheLimits) {
  const auto refused = [&](client::UpdateNodeRequest request) {
    request.name = root_;
    const absl::Status status = ErrorOf(Client().UpdateNode(std::move(request)));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  Labels many;
  std::map<std::string, double> rewards;
  for (int i = 0; i < 65; i++) {
    many[absl::StrCat("k", i)] = "";
    rewards[absl::StrCat("k", i)] = i;
  }
  EXPECT_THAT(refused({.labels = many, .update_mask = {"labels"}}), testing::HasSubstr("64"));
  EXPECT_THAT(refused({.rewards = rewards, .update_mask = {"rewards"}}), testing::HasSubstr("64"));
  EXPECT_THAT(refused({.labels = {{"", "x"}}, .update_mask = {"labels"}}), testing::HasSubstr("63"));
  EXPECT_THAT(refused({.labels = {{std::string(64, 'k'), ""}}, .update_mask = {"labels"}}), testing::HasSubstr("63"));
  EXPECT_THAT(refused({.labels = {{"k", std::string(256, 'v')}}, .update_mask = {"labels"}}),
              testing::HasSubstr("255"));
  EXPECT_THAT(refused({.note = std::string(65537, 'n'), .update_mask = {"note"}}), testing::HasSubstr("note"));
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(refused({.rewards = {{"r", bad}}, .update_mask = {"rewards"}}), testing::HasSubstr("finite"));
  }
  EXPECT_THAT(refused({.update_mask = {"token_ids"}}), testing::HasSubstr("token_ids"));
  EXPECT_THAT(refused({.update_mask = {}}), testing::HasSubstr("update_mask"));
  EXPECT_EQ(Get(root_).labels.size(), 2u);
  // The limits themselves are allowed.
  EXPECT_TRUE(Client()
                  .UpdateNode({.name = root_,
                               .labels = {{std::string(63, 'k'), std::string(255, 'v')}},
                               .note = std::string(65536, 'n'),
                               .update_mask = {"labels", "note"}})
                  .ok());
}

TEST_F(GraphTest, TraversesInEveryDirection) {
  const auto walk = [](const client::TraverseRequest& request) { return Names(Client().Traverse(request)->nodes); };
  EXPECT_THAT(walk({.node = leaf_b_}), ElementsAre(leaf_b_, left_, root_));
  EXPECT_THAT(walk({.node = leaf_b_, .max_depth = 1}), ElementsAre(leaf_b_, left_));
  // Breadth first: the root, its children in any order, their children.
  const std::vector<std::string> all = walk({.node = root_, .direction = client::TraverseDirection::kDescendants});
  ASSERT_THAT(all, SizeIs(5));
  EXPECT_EQ(all[0], root_);
  EXPECT_THAT(std::vector<std::string>(all.begin() + 1, all.begin() + 3), UnorderedElementsAre(left_, right_));
  EXPECT_THAT(std::vector<std::string>(all.begin() + 3, all.end()), UnorderedElementsAre(leaf_a_, leaf_b_));
  EXPECT_THAT(walk({.node = root_, .direction = client::TraverseDirection::kDescendants, .max_depth = 1}),
              UnorderedElementsAre(root_, left_, right_));
  const std::vector<std::string> frontier = walk({.node = root_, .direction = client::TraverseDirection::kFrontier});
  EXPECT_THAT(std::set<std::string>(frontier.begin(), frontier.end()),
              testing::IsSupersetOf({right_, leaf_a_, leaf_b_}));
  EXPECT_THAT(frontier, testing::Not(testing::Contains(left_)));
  EXPECT_THAT(walk({.node = lone_, .direction = client::TraverseDirection::kDescendants}), ElementsAre(lone_));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::TraverseResponse cut,
      Client().Traverse({.node = root_, .direction = client::TraverseDirection::kDescendants, .max_nodes = 3}));
  EXPECT_TRUE(cut.truncated);
  EXPECT_THAT(cut.nodes, SizeIs(3));
  EXPECT_FALSE(Client().Traverse({.node = leaf_b_})->truncated);
}

TEST_F(GraphTest, ChildrenBlockDeletionUnlessForced) {
  const absl::Status blocked = ErrorOf(Client().DeleteNode({.name = left_}));
  EXPECT_TRUE(absl::IsFailedPrecondition(blocked)) << blocked;
  EXPECT_THAT(std::string(blocked.message()), testing::HasSubstr(left_.substr(std::string("nodes/").size())));
  EXPECT_EQ(Client().DeleteNode({.name = left_, .force = true})->deleted_nodes, 3);
  EXPECT_THAT(Names(Client().ListNodes()->nodes), ElementsAre(root_, right_, lone_));
  EXPECT_TRUE(absl::IsNotFound(Client().Restore({.node = leaf_a_}).status()));
  // What the others share with the deleted ones stays.
  ASSERT_TRUE(Client().CollectGarbage().ok());
  EXPECT_TRUE(Client().VerifyNode({.name = right_, .replay = true}).ok());
  EXPECT_EQ(Client().DeleteNode({.name = right_})->deleted_nodes, 1);
  EXPECT_TRUE(absl::IsNotFound(Client().DeleteNode({.name = right_}).status()));
}

TEST_F(GraphTest, SessionOutlivesItsNode) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, Client().Restore({.node = lone_}));
  ASSERT_TRUE(Client().DeleteNode({.name = lone_}).ok());
  ASSERT_TRUE(Client().CollectGarbage().ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more, GoOn(Client(), client::FromSession{restored.session.name}, 2));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, Client().Snapshot({.session = restored.session.name}));
  EXPECT_TRUE(Client().VerifyNode({.name = saved.node.name, .replay = true}).ok());
  lone_ = saved.node.name;
  ASSERT_TRUE(Client().DeleteSession({.name = restored.session.name}).ok());
}

TEST_F(GraphTest, VerifyReadsAndReplays) {
  const client::Node node = Get(leaf_a_);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse read, Client().VerifyNode({.name = leaf_a_}));
  EXPECT_EQ(read.blocks_checked, node.storage.blocks);
  EXPECT_GE(read.bytes_read, node.storage.stored_bytes);
  EXPECT_EQ(read.tokens_replayed, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse replayed,
                                 Client().VerifyNode({.name = leaf_a_, .replay = true}));
  EXPECT_EQ(replayed.tokens_replayed, node.token_count);
}

}  // namespace
}  // namespace quicksave::integration
