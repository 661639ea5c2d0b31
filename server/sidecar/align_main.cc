// quicksave-align: how much the latents of two models have in common. docs/compression.md says what its figures mean.

#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "server/sidecar/alignment/alignment_program.h"
#include "server/sidecar/program_text.h"

namespace {

// Exit status of a run whose figures must not be believed.
constexpr int kNotReliable = 3;

void AddFlags(quicksave::server::AlignmentProgram& program, CLI::App& app) {
  app.add_option("--source", program.source.dir, "Hugging Face directory of a model")->required();
  app.add_option("--source-profile", program.source.profile, "its latent profile, made by quicksave-calibrate")
      ->required();
  app.add_option("--source-step", program.source.step, "step of its dial; otherwise the profile's point 'default'");
  app.add_option("--target", program.target.dir, "Hugging Face directory of another model")->required();
  app.add_option("--target-profile", program.target.profile, "its latent profile")->required();
  app.add_option("--target-step", program.target.step, "step of its dial");
  app.add_option("--text", program.texts, "UTF-8 files that both read")->required();
  app.add_option("--pieces", program.pieces, "pieces of text, in all")
      ->capture_default_str()
      ->check(CLI::Range(4, 1 << 20));
  app.add_option("--piece-tokens", program.piece_tokens, "tokens of a piece, of the source's tokenizer")
      ->capture_default_str()
      ->check(CLI::Range(16, 1 << 20));
  app.add_option("--components", program.components, "components of each group of layers, those that vary most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--held-out", program.options.held_out, "share of the pieces that the maps are scored on")
      ->capture_default_str();
  app.add_option("--ridge", program.options.ridge, "regularisation, in units of a component's mean variance")
      ->capture_default_str();
  app.add_option("--seed", program.options.seed, "seed of the places in the texts")->capture_default_str();
  app.add_option("--threads", program.threads, "threads of the models")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--out", program.out, "file for the report as JSON");
  app.add_flag("--force", program.force, "replace it if it exists");
}

}  // namespace

int main(int argc, char** argv) {
  quicksave::server::AlignmentProgram program;
  CLI::App app{
      "Fits linear maps between the latents of two models, at tokens that end at the same byte of a text, and\n"
      "scores them on texts that they were not fitted on: variance explained, CKA, and how often a mapped\n"
      "latent is nearest to the right one. The control is fitted to latents of wrong places.\n"
      "Exit status 3: the control found something, so the figures must not be believed.\n"
      "Memory: both models in bf16, both profiles, some 20 bytes for each component of each token, and 16 for\n"
      "each pair of components."};
  AddFlags(program, app);
  CLI11_PARSE(app, argc, argv);
  program.command = quicksave::server::CommandText(argc, argv);
  const absl::StatusOr<bool> reliable = program.Run(std::cout, std::cerr);
  if (!reliable.ok()) {
    std::cerr << "quicksave-align: " << reliable.status().message() << "\n";
    return 1;
  }
  if (*reliable) return 0;
  std::cerr << "quicksave-align: the control found something: do not rely on these figures\n";
  return kNotReliable;
}
