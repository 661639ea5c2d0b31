// `quicksave ls`.

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/encoding_text.h"
#include "client/cli/flags.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"
#include "client/cli/tree_view.h"

namespace quicksave::cli {
namespace {

struct ListFlags {
  bool sessions = false;
  bool names_only = false;
  bool oldest_first = false;
  size_t limit = 100;
  std::vector<std::string> labels;
  std::string parent;
  bool roots = false;
};

std::string NodeTable(const std::vector<client::Node>& nodes, const Console& console) {
  constexpr auto kRight = TextTable::Align::kRight;
  TextTable table({{.title = "NODE", .style = Style::kYellow},
                   {.title = "TOKENS", .align = kRight},
                   {.title = "SIZE", .align = kRight},
                   {.title = "RATIO", .align = kRight},
                   {.title = "ADDED", .align = kRight, .style = Style::kGreen},
                   {.title = "SAVED"},
                   {.title = "LABELS"},
                   {.title = "TEXT"}},
                  TextTable::Cut::kStart);
  const std::vector<std::string> ids = ShortIds(nodes);
  const absl::Time now = console.now();
  for (size_t i = 0; i < nodes.size(); ++i) {
    const client::Node& node = nodes[i];
    const std::string labels = absl::StrJoin(node.labels, " ", absl::PairFormatter("="));
    table.AddRow({ids[i], HumanCount(node.token_count), HumanBytes(StoredBytes(node)), HumanRatio(StoredRatio(node)),
                  absl::StrCat("+", HumanBytes(node.storage.added_bytes)), HumanAge(node.create_time, now),
                  CutEnd(OneLine(labels, console.unicode), 24, console.unicode),
                  OneLine(node.text_tail, console.unicode)});
  }
  return table.Render(console);
}

template <typename Resources>
std::string Names(const Resources& resources) {
  std::string text;
  for (const auto& resource : resources) absl::StrAppend(&text, resource.name, "\n");
  return text;
}

absl::Status ListSessions(const ListFlags& flags, CommandContext& context) {
  const Console& console = context.console;
  const auto sessions = ListAllSessions(context, flags.limit);
  if (!sessions.ok()) return sessions.status();
  if (console.json) {
    Json json = Json::object();
    json["sessions"] = ToJsonArray(*sessions);
    console.out << Document(json);
  } else {
    console.out << (flags.names_only ? Names(*sessions) : SessionTable(*sessions, console));
  }
  return absl::OkStatus();
}

absl::Status ListNodes(const ListFlags& flags, CommandContext& context) {
  const Console& console = context.console;
  const auto labels = ParsePairs(flags.labels, "--label");
  if (!labels.ok()) return labels.status();
  client::ListNodesRequest request{.filter = {.labels = *labels, .roots_only = flags.roots},
                                   .newest_first = !flags.oldest_first};
  if (!flags.parent.empty()) {
    const auto parent = ResolveNode(context, flags.parent);
    if (!parent.ok()) return parent.status();
    request.filter.parent = *parent;
  }
  const auto all = ListAllNodes(context, request, flags.limit);
  if (!all.ok()) return all.status();
  if (console.json) {
    Json json = Json::object();
    json["nodes"] = ToJsonArray(all->nodes);
    json["unreadable"] = all->unreadable;
    console.out << Document(json);
    return absl::OkStatus();
  }
  console.out << (flags.names_only ? Names(all->nodes) : NodeTable(all->nodes, console));
  if (!all->unreadable.empty()) console.Warn(UnreadableLine(all->unreadable));
  if (flags.limit != 0 && all->nodes.size() == flags.limit) {
    console.Note(absl::StrCat("at most ", flags.limit, " are shown; --limit 0 shows all"));
  }
  return absl::OkStatus();
}

}  // namespace

void AddListCommands(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("ls", "List nodes, or live sessions");
  command->footer(
      "Examples:\n  quicksave ls --label name=opening\n  quicksave ls --sessions\n"
      "  quicksave ls --quiet --names | xargs quicksave rm --force");
  const auto flags = std::make_shared<ListFlags>();
  auto* sessions = command->add_flag("--sessions", flags->sessions, "List live sessions, oldest first");
  command->add_option("--label", flags->labels, "Only nodes with this label, KEY=VALUE; may be repeated")
      ->allow_extra_args(false)
      ->excludes(sessions);
  command->add_option("--parent", flags->parent, "Only children of this node")->excludes(sessions);
  command->add_flag("--roots", flags->roots, "Only nodes without parents")->excludes(sessions);
  command->add_flag("--oldest", flags->oldest_first, "Oldest first (default: newest first)")->excludes(sessions);
  command->add_option("--limit", flags->limit, "Most to show; 0 shows all")->capture_default_str();
  command->add_flag("--names", flags->names_only, "Print full names only, one a line");
  command->callback([flags, chosen] {
    *chosen = [flags](CommandContext& context) {
      return flags->sessions ? ListSessions(*flags, context) : ListNodes(*flags, context);
    };
  });
}

}  // namespace quicksave::cli
