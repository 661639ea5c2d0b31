// `quicksave tree`.

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/tree_view.h"

namespace quicksave::cli {
namespace {

struct TreeFlags {
  std::string node;
  bool ancestors = false;
  int32_t depth = 0;
  int32_t limit = 1000;
};

// The nodes to draw, whether there are more, and names of damaged ones.
struct Found {
  std::vector<client::Node> nodes;
  bool truncated = false;
  std::vector<std::string> unreadable;
};

absl::StatusOr<Found> Collect(const TreeFlags& flags, CommandContext& context) {
  if (flags.node.empty()) {
    auto all = ListAllNodes(context, {.newest_first = true}, flags.limit);
    if (!all.ok()) return all.status();
    const bool truncated = all->nodes.size() == static_cast<size_t>(flags.limit);
    return Found{.nodes = std::move(all->nodes), .truncated = truncated, .unreadable = std::move(all->unreadable)};
  }
  const absl::StatusOr<std::string> node = ResolveNode(context, flags.node);
  if (!node.ok()) return node.status();
  auto walked = context.client.Traverse(
      {.node = *node,
       .direction = flags.ancestors ? client::TraverseDirection::kAncestors : client::TraverseDirection::kDescendants,
       .max_depth = flags.depth,
       .max_nodes = flags.limit},
      context.Call());
  if (!walked.ok()) return walked.status();
  return Found{.nodes = std::move(walked->nodes), .truncated = walked->truncated};
}

absl::Status Tree(const TreeFlags& flags, CommandContext& context) {
  const Console& console = context.console;
  const auto found = Collect(flags, context);
  if (!found.ok()) return found.status();
  if (console.json) {
    Json json = Json::object();
    json["nodes"] = ToJsonArray(found->nodes);
    json["truncated"] = found->truncated;
    // A walk from a node does not report damaged ones.
    if (flags.node.empty()) json["unreadable"] = found->unreadable;
    console.out << Document(json);
    return absl::OkStatus();
  }
  console.out << RenderTree(found->nodes, console);
  if (!found->unreadable.empty()) console.Warn(UnreadableLine(found->unreadable));
  int64_t added = 0;
  for (const client::Node& node : found->nodes) added += node.storage.added_bytes;
  console.Note(absl::StrCat(found->nodes.size(), " nodes, ", HumanBytes(added), " stored for them",
                            found->truncated ? "; there may be more, see --limit" : ""));
  return absl::OkStatus();
}

}  // namespace

void AddTreeCommand(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("tree", "Draw the thought graph as a tree");
  command->footer("Examples:\n  quicksave tree\n  quicksave tree 7f3a --depth 2\n  quicksave tree 7f3a --ancestors");
  const auto flags = std::make_shared<TreeFlags>();
  auto* node = command->add_option("NODE", flags->node, "Draw this node and its descendants (default: all nodes)");
  command->add_flag("--ancestors", flags->ancestors, "Draw the ancestors instead of the descendants")->needs(node);
  command->add_option("--depth", flags->depth, "Most edges to follow; 0 follows all")->needs(node);
  command->add_option("--limit", flags->limit, "Most nodes to draw")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Tree(*flags, context); }; });
}

}  // namespace quicksave::cli
