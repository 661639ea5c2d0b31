// quicksave-calibrate: makes latent profiles of a model.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/sidecar/calibration.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {
namespace {

struct Flags {
  std::string model;
  std::vector<std::string> texts;
  std::string out;
  std::vector<int> splits = {0};
  int layers_per_group = 5;
  int tokens = 65536;
  int piece_tokens = 1024;
  int gradient_pieces = 48;
  int gradient_samples = 2;
  int threads = 2;
  uint64_t seed = 1;
};

// PROFILE.safetensors of several splits become PROFILE-6.safetensors and so on.
std::string FileOf(const Flags& flags, int split) {
  if (flags.splits.size() == 1) return flags.out;
  const size_t dot = flags.out.rfind('.');
  const size_t slash = flags.out.rfind('/');
  const size_t end = dot == std::string::npos || (slash != std::string::npos && dot < slash) ? flags.out.size() : dot;
  return absl::StrCat(flags.out.substr(0, end), "-", split, flags.out.substr(end));
}

absl::Status Run(const Flags& flags) {
  const absl::Time start = absl::Now();
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      ModelRunner::Load(flags.model, flags.threads, 2 * flags.piece_tokens);
  if (!runner.ok()) return runner.status();
  const auto pieces = CutPieces(flags.texts, (*runner)->tokenizer(),
                                {.tokens_per_piece = flags.piece_tokens,
                                 .pieces = (flags.tokens + flags.piece_tokens - 1) / flags.piece_tokens,
                                 .seed = flags.seed});
  if (!pieces.ok()) return pieces.status();
  std::cerr << "calibrating on " << pieces->size() << " pieces of " << flags.piece_tokens << " tokens\n";
  CalibrationOptions options{.splits = flags.splits,
                             .layers_per_group = flags.layers_per_group,
                             .gradient_pieces = flags.gradient_pieces,
                             .gradient_samples = flags.gradient_samples,
                             .seed = flags.seed};
  absl::Time last = absl::InfinitePast();
  std::string last_what;
  options.progress = [&](const std::string& what, double done) {
    if (what == last_what && absl::Now() - last < absl::Seconds(2)) return;
    last = absl::Now();
    last_what = what;
    std::cerr << absl::StrFormat("%6.0f s  %s %.0f %%\n", absl::ToDoubleSeconds(last - start), what, 100 * done);
  };
  const auto profiles = Calibrate(**runner, *pieces, options);
  if (!profiles.ok()) return profiles.status();
  for (const compressor::LatentProfile& profile : *profiles) {
    const std::string file = FileOf(flags, profile.split);
    const std::string bytes = profile.Serialize();
    std::ofstream stream(file, std::ios::binary | std::ios::trunc);
    stream << bytes;
    stream.close();
    if (!stream) return absl::UnknownError(absl::StrCat("cannot write ", file));
    std::cerr << absl::StrFormat("%6.0f s  wrote %s, %.1f MB\n", absl::ToDoubleSeconds(absl::Now() - start), file,
                                 bytes.size() / 1e6);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace quicksave::server

int main(int argc, char** argv) {
  quicksave::server::Flags flags;
  CLI::App app{"Makes profiles of the latent codec for a model: fits them to its K and V on some text."};
  app.add_option("--model", flags.model, "Hugging Face directory of the model")->required();
  app.add_option("--text", flags.texts, "UTF-8 files of the kinds of text that the model will see")->required();
  app.add_option("--out", flags.out, "file to write; several splits add their number to its name")->required();
  app.add_option("--split", flags.splits, "layers that a restore recomputes; a profile for each")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--layers-per-group", flags.layers_per_group, "layers that are coded together")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--tokens", flags.tokens, "tokens of text")->capture_default_str()->check(CLI::Range(2048, 1 << 24));
  app.add_option("--piece-tokens", flags.piece_tokens, "tokens of a piece of text")
      ->capture_default_str()
      ->check(CLI::Range(64, 1 << 20));
  app.add_option("--gradient-pieces", flags.gradient_pieces, "pieces from which gradients are taken")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--gradient-samples", flags.gradient_samples, "draws of labels for each of these")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--threads", flags.threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--seed", flags.seed, "seed of the places in the texts and of labels")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = quicksave::server::Run(flags);
  if (status.ok()) return 0;
  std::cerr << "quicksave-calibrate: " << status.message() << "\n";
  return 1;
}
