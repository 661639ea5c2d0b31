// `quicksave show`, `label`, `rm` and `verify`.

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/cli/encoding_text.h"
#include "client/cli/flags.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

std::string ParentsText(const client::Node& node) {
  if (node.parents.empty()) return "- (root)";
  return absl::StrJoin(node.parents, ", ", [](std::string* out, const client::Edge& edge) {
    absl::StrAppend(out, edge.parent, " (", EdgeTypeName(edge.type), " at token ", edge.at_token, ")");
  });
}

std::string TextOf(const std::string& text, const std::string& tail, const Console& console) {
  if (!text.empty()) return console.out_is_terminal ? WithoutControls(text) : text;
  return OneLine(tail, console.unicode);
}

std::string TapsText(const client::Taps& taps) {
  std::string text = absl::StrCat("layers ", absl::StrJoin(taps.spec.layers, ","), " of ", taps.token_count,
                                  " tokens from ", taps.first_token, ", ", HumanBytes(taps.bytes));
  if (taps.stored_bytes > 0) absl::StrAppend(&text, ", stored ", HumanBytes(taps.stored_bytes));
  return text;
}

std::string ConstraintText(const client::ActiveConstraint& constraint, const Console& console) {
  struct Definition {
    std::string operator()(std::monostate) const { return "of an unknown kind"; }
    std::string operator()(const client::JsonSchema& schema) const { return absl::StrCat("JSON schema ", schema.text); }
    std::string operator()(const client::Regex& regex) const { return absl::StrCat("regex ", regex.text); }
    std::string operator()(const client::Choices& choices) const {
      return absl::StrCat("one of ", absl::StrJoin(choices.texts, " | "));
    }
    std::string operator()(const client::LarkGrammar& grammar) const { return absl::StrCat("grammar ", grammar.text); }
  };
  return absl::StrCat("for ", constraint.token_count,
                      " tokens: ", OneLine(std::visit(Definition(), constraint.definition), console.unicode));
}

Fields NodeFields(const client::Node& node, const Console& console) {
  const client::Storage& storage = node.storage;
  const auto or_dash = [&console](const std::string& text) {
    return text.empty() ? "-" : OneLine(text, console.unicode);
  };
  const std::string stored =
      node.saved_dropped
          ? "- (the blocks as saved were dropped)"
          : absl::StrCat(HumanBytes(storage.stored_bytes), " of ", HumanBytes(storage.raw_bytes), " (", storage.codec,
                         ", ", HumanRatio(storage.ratio), ") in ", storage.blocks, " blocks");
  Fields fields = {
      {"node", node.name},
      {"tokens", HumanCount(node.token_count)},
      {"parents", ParentsText(node)},
      {"labels", or_dash(absl::StrJoin(node.labels, " ", absl::PairFormatter("=")))},
      {"rewards", or_dash(absl::StrJoin(node.rewards, " ", absl::PairFormatter("=")))},
      {"note", or_dash(node.note)},
      {"saved", absl::StrCat(HumanTime(node.create_time), " (", HumanAge(node.create_time, console.now()), ")")},
      {"stored", stored},
      {"added", HumanBytes(storage.added_bytes)},
      {"logits", HumanBytes(storage.logits_bytes)},
      {"sampling", SamplingText(node.sampling)},
      {"lacks", node.lacks.empty() ? "- (complete)" : absl::StrJoin(node.lacks, ", ")},
      {"model", node.model_fingerprint},
      {"etag", node.etag}};
  if (node.taps) fields.emplace_back("taps", TapsText(*node.taps));
  if (node.constraint) fields.emplace_back("constraint", ConstraintText(*node.constraint, console));
  for (size_t i = 0; i < node.encodings.size(); ++i) {
    fields.emplace_back(absl::StrCat("encoding ", i + 1), EncodingText(node.encodings[i]));
  }
  for (const client::Block& block : node.blocks) {
    fields.emplace_back(
        "block", absl::StrCat(block.id, "  tokens ", block.first_token, " to ", block.first_token + block.token_count,
                              "  ", HumanBytes(block.stored_bytes), " of ", HumanBytes(block.raw_bytes)));
  }
  fields.emplace_back("text", TextOf(node.text, node.text_tail, console));
  return fields;
}

Fields SessionFields(const client::Session& session, const Console& console) {
  Fields fields = {
      {"session", session.name},
      {"tokens", HumanCount(session.token_count)},
      {"node",
       session.node.empty() ? "-" : absl::StrCat(session.node, " (", session.node_token_count, " tokens of it)")},
      {"pages", HumanCount(session.pages)},
      {"sampling", SamplingText(session.sampling)},
      {"made", absl::StrCat(HumanTime(session.create_time), " (", HumanAge(session.create_time, console.now()), ")")},
      {"lease", absl::StrCat("to ", HumanTime(session.expire_time))},
      {"model", session.model_fingerprint}};
  if (session.taps) fields.emplace_back("taps", TapsText(*session.taps));
  if (session.constraint) fields.emplace_back("constraint", ConstraintText(*session.constraint, console));
  if (!session.text.empty()) fields.emplace_back("text", TextOf(session.text, "", console));
  return fields;
}

absl::Status Show(const std::string& name, bool full, CommandContext& context) {
  const Console& console = context.console;
  const auto start = ResolveStart(context, name);
  if (!start.ok()) return start.status();
  const client::View view = full ? client::View::kFull : client::View::kBasic;
  if (const auto* node_start = std::get_if<client::FromNode>(&*start)) {
    const auto node = context.client.GetNode({.name = node_start->name, .view = view}, context.Call());
    if (!node.ok()) return node.status();
    console.out << (console.json ? Document(ToJson(*node)) : RenderFields(NodeFields(*node, console), console));
    return absl::OkStatus();
  }
  const auto session =
      context.client.GetSession({.name = std::get<client::FromSession>(*start).name, .view = view}, context.Call());
  if (!session.ok()) return session.status();
  console.out << (console.json ? Document(ToJson(*session)) : RenderFields(SessionFields(*session, console), console));
  return absl::OkStatus();
}

struct RemoveFlags {
  std::vector<std::string> names;
  bool force = false;
};

// Removes one resource and returns how many nodes went.
absl::StatusOr<int32_t> RemoveOne(const std::string& name, bool force, CommandContext& context) {
  const auto start = ResolveStart(context, name);
  if (!start.ok()) return start.status();
  if (const auto* session = std::get_if<client::FromSession>(&*start)) {
    const absl::Status status = context.client.DeleteSession({.name = session->name}, context.Call());
    if (!status.ok()) return status;
    context.console.Note(absl::StrCat("ended ", session->name));
    return 0;
  }
  const std::string& node = std::get<client::FromNode>(*start).name;
  const auto deleted = context.client.DeleteNode({.name = node, .force = force}, context.Call());
  if (!deleted.ok()) {
    if (absl::IsFailedPrecondition(deleted.status()) && !force) {
      context.console.Note(absl::StrCat(node, ": --force deletes its descendants too"));
    }
    if (absl::IsDataLoss(deleted.status()) && !force) {
      context.console.Note(absl::StrCat(node, ": --force deletes it though it is damaged"));
    }
    return deleted.status();
  }
  context.console.Note(
      absl::StrCat("deleted ", node,
                   deleted->deleted_nodes > 1 ? absl::StrCat(" and ", deleted->deleted_nodes - 1, " below it") : ""));
  return deleted->deleted_nodes;
}

absl::Status Remove(const RemoveFlags& flags, CommandContext& context) {
  int32_t deleted = 0;
  for (const std::string& name : flags.names) {
    const absl::StatusOr<int32_t> one = RemoveOne(name, flags.force, context);
    if (!one.ok()) return one.status();
    deleted += *one;
  }
  if (context.console.json) {
    Json json = Json::object();
    json["deleted_nodes"] = deleted;
    context.console.out << Document(json);
  }
  return absl::OkStatus();
}

struct LabelFlags {
  std::string node;
  std::vector<std::string> changes;
  std::vector<std::string> rewards;
  std::optional<std::string> note;
  std::string etag;
};

absl::StatusOr<client::UpdateNodeRequest> MakeUpdate(const LabelFlags& flags) {
  client::UpdateNodeRequest request{.note = flags.note.value_or(""), .etag = flags.etag};
  if (flags.note) request.update_mask.emplace_back("note");
  std::vector<std::string> settings;
  for (const std::string& change : flags.changes) {
    if (change.size() > 1 && change.back() == '-' && change.find('=') == std::string::npos) {
      request.update_mask.push_back(absl::StrCat("labels.", absl::StripSuffix(change, "-")));
    } else {
      settings.push_back(change);
    }
  }
  absl::StatusOr<std::map<std::string, std::string>> labels = ParsePairs(settings, "label");
  if (!labels.ok()) return labels.status();
  for (const auto& [key, value] : *labels) request.update_mask.push_back(absl::StrCat("labels.", key));
  request.labels = *std::move(labels);
  const auto rewards = ParsePairs(flags.rewards, "--reward");
  if (!rewards.ok()) return rewards.status();
  for (const auto& [key, value] : *rewards) {
    if (!absl::SimpleAtod(value, &request.rewards[key])) {
      return absl::InvalidArgumentError(absl::StrCat("--reward: '", value, "' is no number"));
    }
    request.update_mask.push_back(absl::StrCat("rewards.", key));
  }
  if (request.update_mask.empty()) return absl::InvalidArgumentError("label: nothing to change; see --help");
  return request;
}

absl::Status Label(const LabelFlags& flags, CommandContext& context) {
  const Console& console = context.console;
  absl::StatusOr<client::UpdateNodeRequest> request = MakeUpdate(flags);
  if (!request.ok()) return request.status();
  const auto name = ResolveNode(context, flags.node);
  if (!name.ok()) return name.status();
  request->name = *name;
  const auto node = context.client.UpdateNode(*request, context.Call());
  if (!node.ok()) return node.status();
  console.out << (console.json ? Document(ToJson(*node)) : RenderFields(NodeFields(*node, console), console));
  return absl::OkStatus();
}

absl::Status Verify(const std::string& text, bool replay, CommandContext& context) {
  const Console& console = context.console;
  const auto name = ResolveNode(context, text);
  if (!name.ok()) return name.status();
  const auto verified = context.client.VerifyNode({.name = *name, .replay = replay}, context.Call());
  if (!verified.ok()) return verified.status();
  if (console.json) {
    console.out << Document(Json{{"name", *name},
                                 {"blocks_checked", verified->blocks_checked},
                                 {"bytes_read", verified->bytes_read},
                                 {"tokens_replayed", verified->tokens_replayed}});
    return absl::OkStatus();
  }
  console.out << *name << " is whole: " << verified->blocks_checked << " blocks, " << HumanBytes(verified->bytes_read)
              << " read and checked";
  if (replay) console.out << "; " << HumanCount(verified->tokens_replayed) << " tokens computed again, every bit equal";
  console.out << "\n";
  return absl::OkStatus();
}

void AddShow(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("show", "Show a node or a session");
  command->footer("Examples:\n  quicksave show 7f3a --full\n  quicksave show sessions/4be1 --json");
  const auto name = std::make_shared<std::string>();
  const auto full = std::make_shared<bool>(false);
  command->add_option("NAME", *name, "A node or a session")->required();
  command->add_flag("--full", *full, "With text, blocks and, with --json, token ids");
  command->callback([name, full, chosen] {
    *chosen = [name, full](CommandContext& context) { return Show(*name, *full, context); };
  });
}

void AddLabel(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("label", "Change labels, rewards or the note of a node");
  command->footer(
      "Examples:\n  quicksave label 7f3a name=opening draft-     (sets `name`, removes `draft`)\n"
      "  quicksave label 7f3a --reward correct=1 --note 'checked by hand'");
  const auto flags = std::make_shared<LabelFlags>();
  command->add_option("NODE", flags->node, "The node")->required();
  command->add_option("CHANGE", flags->changes, "KEY=VALUE sets a label, KEY- removes it");
  command->add_option("--reward", flags->rewards, "KEY=NUMBER; may be repeated")->allow_extra_args(false);
  command->add_option("--note", flags->note, "Free text");
  command->add_option("--etag", flags->etag, "Change only this version of the node");
  command->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Label(*flags, context); }; });
}

void AddRemove(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("rm", "Delete nodes, or end sessions");
  command->footer(
      "Examples:\n  quicksave rm 7f3a\n  quicksave rm nodes/7f3a9c21 --force\n  quicksave rm sessions/4be1");
  const auto flags = std::make_shared<RemoveFlags>();
  command->add_option("NAME", flags->names, "Nodes or sessions")->required();
  command->add_flag("--force", flags->force, "Delete the descendants of a node too, and what is damaged");
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Remove(*flags, context); }; });
}

void AddVerify(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("verify", "Check everything that is stored of a node");
  command->footer("Examples:\n  quicksave verify 7f3a\n  quicksave verify 7f3a --replay --timeout 10m");
  const auto name = std::make_shared<std::string>();
  const auto replay = std::make_shared<bool>(false);
  command->add_option("NODE", *name, "The node")->required();
  command->add_flag("--replay", *replay, "Also compute the state again and compare every bit");
  command->callback([name, replay, chosen] {
    *chosen = [name, replay](CommandContext& context) { return Verify(*name, *replay, context); };
  });
}

}  // namespace

void AddNodeCommands(CLI::App& app, CommandBody* chosen) {
  AddShow(app, chosen);
  AddLabel(app, chosen);
  AddRemove(app, chosen);
  AddVerify(app, chosen);
}

}  // namespace quicksave::cli
