// quicksave-eval: measures codecs on texts. docs/compression.md says what its figures mean.

#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "server/sidecar/evaluation_program.h"
#include "server/sidecar/program_text.h"

namespace {

// Exit status of a run whose figures must not be believed.
constexpr int kNotReliable = 3;

void AddFlags(quicksave::server::EvaluationProgram& program, CLI::App& app) {
  quicksave::server::EvaluationOptions& options = program.options;
  app.add_option("--model", program.model, "Hugging Face directory of the model")->required();
  app.add_option("--text", program.texts, "UTF-8 text: KIND=FILE, or FILE, whose name is the kind; several")
      ->required();
  app.add_option("--profile", program.profiles, "latent profiles, made by quicksave-calibrate; several");
  app.add_option("--exact-profile", program.exact_profile,
                 "profile of the exact codec, measured beside its own tables");
  app.add_option("--step", options.steps, "steps of the latent dial; otherwise each profile's named points")
      ->delimiter(',');
  app.add_flag("--residual", options.residual, "measure each latent with its residual, which is exact, too");
  app.add_option("--context", options.contexts, "tokens of a state; several lengths")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--continuation", options.continuation, "tokens on which a restored state is compared")
      ->capture_default_str();
  app.add_option("--pieces", options.pieces, "pieces of each kind of text, for each length")->capture_default_str();
  app.add_option("--floor-pieces", options.floor_pieces,
                 "pieces on which the noise floor is measured; the model in fp32 must fit in memory; 0: not measured")
      ->capture_default_str();
  app.add_option("--drift", options.generations,
                 "measure drift, too: after so many generations of restoring, extending and saving; several, ascending")
      ->delimiter(',');
  app.add_option("--extension", options.extension, "tokens by which each generation goes on")->capture_default_str();
  app.add_option("--seed", options.seed, "seed of the places in the texts")->capture_default_str();
  app.add_flag("--allow-calibration-texts", options.allow_calibration_texts,
               "measure on texts that a profile was calibrated on; the report says so");
  app.add_option("--out", program.out,
                 "folder for rate_distortion.json, .md and curves, and drift.md; files there are replaced");
  app.add_option("--threads", program.threads, "threads of the model")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
}

}  // namespace

int main(int argc, char** argv) {
  quicksave::server::EvaluationProgram program;
  CLI::App app{
      "Measures codecs on texts: bytes, speed, and how far the model's continuation of a restored state is\n"
      "from the live one. Prints the report as Markdown. Exit status 3: a state that is wrong on purpose\n"
      "measured as well as a right one, so the figures must not be believed.\n"
      "Memory: the model in bf16 and, for the noise floor, in fp32; all profiles; and K and V of five states of\n"
      "the longest length."};
  AddFlags(program, app);
  CLI11_PARSE(app, argc, argv);
  program.command = quicksave::server::CommandText(argc, argv);
  const absl::StatusOr<bool> reliable = program.Run(std::cout, std::cerr);
  if (!reliable.ok()) {
    std::cerr << "quicksave-eval: " << reliable.status().message() << "\n";
    return 1;
  }
  if (*reliable) return 0;
  std::cerr << "quicksave-eval: a negative control did not fail: do not rely on these figures\n";
  return kNotReliable;
}
