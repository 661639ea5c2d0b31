#include "server/sidecar/alignment/alignment_program.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "server/sidecar/corpus.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/program_text.h"

namespace quicksave::server {
namespace {

using Json = nlohmann::ordered_json;

// A piece has about as many tokens for the other model; so many times more are room enough.
constexpr int kRoomForAnotherTokenizer = 8;

absl::StatusOr<compressor::LatentProfile> LoadProfile(const std::string& file) {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(file);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<compressor::LatentProfile> profile = compressor::LatentProfile::Parse(*bytes);
  if (profile.ok()) return profile;
  return absl::Status(profile.status().code(), absl::StrCat(file, ": ", profile.status().message()));
}

absl::StatusOr<float> StepOf(const AlignmentProgram::Model& model, const compressor::LatentProfile& profile) {
  if (model.step > 0) return model.step;
  for (const compressor::DialPoint& point : profile.points) {
    if (point.name == "default") return point.step;
  }
  return absl::InvalidArgumentError(absl::StrCat(model.profile, " has no point 'default'; give a step"));
}

std::string Line(const std::string& name, const AlignmentScores& scores) {
  const auto recognised = [](const Retrieval& r) {
    return absl::StrFormat("%.1f %% / %.1f %% / %.2f %%", 100 * r.top_1, 100 * r.top_10, 100 * r.chance);
  };
  return absl::StrFormat("| %s | %.3f | %.3f | %s | %s | %s |\n", name, scores.variance_explained, scores.cka,
                         recognised(scores.among_all), recognised(scores.within_token), recognised(scores.of_pieces));
}

Json ToJson(const Retrieval& retrieval) {
  return {{"queries", retrieval.queries}, {"candidates", retrieval.candidates}, {"top_1", retrieval.top_1},
          {"top_10", retrieval.top_10},   {"chance", retrieval.chance},         {"median_rank", retrieval.median_rank}};
}

Json ToJson(const AlignmentScores& scores) {
  return {{"variance_explained", scores.variance_explained},
          {"cka", scores.cka},
          {"among_all", ToJson(scores.among_all)},
          {"within_token", ToJson(scores.within_token)},
          {"of_pieces", ToJson(scores.of_pieces)}};
}

}  // namespace

std::string AlignmentToMarkdown(const AlignmentReport& report) {
  std::string text = absl::StrFormat(
      "%d tokens fitted, %d held out in %d pieces; %.1f %% of the source's tokens end where one of the target's does. "
      "CKA of the latents as they are: %.3f.\n\n",
      report.fitted_tokens, report.held_out_tokens, report.held_out_pieces, 100 * report.paired_tokens,
      report.cka_unmapped);
  absl::StrAppend(&text, "| map | variance explained | CKA | among ",
                  absl::StrFormat("%.0f", report.forward.among_all.candidates),
                  " places: first / first ten / chance | among places of the same token (",
                  absl::StrFormat("%.0f", report.forward.within_token.candidates), " on average) | pieces, among ",
                  report.held_out_pieces, " |\n|---|---|---|---|---|---|\n", Line("source to target", report.forward),
                  Line("target to source", report.backward), Line("control", report.control));
  return text;
}

std::string AlignmentToJson(const AlignmentReport& report, const std::string& command) {
  const Json json = {{"command", command},
                     {"machine", MachineText()},
                     {"fitted_tokens", report.fitted_tokens},
                     {"held_out_tokens", report.held_out_tokens},
                     {"held_out_pieces", report.held_out_pieces},
                     {"paired_tokens", report.paired_tokens},
                     {"cka_unmapped", report.cka_unmapped},
                     {"source_to_target", ToJson(report.forward)},
                     {"target_to_source", ToJson(report.backward)},
                     {"control", ToJson(report.control)}};
  return absl::StrCat(json.dump(2), "\n");
}

absl::Status AlignmentProgram::Run(std::ostream& out_stream, std::ostream& log) {
  if (!out.empty()) {
    if (absl::Status status = CheckOutputFile(out, force); !status.ok()) return status;
  }
  options.progress = ProgressLines(log);
  struct Loaded {
    compressor::LatentProfile profile;
    std::unique_ptr<ModelRunner> runner;
    float step;
  };
  const auto load = [&](const Model& model) -> absl::StatusOr<Loaded> {
    options.progress(absl::StrCat("loading ", model.dir));
    absl::StatusOr<compressor::LatentProfile> profile = LoadProfile(model.profile);
    if (!profile.ok()) return profile.status();
    const absl::StatusOr<float> step = StepOf(model, *profile);
    if (!step.ok()) return step.status();
    auto runner = ModelRunner::Load(model.dir, threads, kRoomForAnotherTokenizer * piece_tokens);
    if (!runner.ok()) return runner.status();
    return Loaded{*std::move(profile), *std::move(runner), *step};
  };
  const absl::StatusOr<Loaded> from = load(source);
  if (!from.ok()) return from.status();
  const absl::StatusOr<Loaded> to = load(target);
  if (!to.ok()) return to.status();
  const text::Tokenizer& tokenizer = from->runner->tokenizer();
  const auto cut = CutPieces(texts, tokenizer, {.tokens_per_piece = piece_tokens, .pieces = pieces, .seed = seed});
  if (!cut.ok()) return cut.status();
  options.texts.clear();
  for (const TextPiece& piece : *cut) {
    absl::StatusOr<std::string> text = tokenizer.Decode(piece.tokens, /*skip_special=*/true);
    if (!text.ok()) return text.status();
    options.texts.push_back(*std::move(text));
  }
  const absl::StatusOr<AlignmentReport> report =
      Align({from->runner.get(), &from->profile, {.components_per_group = components, .step = from->step}},
            {to->runner.get(), &to->profile, {.components_per_group = components, .step = to->step}}, options);
  if (!report.ok()) return report.status();
  out_stream << AlignmentToMarkdown(*report);
  return out.empty() ? absl::OkStatus() : WriteFileAtomically(out, AlignmentToJson(*report, command));
}

}  // namespace quicksave::server
