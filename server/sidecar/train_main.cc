// quicksave-train: trains sidecars of a model's state. docs/compression.md says what it does and how they compare.

#include <csignal>
#include <iostream>
#include <map>
#include <set>
#include <string>

#include "CLI/CLI.hpp"
#include "server/sidecar/program_text.h"
#include "server/sidecar/training/bridge_program.h"
#include "server/sidecar/training/training_program.h"

namespace {

using quicksave::compressor::Architecture;
using quicksave::server::RateModel;
using quicksave::server::Start;
using quicksave::server::TrainingOptions;
using quicksave::server::TrainingProgram;

volatile std::sig_atomic_t stop_asked = 0;
void AskToStop(int /*signal*/) { stop_asked = 1; }

// What --arch means: the network, and how many layers it takes together where nothing else is said.
struct NamedSidecar {
  Architecture architecture;
  int layers_per_group;
};
const std::map<std::string, NamedSidecar>& Sidecars() {
  static const auto& sidecars = *new std::map<std::string, NamedSidecar>{{"per-layer", {Architecture::kGrouped, 1}},
                                                                         {"grouped", {Architecture::kGrouped, 4}},
                                                                         {"unified", {Architecture::kUnified, 1}},
                                                                         {"conv", {Architecture::kConv, 4}},
                                                                         {"recurrent", {Architecture::kRecurrent, 4}}};
  return sidecars;
}

constexpr char kBridge[] = "bridge";

struct Arguments {
  std::string architecture = "grouped";
  int layers_per_group = 0;
  quicksave::server::BridgeProgram bridge;
};

std::set<std::string> ArchitectureNames() {
  std::set<std::string> names = {kBridge};
  for (const auto& [name, sidecar] : Sidecars()) names.insert(name);
  return names;
}

void AddFiles(TrainingProgram& program, CLI::App& app) {
  app.add_option("--model", program.model, "Hugging Face directory of the model")->required();
  app.add_option("--text", program.texts, "UTF-8 files of the kinds of text that the model will see")->required();
  app.add_option("--out", program.out, "profile to write; not for bridges, which are only measured");
  app.add_option("--report", program.report, "file for the report, JSON");
  app.add_flag("--force", program.force, "replace files that exist");
  app.add_option("--work", program.work,
                 "folder for the checkpoint: a run that was stopped goes on with the same command");
  app.add_option("--front", program.front,
                 "latent profile (quicksave-calibrate): train on its components, in its metric and groups, instead of "
                 "channels in units of their deviation");
  app.add_flag("!--no-principal", program.principal,
               "leave out principal components of the same groups, to compare with");
  app.add_option("--principal-out", program.principal_out, "where to write the profile of these principal components");
  app.add_option("--compare", program.compare, "latent profiles to measure beside it, on the same held-out pieces");
}

void AddShape(TrainingProgram& program, Arguments& arguments, CLI::App& app) {
  quicksave::server::SidecarShape& shape = program.options.shape;
  app.add_option("--arch", arguments.architecture, "sidecar to train")
      ->capture_default_str()
      ->check(CLI::IsMember(ArchitectureNames()));
  app.add_option("--layers-per-group", arguments.layers_per_group,
                 "layers that are encoded together; 0: 1 for per-layer and unified, 4 for the others")
      ->check(CLI::Range(0, 64));
  app.add_option("--split", program.split, "layers that a restore recomputes")->capture_default_str();
  app.add_option("--hidden", shape.hidden, "width between the linear layers")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 14));
  app.add_option("--latent-share", shape.latent_share, "components of z for each of the state")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 4.0));
  app.add_option("--heads", shape.heads, "of unified's attention; divides --hidden")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
}

void AddTraining(TrainingProgram& program, CLI::App& app) {
  TrainingOptions& options = program.options;
  const std::map<std::string, RateModel> rates = {{"entropy", RateModel::kEntropy}, {"kl", RateModel::kKl}};
  app.add_option("--rate", options.rate, "R(z): entropy of rounded values, or KL as in a VAE")
      ->transform(CLI::CheckedTransformer(rates));
  const std::map<std::string, Start> starts = {{"random", Start::kRandom}, {"principal", Start::kPrincipal}};
  app.add_option("--start", options.start,
                 "from random numbers, or from the principal components of the training texts")
      ->transform(CLI::CheckedTransformer(starts));
  app.add_option("--start-step", options.start_step, "with principal: the step of z, in components of the front")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--lambda-kv", options.kv_weight, "weight of the relative squared error")->capture_default_str();
  app.add_option("--lambda-rate", options.rate_weight, "weight of R(z), in bits a component: larger is smaller")
      ->capture_default_str();
  app.add_option("--lambda-cosine", options.cosine_weight, "weight of 1 - cosine")->capture_default_str();
  app.add_flag("--progressive", options.progressive, "groups join one by one; squared error first, the rest later");
  app.add_option("--learning-rate", options.learning_rate, "Adam's, at first")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--batch-tokens", options.batch_tokens, "tokens of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--epochs", options.epochs, "times over the tokens")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--patience", options.patience, "evaluations without gain after which it stops; 0: never")
      ->capture_default_str();
  app.add_option("--tokens", program.tokens, "tokens of text")->capture_default_str()->check(CLI::Range(512, 1 << 24));
  app.add_option("--piece-tokens", program.piece_tokens, "tokens of a piece of text")
      ->capture_default_str()
      ->check(CLI::Range(128, 1 << 16));
  app.add_option("--threads", program.threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--seed", options.seed, "seed of the places in the texts, the first weights, the order and the noise")
      ->capture_default_str();
}

void AddBridges(Arguments& arguments, CLI::App& app) {
  quicksave::server::BridgeProgram& bridge = arguments.bridge;
  app.add_option("--taps", bridge.taps,
                 "bridges: hidden states after so many layers; the number of layers is what follows the final norm; "
                 "the middle and the last where none are given")
      ->delimiter(',');
  app.add_option("--ranks", bridge.ranks, "bridges: ranks")->delimiter(',')->capture_default_str();
  app.add_option("--seeds", bridge.seeds, "bridges: so many of each")->capture_default_str()->check(CLI::Range(1, 100));
  app.add_option("--used-pieces", bridge.used_pieces, "bridges: held-out texts that the model goes over")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
}

// Bridges take the options that mean the same for them.
absl::Status RunBridges(const TrainingProgram& program, const CLI::App& app, quicksave::server::BridgeProgram& bridge) {
  bridge.model = program.model;
  bridge.texts = program.texts;
  bridge.report = program.report;
  bridge.command = program.command;
  bridge.force = program.force;
  bridge.threads = program.threads;
  bridge.options.seed = program.options.seed;
  if (app.count("--tokens") > 0) bridge.tokens = program.tokens;
  if (app.count("--piece-tokens") > 0) bridge.piece_tokens = program.piece_tokens;
  if (app.count("--epochs") > 0) bridge.options.epochs = program.options.epochs;
  if (app.count("--learning-rate") > 0) bridge.options.learning_rate = program.options.learning_rate;
  return bridge.Run(std::cerr);
}

absl::Status RunSidecar(TrainingProgram& program, const Arguments& arguments) {
  if (program.out.empty()) return absl::InvalidArgumentError("--out is needed: the profile to write");
  const NamedSidecar& sidecar = Sidecars().at(arguments.architecture);
  program.options.shape.architecture = sidecar.architecture;
  program.layers_per_group = arguments.layers_per_group > 0 ? arguments.layers_per_group : sidecar.layers_per_group;
  std::signal(SIGINT, AskToStop);
  std::signal(SIGTERM, AskToStop);
  program.stopped = [] { return stop_asked != 0; };
  return program.Run(std::cerr);
}

}  // namespace

int main(int argc, char** argv) {
  TrainingProgram program;
  Arguments arguments;
  CLI::App app{
      "Trains a sidecar for a model: an encoder-decoder that makes the latents of the codec `learned`; or bridges\n"
      "for hidden states, which are measured and not stored.\n"
      "Of ten pieces of text eight are trained on, one is watched and counted, one is held out: all figures are\n"
      "of the last. Equal texts, options, seed and threads give equal bytes on the same kind of CPU.\n"
      "Memory: the weights in bf16, and for each token 4 bytes for each stored component of its K and V\n"
      "(45 kB a token of SmolLM2-135M)."};
  AddFiles(program, app);
  AddShape(program, arguments, app);
  AddTraining(program, app);
  AddBridges(arguments, app);
  CLI11_PARSE(app, argc, argv);
  program.command = quicksave::server::CommandText(argc, argv);
  const absl::Status status =
      arguments.architecture == kBridge ? RunBridges(program, app, arguments.bridge) : RunSidecar(program, arguments);
  if (status.ok()) return 0;
  std::cerr << "quicksave-train: " << status.message() << "\n";
  return 1;
}
