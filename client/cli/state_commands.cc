// `quicksave save`, `restore` and `branch`.

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

struct SaveCommandFlags {
  std::string session;
  SaveFlags save;
};

absl::Status Save(const SaveCommandFlags& flags, CommandContext& context) {
  Console& console = context.console;
  const absl::StatusOr<std::string> session = ResolveSession(context, flags.session);
  if (!session.ok()) return session.status();
  const absl::StatusOr<client::SaveOptions> options = flags.save.Options();
  if (!options.ok()) return options.status();
  const auto saved = context.client.Snapshot({.session = *session, .save = *options}, context.Call());
  if (!saved.ok()) return saved.status();
  if (console.json) {
    console.out << Document(ToJson(*saved));
    return absl::OkStatus();
  }
  const client::SaveReport& report = saved->report;
  const client::Storage& storage = saved->node.storage;
  console.out << RenderFields(
      {{"node", saved->node.name},
       {"tokens", HumanCount(saved->node.token_count)},
       {"stored", absl::StrCat(HumanBytes(storage.stored_bytes), " of ", HumanBytes(storage.raw_bytes), " (",
                               storage.codec, ", ", HumanRatio(storage.ratio), ")")},
       {"added", absl::StrCat(HumanBytes(storage.added_bytes), ": ", report.new_blocks, " new blocks, ",
                              report.shared_blocks, " shared")},
       {"time", absl::StrCat(HumanDuration(report.total), ": gather ", HumanDuration(report.gather), ", encode ",
                             HumanDuration(report.encode), ", commit ", HumanDuration(report.commit))}},
      console);
  return absl::OkStatus();
}

struct RestoreFlags {
  client::RestoreRequest request;
};

absl::Status Restore(const RestoreFlags& flags, CommandContext& context) {
  Console& console = context.console;
  client::RestoreRequest request = flags.request;
  const absl::StatusOr<std::string> node = ResolveNode(context, request.node);
  if (!node.ok()) return node.status();
  request.node = *node;
  const auto restored = context.client.Restore(request, context.Call());
  if (!restored.ok()) return restored.status();
  if (console.json) {
    Json json = Json::object();
    json["session"] = ToJson(restored->session);
    json["proof"] = ToJson(restored->proof);
    console.out << Document(json);
    return absl::OkStatus();
  }
  Fields fields = {{"session", restored->session.name},
                   {"node", restored->session.node},
                   {"tokens", HumanCount(restored->session.token_count)}};
  for (auto& field : ProofFields(restored->proof)) fields.push_back(std::move(field));
  console.out << RenderFields(fields, console);
  return absl::OkStatus();
}

struct BranchFlags {
  client::BranchRequest request;
  std::string start;
  std::optional<int32_t> at_token;
  bool skip_check = false;
};

absl::Status Branch(const BranchFlags& flags, CommandContext& context) {
  Console& console = context.console;
  absl::StatusOr<client::Start> start = ResolveStart(context, flags.start);
  if (!start.ok()) return start.status();
  if (auto* node = std::get_if<client::FromNode>(&*start)) {
    node->at_token = flags.at_token;
    node->skip_check = flags.skip_check;
  } else if (flags.at_token) {
    return absl::InvalidArgumentError("--at-token goes with a node; a session cannot be rewound");
  }
  client::BranchRequest request = flags.request;
  request.start = *start;
  const auto branched = context.client.Branch(request, context.Call());
  if (!branched.ok()) return branched.status();
  if (console.json) {
    console.out << Document(ToJson(*branched));
    return absl::OkStatus();
  }
  if (branched->proof) console.Note(absl::StrCat("restored: ", ProofLine(*branched->proof)));
  console.out << SessionTable(branched->sessions, console);
  console.Note(absl::StrCat(branched->sessions.size(), " sessions in ", HumanDuration(branched->branch_time)));
  return absl::OkStatus();
}

void AddSave(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("save", "Save a live session as a node");
  command->footer(
      "Examples:\n  quicksave save sessions/4be1 --label name=opening\n  quicksave save 4be1 --json | jq -r "
      ".node.name");
  const auto flags = std::make_shared<SaveCommandFlags>();
  command->add_option("SESSION", flags->session, "The session")->required();
  flags->save.AddTo(command);
  command->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Save(*flags, context); }; });
}

void AddRestore(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("restore", "Make a live session of a node, with proof");
  command->footer(
      "Examples:\n  quicksave restore 7f3a\n  quicksave restore nodes/7f3a9c21 --at-token 120 --seed 5\n"
      "  quicksave restore 7f3a --max-kl 0.005     (or less faithful, where that is estimated to be faster)");
  const auto flags = std::make_shared<RestoreFlags>();
  client::RestoreRequest& request = flags->request;
  command->add_option("NODE", request.node, "The node")->required();
  command->add_option("--at-token", request.at_token, "Rewind to this many tokens");
  command->add_flag("--skip-check", request.skip_check, "Do not check the next-token distribution");
  auto* exact_only = command->add_flag("--exact-only", request.exact_only, "Take the bits that were saved, or fail");
  for (CLI::Option* bound : AddBudgetFlags(command, &request.budget)) bound->excludes(exact_only);
  AddSamplingFlags(command, &request.sampling);
  AddDurationFlag(command, "--lease", &request.lease, "Lease of the session (default: the server's)");
  command->add_option("--request-id", request.request_id, "UUID; a repeat returns the first answer");
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Restore(*flags, context); }; });
}

void AddBranch(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("branch", "Make sessions that share the state of a session or node");
  command->footer(
      "Examples:\n  quicksave branch 7f3a --seeds 1,2,3,4 --temperature 0.8\n  quicksave branch sessions/4be1 --count "
      "8");
  const auto flags = std::make_shared<BranchFlags>();
  client::BranchRequest& request = flags->request;
  command->add_option("START", flags->start, "A session or a node")->required();
  command->add_option("--count", request.count, "Sessions to make (default: one for each seed, or 1)");
  command->add_option("--seeds", request.seeds, "A seed for each session, separated by commas")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--at-token", flags->at_token, "Rewind the node to this many tokens");
  command->add_flag("--skip-check", flags->skip_check, "Restore the node without the check");
  AddSamplingFlags(command, &request.sampling);
  AddDurationFlag(command, "--lease", &request.lease, "Lease of the sessions (default: the server's)");
  command->add_option("--request-id", request.request_id, "UUID; a repeat returns the first answer");
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Branch(*flags, context); }; });
}

}  // namespace

void AddStateCommands(CLI::App& app, CommandBody* chosen) {
  AddSave(app, chosen);
  AddRestore(app, chosen);
  AddBranch(app, chosen);
}

}  // namespace quicksave::cli
