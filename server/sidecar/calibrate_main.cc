// quicksave-calibrate: makes latent profiles of a model. docs/compression.md says what it computes and costs.

#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "server/sidecar/calibration_program.h"

namespace {

volatile std::sig_atomic_t stop_asked = 0;
void AskToStop(int /*signal*/) { stop_asked = 1; }

void AddFlags(quicksave::server::CalibrationProgram& program, CLI::App& app) {
  quicksave::server::CalibrationOptions& options = program.options;
  app.add_option("--model", program.model, "Hugging Face directory of the model")->required();
  app.add_option("--text", program.texts, "UTF-8 files of the kinds of text that the model will see")->required();
  app.add_option("--out", program.out, "file to write; several splits add their number to its name")->required();
  app.add_flag("--force", program.force, "replace files that exist");
  app.add_option("--report", program.report, "file for the curve on held-out pieces, JSON as quicksave-eval writes it");
  app.add_option("--work", options.work_folder,
                 "folder for unfinished work: a run that was stopped goes on with the same command; may be removed "
                 "when it is done");
  app.add_option("--split", options.splits, "layers that a restore recomputes; a profile for each")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--layers-per-group", options.layers_per_group,
                 "layers that are coded together; memory and the profile's size grow with it; 0 goes "
                 "without bases: a small profile, faster, that compresses less")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  app.add_option("--tokens", program.tokens, "tokens of text")->capture_default_str()->check(CLI::Range(2048, 1 << 24));
  app.add_option("--piece-tokens", program.piece_tokens, "tokens of a piece of text")
      ->capture_default_str()
      ->check(CLI::Range(64, 1 << 20));
  app.add_option("--gradient-pieces", options.gradients.pieces, "pieces from which gradients are taken")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--gradient-samples", options.gradients.samples, "draws of labels for each of these")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--threads", options.threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--seed", options.seed, "seed of the places in the texts and of labels")->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  quicksave::server::CalibrationProgram program;
  CLI::App app{
      "Makes profiles of the latent codec for a model: fits them to its K and V on some text.\n"
      "Equal texts, options and seed give equal bytes on the same kind of CPU.\n"
      "Memory: the model's weights in bf16 and in fp32; for each split 8 bytes for each pair of the channels\n"
      "that are coded together, for each group; and 144 bytes for each such pair once, while a group is\n"
      "fitted. Together about 1.5 GB for SmolLM2-135M with one split; the program says how much before it\n"
      "begins. Fewer layers in a group need less."};
  AddFlags(program, app);
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGINT, AskToStop);
  std::signal(SIGTERM, AskToStop);
  program.options.stopped = [] { return stop_asked != 0; };
  program.command = quicksave::server::CommandText(argc, argv);
  const absl::Status status = program.Run(std::cerr);
  if (status.ok()) return 0;
  std::cerr << "quicksave-calibrate: " << status.message() << "\n";
  return 1;
}
