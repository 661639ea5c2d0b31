// `quicksave encode`, `drop` and `profiles`.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
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

// Returns the id of the one profile that begins with `text`; nothing was asked for when that is empty.
absl::StatusOr<std::string> ResolveProfile(const CommandContext& context, const std::string& text) {
  if (text.empty()) return text;
  const auto all = context.client.ListProfiles(context.Call());
  if (!all.ok()) return all.status();
  std::vector<std::string> matches;
  for (const client::Profile& profile : all->profiles) {
    if (absl::StartsWith(profile.id, text)) matches.push_back(profile.id);
  }
  if (matches.size() == 1) return matches[0];
  if (matches.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no profile has the id '", text, "' or one that begins with it; `quicksave profiles` lists them"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is the beginning of ", matches.size(), " profiles: ", absl::StrJoin(matches, ", ")));
}

// What a node has of its K and V, for RenderFields().
void AddEncodings(const client::Node& node, Fields* fields) {
  if (node.saved_dropped) {
    fields->emplace_back("as saved", "- (dropped)");
  } else {
    fields->emplace_back("as saved", absl::StrCat(HumanBytes(node.storage.stored_bytes), " (", node.storage.codec, ", ",
                                                  HumanRatio(node.storage.ratio), ")"));
  }
  for (size_t i = 0; i < node.encodings.size(); ++i) {
    fields->emplace_back(absl::StrCat("encoding ", i + 1), EncodingText(node.encodings[i]));
  }
}

absl::Status Encode(const client::EncodeNodeRequest& given, CommandContext& context) {
  Console& console = context.console;
  client::EncodeNodeRequest request = given;
  const absl::StatusOr<std::string> node = ResolveNode(context, request.name);
  if (!node.ok()) return node.status();
  request.name = *node;
  absl::StatusOr<std::string> profile = ResolveProfile(context, request.encoding.profile);
  if (!profile.ok()) return profile.status();
  request.encoding.profile = *std::move(profile);
  const auto encoded = context.client.EncodeNode(request, context.Call());
  if (!encoded.ok()) return encoded.status();
  if (console.json) {
    console.out << Document(ToJson(*encoded));
  } else {
    console.out << TrialTable(encoded->trials, console);
  }
  if (!encoded->encoding) {
    return absl::FailedPreconditionError(
        absl::StrCat("nothing that was tried keeps to the budget, and ", *node,
                     " is as it was; allow more with --max-kl and --min-top1, or take a finer --step"));
  }
  if (console.json) return absl::OkStatus();
  Fields fields = {{"node", encoded->node.name}, {"stored", EncodingText(*encoded->encoding)}};
  if (request.drop_saved) fields.emplace_back("dropped", "the blocks as saved");
  fields.emplace_back("time", HumanDuration(encoded->total));
  console.out << "\n" << RenderFields(fields, console);
  return absl::OkStatus();
}

struct DropFlags {
  std::string node;
  bool saved = false;
  std::string encoding, residual, etag, request_id;
};

absl::StatusOr<client::DropTarget> WhatToDrop(const DropFlags& flags, const client::Node& node) {
  if (flags.saved && node.saved_dropped) {
    return absl::NotFoundError(absl::StrCat(node.name, " has no blocks as saved any more; see `quicksave show`"));
  }
  if (flags.saved) return client::DropSaved();
  const bool residual = !flags.residual.empty();
  absl::StatusOr<client::Encoding> found = FindEncoding(node, residual ? flags.residual : flags.encoding);
  if (!found.ok()) return found.status();
  if (residual && !found->has_residual) {
    return absl::NotFoundError(
        absl::StrCat(node.name, " has no residual of ", EncodingName(*found), "; see `quicksave show`"));
  }
  if (residual) return client::DropResidual{*std::move(found)};
  return client::DropWhole{*std::move(found)};
}

std::string TargetText(const client::DropTarget& what) {
  if (const auto* whole = std::get_if<client::DropWhole>(&what)) return EncodingName(whole->encoding);
  if (const auto* residual = std::get_if<client::DropResidual>(&what)) {
    return absl::StrCat("the residual of ", EncodingName(residual->encoding));
  }
  return "the blocks as saved";
}

absl::Status Drop(const DropFlags& flags, CommandContext& context) {
  Console& console = context.console;
  if (!flags.saved && flags.encoding.empty() && flags.residual.empty()) {
    return absl::InvalidArgumentError("drop: say what to drop: --saved, --encoding or --residual; see --help");
  }
  const absl::StatusOr<std::string> name = ResolveNode(context, flags.node);
  if (!name.ok()) return name.status();
  const auto before = context.client.GetNode({.name = *name}, context.Call());
  if (!before.ok()) return before.status();
  const absl::StatusOr<client::DropTarget> what = WhatToDrop(flags, *before);
  if (!what.ok()) return what.status();
  const auto node = context.client.DropEncoding(
      {.name = *name, .what = *what, .etag = flags.etag, .request_id = flags.request_id}, context.Call());
  if (!node.ok()) return node.status();
  if (console.json) {
    console.out << Document(ToJson(*node));
    return absl::OkStatus();
  }
  Fields fields = {{"node", node->name}, {"dropped", TargetText(*what)}};
  AddEncodings(*node, &fields);
  console.out << RenderFields(fields, console);
  return absl::OkStatus();
}

// A row for each setting of the dial; what is the same for all of a profile is said once.
std::string ProfileTable(const std::vector<client::Profile>& profiles, const Console& console) {
  constexpr auto kRight = TextTable::Align::kRight;
  TextTable table({{.title = "PROFILE", .style = Style::kYellow},
                   {.title = "CODEC"},
                   {.title = "SPLIT", .align = kRight},
                   {.title = "SIZE", .align = kRight},
                   {.title = "POINT"},
                   {.title = "STEP", .align = kRight},
                   {.title = "RATIO", .align = kRight, .style = Style::kGreen},
                   {.title = "MEAN KL", .align = kRight}});
  for (const client::Profile& profile : profiles) {
    std::vector<std::string> head = {profile.id, profile.codec, absl::StrCat(profile.split),
                                     HumanBytes(profile.size_bytes)};
    if (profile.points.empty()) table.AddRow({head[0], head[1], head[2], head[3], "-", "-", "-", "-"});
    for (const client::DialPoint& point : profile.points) {
      table.AddRow({head[0], head[1], head[2], head[3], point.name, absl::StrFormat("%.4g", point.step),
                    HumanRatio(point.ratio), absl::StrFormat("%.4g", point.mean_kl)});
      head.assign(head.size(), "");
    }
  }
  return table.Render(console);
}

absl::Status ListProfiles(CommandContext& context) {
  Console& console = context.console;
  const auto all = context.client.ListProfiles(context.Call());
  if (!all.ok()) return all.status();
  if (console.json) {
    Json json = Json::object();
    json["profiles"] = ToJsonArray(all->profiles);
    console.out << Document(json);
    return absl::OkStatus();
  }
  console.out << ProfileTable(all->profiles, console);
  if (all->profiles.empty()) console.Note("none is loaded; quicksave-calibrate makes one, --load loads it");
  return absl::OkStatus();
}

absl::Status LoadProfile(const std::string& path, CommandContext& context) {
  Console& console = context.console;
  // The server may run in another folder.
  const auto profile = context.client.LoadProfile({.path = std::filesystem::absolute(path).string()}, context.Call());
  if (!profile.ok()) return profile.status();
  console.out << (console.json ? Document(ToJson(*profile)) : ProfileTable({*profile}, console));
  return absl::OkStatus();
}

void AddEncode(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("encode", "Encode a node as latents: smaller, and measured how faithful");
  command->footer(
      "Exit status 8 when nothing kept to the budget; the node is then as it was.\n\n"
      "Examples:\n"
      "  quicksave encode 7f3a --max-kl 0.005                    (the coarsest that keeps to it)\n"
      "  quicksave encode 7f3a --point small --split 6 --residual --drop-saved\n"
      "  quicksave encode 7f3a --step 0.1 --json | jq .encoding.fidelity.mean_kl");
  const auto request = std::make_shared<client::EncodeNodeRequest>();
  client::EncodingSpec& spec = request->encoding;
  command->add_option("NODE", request->name, "The node")->required();
  command->add_option("--split", spec.split, "Layers that a restore recomputes: smaller, but slower to restore")
      ->type_name("LAYERS");
  auto* point = command->add_option("--point", spec.point, "How coarse: a point of the profile (default: default)")
                    ->type_name("fine|default|small");
  command->add_option("--step", spec.step, "How coarse: a step of the quantizer, above 0")->excludes(point);
  command->add_option("--profile", spec.profile, "Profile, by the beginning of its id (default: the newest)")
      ->type_name("ID");
  command->add_flag("--residual", spec.residual, "Also store what is missing to the exact bits");
  command->add_option("--codec", spec.codec, "latent, the default, learned, or replay: the token ids alone");
  AddBudgetFlags(command, &request->budget);
  command->add_flag("--drop-saved", request->drop_saved, "Drop the blocks as saved in the same step");
  command->add_option("--etag", request->etag, "Encode only this version of the node");
  command->add_option("--request-id", request->request_id, "UUID; a repeat returns the first answer");
  command->callback(
      [request, chosen] { *chosen = [request](CommandContext& context) { return Encode(*request, context); }; });
}

void AddDrop(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("drop", "Drop an encoding of a node, its residual, or the blocks as saved");
  command->footer(
      "WHICH is the number of an encoding, as `quicksave show NODE` counts them, or what sets it apart:\n"
      "split=6, step=0.05, profile=3eb8, or several of these with commas between them. The last encoding stays.\n\n"
      "Examples:\n"
      "  quicksave drop 7f3a --saved\n"
      "  quicksave drop 7f3a --encoding 2\n"
      "  quicksave drop 7f3a --residual split=6,step=0.05");
  const auto flags = std::make_shared<DropFlags>();
  command->add_option("NODE", flags->node, "The node")->required();
  auto* saved = command->add_flag("--saved", flags->saved, "The blocks as saved");
  auto* encoding = command->add_option("--encoding", flags->encoding, "An encoding, with its residual");
  encoding->type_name("WHICH")->excludes(saved);
  command->add_option("--residual", flags->residual, "The residual of an encoding; it is then lossy")
      ->type_name("WHICH")
      ->excludes(saved)
      ->excludes(encoding);
  command->add_option("--etag", flags->etag, "Drop only from this version of the node");
  command->add_option("--request-id", flags->request_id, "UUID; a repeat returns the first answer");
  command->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Drop(*flags, context); }; });
}

void AddProfiles(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("profiles", "Profiles that the server can encode with");
  command->footer("Examples:\n  quicksave profiles\n  quicksave profiles --load /profiles/smollm2-split6.safetensors");
  const auto path = std::make_shared<std::string>();
  command
      ->add_option("--load", *path,
                   "Have the server load and keep a profile that quicksave-calibrate wrote; the file is on the "
                   "server's machine")
      ->type_name("FILE")
      ->check([](const std::string& text) { return text.empty() ? "the name of the file is empty" : ""; });
  command->callback([path, chosen] {
    *chosen = [path](CommandContext& context) {
      return path->empty() ? ListProfiles(context) : LoadProfile(*path, context);
    };
  });
}

}  // namespace

void AddEncodingCommands(CLI::App& app, CommandBody* chosen) {
  AddEncode(app, chosen);
  AddDrop(app, chosen);
  AddProfiles(app, chosen);
}

}  // namespace quicksave::cli
