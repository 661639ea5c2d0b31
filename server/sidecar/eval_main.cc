// quicksave-eval: measures codecs on texts.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "compressor/codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/corpus.h"

namespace quicksave::server {
namespace {

struct Flags {
  std::string model;
  std::vector<std::string> texts;
  std::vector<std::string> profiles;
  std::vector<float> steps = {1, 2, 4, 8};
  int context = 512;
  int continuation = 128;
  int pieces = 16;
  int threads = 2;
  bool residual = false;
  uint64_t seed = 7;
};

absl::Status Run(const Flags& flags) {
  auto runner = ModelRunner::Load(flags.model, flags.threads, 3 * (flags.context + flags.continuation));
  if (!runner.ok()) return runner.status();
  const auto pieces =
      CutPieces(flags.texts, (*runner)->tokenizer(),
                {.tokens_per_piece = flags.context + flags.continuation, .pieces = flags.pieces, .seed = flags.seed});
  if (!pieces.ok()) return pieces.status();
  std::vector<int> splits;
  std::vector<std::unique_ptr<compressor::CodecRegistry>> registries;
  for (const std::string& file : flags.profiles) {
    std::ifstream stream(file, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(stream), {});
    absl::StatusOr<compressor::LatentProfile> profile = compressor::LatentProfile::Parse(bytes);
    if (!profile.ok()) return profile.status();
    splits.push_back(profile->split);
    registries.push_back(std::make_unique<compressor::CodecRegistry>());
    const auto shared = std::make_shared<const compressor::LatentProfile>(*std::move(profile));
    absl::Status status = registries.back()->Register(compressor::NewLatentCodec(shared));
    status.Update(registries.back()->Register(compressor::NewResidualCodec(shared)));
    if (!status.ok()) return status;
  }
  struct Sum {
    double raw = 0, stored = 0, residual = 0, live_nll = 0, restored_nll = 0, encode = 0, decode = 0;
    std::vector<double> kl;
    double top = 0;
  };
  std::map<std::pair<size_t, float>, Sum> sums;
  for (const TextPiece& piece : *pieces) {
    const auto live = RunLive(**runner, piece.tokens, flags.context, splits);
    if (!live.ok()) return live.status();
    for (size_t p = 0; p < registries.size(); ++p) {
      for (const float step : flags.steps) {
        const auto trial =
            TryCodec(**runner, *live, *registries[p],
                     {.codec = compressor::kLatentCodec, .split = splits[p], .step = step, .residual = flags.residual});
        if (!trial.ok()) return trial.status();
        Sum& sum = sums[{p, step}];
        sum.raw += trial->raw_bytes;
        sum.stored += trial->stored_bytes;
        sum.residual += trial->residual_bytes;
        sum.live_nll += trial->live_nll;
        sum.restored_nll += trial->restored_nll;
        sum.encode += absl::ToDoubleSeconds(trial->encode);
        sum.decode += absl::ToDoubleSeconds(trial->decode);
        sum.kl.insert(sum.kl.end(), trial->kl.begin(), trial->kl.end());
        sum.top += std::count(trial->same_top.begin(), trial->same_top.end(), true);
      }
    }
    std::cerr << ".";
  }
  std::cerr << "\n";
  std::cout << "profile split step ratio layered kl p99 top1 ppl encode_MB/s decode_MB/s\n";
  for (auto& [key, sum] : sums) {
    const double mean = std::accumulate(sum.kl.begin(), sum.kl.end(), 0.0) / sum.kl.size();
    std::sort(sum.kl.begin(), sum.kl.end());
    std::cout << absl::StrFormat(
        "%s %d %.3f %.2f %.3f %.5f %.4f %.2f %.4f %.0f %.0f\n", flags.profiles[key.first], splits[key.first],
        key.second, sum.raw / sum.stored, sum.raw / (sum.stored + sum.residual), mean, sum.kl[sum.kl.size() * 99 / 100],
        100 * sum.top / sum.kl.size(), std::exp((sum.restored_nll - sum.live_nll) / sum.kl.size()),
        sum.raw / sum.encode / 1e6, sum.raw / sum.decode / 1e6);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace quicksave::server

int main(int argc, char** argv) {
  quicksave::server::Flags flags;
  CLI::App app{
      "Measures codecs: bytes, and how far the model's continuation of a restored state is from the live one."};
  app.add_option("--model", flags.model, "Hugging Face directory of the model")->required();
  app.add_option("--text", flags.texts, "UTF-8 files, none of which was calibrated on")->required();
  app.add_option("--profile", flags.profiles, "latent profiles")->required();
  app.add_option("--step", flags.steps, "steps of the dial")->delimiter(',')->capture_default_str();
  app.add_option("--context", flags.context, "tokens of a state")->capture_default_str();
  app.add_option("--continuation", flags.continuation, "tokens on which a restored state is compared")
      ->capture_default_str();
  app.add_option("--pieces", flags.pieces, "pieces of text")->capture_default_str();
  app.add_option("--threads", flags.threads, "threads")->capture_default_str();
  app.add_flag("--residual", flags.residual, "measure residuals too");
  app.add_option("--seed", flags.seed, "seed of the places in the texts")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = quicksave::server::Run(flags);
  if (status.ok()) return 0;
  std::cerr << "quicksave-eval: " << status.message() << "\n";
  return 1;
}
