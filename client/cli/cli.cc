#include "client/cli/cli.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/error_text.h"
#include "client/cli/exit_codes.h"
#include "client/cli/flags.h"
#include "client/cli/text_format.h"
#include "quicksave/version.h"

namespace quicksave::cli {
namespace {

constexpr char kFooter[] =
    "Names: nodes/7f3a9c21, 7f3a9c21, or the first 4 or more characters of an id; sessions likewise.\n\n"
    "Exit status: 0 success, 1 error, 2 wrong usage, 3 not found, 4 server not available, 5 time limit,\n"
    "  6 data loss, 7 server full, 8 not in this state, 9 not allowed, 130 stopped by Ctrl-C.\n\n"
    "Examples:\n"
    "  quicksave chat\n"
    "  quicksave generate 'Once upon a time' --save --label name=opening\n"
    "  quicksave tree\n"
    "  quicksave branch 7f3a --seeds 1,2,3,4 --temperature 0.8\n"
    "  quicksave COMMAND --help";

struct GlobalFlags {
  client::ClientOptions options;
  std::optional<absl::Duration> timeout;
  std::string token_file, root_file, certificate_file, key_file;
  bool json = false, no_color = false, ascii = false, quiet = false;
};

CLI::Option* AddFileFlag(CLI::App* app, const char* name, std::string* path, const char* description) {
  const auto check = [](const std::string& text) {
    return text.empty() ? std::string("the name of the file is empty") : std::string();
  };
  return app->add_option(name, *path, description)->check(check);
}

void AddGlobalFlags(CLI::App* app, GlobalFlags* flags) {
  client::Credentials& credentials = flags->options.credentials;
  app->add_option("--endpoint", flags->options.endpoint, "Address of the server")
      ->envname("QUICKSAVE_ENDPOINT")
      ->capture_default_str();
  AddDurationFlag(app, "--timeout", &flags->timeout, "Limit of each call (default 60s; 10m for generating)");
  app->add_flag("--json", flags->json, "Print JSON: one document, or one line for each event of a stream");
  app->add_flag("--no-color", flags->no_color, "No colours (also with NO_COLOR set)");
  app->add_flag("--ascii", flags->ascii, "No characters beyond ASCII in tables and trees");
  app->add_flag("-q,--quiet", flags->quiet, "No notes on standard error");
  const char* kGroup = "Credentials";
  app->add_option("--token", credentials.bearer_token, "Bearer token (other users may see flags; prefer the others)")
      ->envname("QUICKSAVE_TOKEN")
      ->group(kGroup);
  AddFileFlag(app, "--token-file", &flags->token_file, "File with the bearer token")->group(kGroup);
  app->add_flag("--allow-plaintext-token", credentials.allow_plaintext_token, "Send the token without TLS too")
      ->group(kGroup);
  app->add_flag("--tls", credentials.use_tls, "Encrypt the connection")->group(kGroup);
  AddFileFlag(app, "--ca", &flags->root_file, "PEM file of trusted authorities (default: the system's); sets --tls")
      ->group(kGroup);
  AddFileFlag(app, "--cert", &flags->certificate_file, "PEM file of the client's certificate; sets --tls")
      ->group(kGroup);
  AddFileFlag(app, "--key", &flags->key_file, "PEM file of the client's key")->group(kGroup);
  app->add_option("--server-name", credentials.tls.server_name, "Name to expect in the server's certificate")
      ->group(kGroup);
}

// Reads the file unless `path` is empty. INVALID_ARGUMENT, naming the file, when it cannot be read or says nothing:
// going on without the credential would surprise.
absl::Status ReadFile(const std::string& path, std::string* text) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read '", path, "'"));
  std::ostringstream content;
  content << file.rdbuf();
  *text = content.str();
  if (!content || absl::StripAsciiWhitespace(*text).empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is empty, or no file that can be read"));
  }
  return absl::OkStatus();
}

absl::Status ReadCredentials(const GlobalFlags& flags, client::ClientOptions* options) {
  client::Credentials& credentials = options->credentials;
  absl::Status status = ReadFile(flags.token_file, &credentials.bearer_token);
  status.Update(ReadFile(flags.root_file, &credentials.tls.root_certificates));
  status.Update(ReadFile(flags.certificate_file, &credentials.tls.client_certificate));
  status.Update(ReadFile(flags.key_file, &credentials.tls.client_key));
  credentials.bearer_token = std::string(absl::StripAsciiWhitespace(credentials.bearer_token));
  if (!flags.root_file.empty() || !flags.certificate_file.empty()) credentials.use_tls = true;
  return status;
}

// Ends a run: says what went wrong, with the command or with writing its output, and returns the exit code.
int Finish(const absl::Status& status, Console& console) {
  console.out.flush();
  const absl::Status written =
      console.out ? absl::OkStatus() : absl::UnknownError("standard output could not be written; is the disk full?");
  for (const absl::Status& one : {status, written}) {
    if (!one.ok() && !absl::IsCancelled(one)) console.err << ErrorText(one, console) << std::flush;
  }
  return ExitCodeFor(status.ok() ? written : status);
}

void ApplyTo(const GlobalFlags& flags, Console* console) {
  console->json = flags.json;
  console->quiet = flags.quiet;
  if (flags.no_color) console->out_color = console->err_color = false;
  if (flags.ascii) console->unicode = false;
}

absl::Status RunCommand(const GlobalFlags& flags, const CommandBody& body, Console& console,
                        const Environment& environment) {
  client::ClientOptions options = flags.options;
  options.user_agent = absl::StrCat("quicksave-cli/", client::Version());
  absl::Status read = ReadCredentials(flags, &options);
  if (!read.ok()) return read;
  auto connection = environment.connect(options);
  if (!connection.ok()) return connection.status();
  CommandContext context{.client = client::Client(*std::move(connection)),
                         .console = console,
                         .timeout = flags.timeout,
                         .arm = environment.arm,
                         .token = environment.arm()};
  return body(context);
}

std::string UsageError(const CLI::App*, const CLI::Error& error) {
  return WithoutControls(Shortened(error.what())) + "\nRun with --help for more information.\n";
}

}  // namespace

int RunCli(const std::vector<std::string>& arguments, Console& console, const Environment& environment) {
  CLI::App app("Save states for a language model: generate, save, restore, branch.", "quicksave");
  GlobalFlags flags;
  CommandBody chosen;
  app.footer(kFooter);
  app.set_version_flag("--version", absl::StrCat("quicksave ", client::Version()));
  app.fallthrough();
  AddGlobalFlags(&app, &flags);
  AddChatCommand(app, &chosen);
  AddGenerateCommands(app, &chosen);
  AddStateCommands(app, &chosen);
  AddScoreCommand(app, &chosen);
  AddHiddenCommand(app, &chosen);
  AddListCommands(app, &chosen);
  AddTreeCommand(app, &chosen);
  AddNodeCommands(app, &chosen);
  AddEncodingCommands(app, &chosen);
  AddServerCommands(app, &chosen);
  app.failure_message(UsageError);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    const bool asked_for_help = app.exit(error, console.out, console.err) == 0;
    return asked_for_help ? Finish(absl::OkStatus(), console) : kExitUsage;
  }
  if (!chosen) {
    console.err << app.help();
    return kExitUsage;
  }
  ApplyTo(flags, &console);
  return Finish(RunCommand(flags, chosen, console, environment), console);
}

}  // namespace quicksave::cli
