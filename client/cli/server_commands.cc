// `quicksave status`, `health` and `gc`.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/json_output.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

constexpr absl::Duration kHealthPoll = absl::Milliseconds(100);

Fields StatusFields(const client::ServerStatus& status, const Console& console) {
  const auto& [server, model, engine, store, limits] = status;
  return {
      {"server", absl::StrCat(server.version, ", up since ", HumanTime(server.start_time), " (",
                              HumanAge(server.start_time, console.now()), "), durability ", server.durability)},
      {"model",
       absl::StrCat(model.name, " (", model.architecture, ", ", model.layers, " layers, hidden ", model.hidden_size,
                    ", ", model.query_heads, " query and ", model.kv_heads, " KV heads of ", model.head_dim, ")")},
      {"fingerprint", absl::StrCat(model.fingerprint, ", numerics ", model.numerics)},
      {"context", absl::StrCat(HumanCount(model.context_length), " tokens, ", HumanBytes(model.kv_bytes_per_token),
                               " of K and V each; vocabulary ", HumanCount(model.vocab_size))},
      {"weights", absl::StrCat(model.weights, ", ", HumanBytes(model.weight_bytes), " in memory")},
      {"device", model.device},
      {"sessions", absl::StrCat(engine.sessions, " of ", limits.max_sessions, "; ", engine.parked_sessions, " parked")},
      {"requests", absl::StrCat(engine.active_requests, " of ", limits.max_queued_requests)},
      {"KV memory", absl::StrCat(HumanCount(engine.pages_used), " of ", HumanCount(engine.pages_total), " pages of ",
                                 engine.page_tokens, " tokens; ", HumanBytes(engine.pages_used * engine.page_bytes),
                                 " of ", HumanBytes(engine.pages_total * engine.page_bytes))},
      {"work", absl::StrCat(HumanCount(engine.steps), " steps, ", HumanCount(engine.prefilled_tokens),
                            " tokens prefilled, ", HumanCount(engine.decoded_tokens), " decoded")},
      {"prefixes", absl::StrCat(HumanCount(engine.shared_prefix_tokens), " tokens shared, ",
                                HumanCount(engine.restored_prefix_tokens), " restored; ",
                                HumanCount(engine.failed_prefix_restores), " restores failed")},
      {"store", absl::StrCat(HumanCount(store.nodes), " nodes, ", HumanCount(store.blocks), " blocks, ",
                             HumanBytes(store.block_bytes), "; ", HumanBytes(store.free_disk_bytes), " free; format ",
                             store.format_version)},
      {"limits", absl::StrCat(HumanCount(limits.max_tokens_per_call), " tokens a call (default ",
                              HumanCount(limits.default_max_tokens), "), ", HumanBytes(limits.max_message_bytes),
                              " a request, lease ", HumanDuration(limits.default_lease), " (most ",
                              HumanDuration(limits.max_lease), ")")}};
}

absl::Status Status(CommandContext& context) {
  const Console& console = context.console;
  const auto status = context.client.GetStatus(context.Call());
  if (!status.ok()) return status.status();
  console.out << (console.json ? Document(ToJson(*status)) : RenderFields(StatusFields(*status, console), console));
  return absl::OkStatus();
}

struct HealthFlags {
  std::string service = "quicksave.v1.SnapshotService";
  std::optional<absl::Duration> wait;
};

absl::StatusOr<client::Health> AwaitHealth(const HealthFlags& flags, CommandContext& context) {
  const absl::Time end = absl::Now() + flags.wait.value_or(absl::ZeroDuration());
  while (true) {
    client::CallOptions options = context.Call();
    if (flags.wait) options.timeout = std::max(end - absl::Now(), kHealthPoll);
    absl::StatusOr<client::Health> health = context.client.CheckHealth(flags.service, options);
    const bool ready = health.ok() && *health == client::Health::kServing;
    // A service that is not known yet may still come up.
    const bool may_come = health.ok() || absl::IsUnavailable(health.status()) || absl::IsNotFound(health.status());
    if (ready || !may_come || absl::Now() + kHealthPoll >= end || context.token.cancelled()) return health;
    absl::SleepFor(kHealthPoll);
  }
}

absl::Status Health(const HealthFlags& flags, CommandContext& context) {
  const Console& console = context.console;
  const absl::StatusOr<client::Health> health = AwaitHealth(flags, context);
  if (!health.ok()) return health.status();
  const std::string name = HealthName(*health);
  console.out << (console.json ? Document(Json{{"service", flags.service}, {"status", name}}) : name + "\n");
  if (*health == client::Health::kServing) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the server is there, but its health is ", name));
}

absl::Status CollectGarbage(CommandContext& context) {
  const Console& console = context.console;
  const auto removed = context.client.CollectGarbage(context.Call());
  if (!removed.ok()) return removed.status();
  if (console.json) {
    console.out << Document(Json{{"removed_blocks", removed->removed_blocks},
                                 {"removed_bytes", removed->removed_bytes},
                                 {"removed_requests", removed->removed_requests}});
  } else {
    console.out << "removed " << HumanCount(removed->removed_blocks) << " blocks ("
                << HumanBytes(removed->removed_bytes) << ") and " << HumanCount(removed->removed_requests)
                << " remembered requests\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddServerCommands(CLI::App& app, CommandBody* chosen) {
  auto* status = app.add_subcommand("status", "What runs on the server: model, memory, store, limits");
  status->footer("Examples:\n  quicksave status\n  quicksave status --json | jq .engine.pages_used");
  status->callback([chosen] { *chosen = Status; });

  auto* health = app.add_subcommand("health", "Whether the server can serve; exit status 0 when it does, 4 when not");
  health->footer("Examples:\n  quicksave health --wait 60s && quicksave chat");
  const auto flags = std::make_shared<HealthFlags>();
  health->add_option("--service", flags->service, "Name of a service; an empty one asks whether the process lives")
      ->capture_default_str();
  AddDurationFlag(health, "--wait", &flags->wait, "Wait up to this long until it serves");
  health->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Health(*flags, context); }; });

  auto* collect = app.add_subcommand("gc", "Remove stored blocks that nothing needs any more");
  collect->footer("Examples:\n  quicksave gc");
  collect->callback([chosen] { *chosen = CollectGarbage; });
}

}  // namespace quicksave::cli
