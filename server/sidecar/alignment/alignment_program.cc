#include "server/sidecar/alignment/alignment_program.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "server/engine/model/model_config.h"
#include "server/sidecar/calibration_notes.h"
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
  if (model.step) return *model.step;
  for (const compressor::DialPoint& point : profile.points) {
    if (point.name == "default") return point.step;
  }
  return absl::InvalidArgumentError(absl::StrCat(model.profile, " has no point 'default'; give a step"));
}

std::string RecognisedText(const Retrieval& r) {
  if (r.queries == 0) return "-";
  return absl::StrFormat("%.1f %% (%.2f %%), %.1f %% (%.1f %%)", 100 * r.top_1, 100 * r.chance, 100 * r.top_10,
                         100 * r.chance_10);
}

std::string Line(const std::string& name, const AlignmentScores& scores, bool with_cka) {
  return absl::StrFormat("| %s | %.3f | %s | %s | %s | %s |\n", name, scores.variance_explained,
                         with_cka ? absl::StrFormat("%.3f", scores.cka) : "-", RecognisedText(scores.among_all),
                         RecognisedText(scores.within_token), RecognisedText(scores.of_pieces));
}

// For each text that a profile was calibrated on, a line that says so.
std::string CalibratedOn(const std::vector<std::string>& texts, const compressor::LatentProfile& profile,
                         const std::string& file) {
  const auto note = profile.notes.find(kTextsNote);
  if (note == profile.notes.end()) return "";
  std::vector<TextDigest> digests;
  for (const std::string& text : texts) {
    absl::StatusOr<TextDigest> digest = DigestOfText(text);
    if (digest.ok()) digests.push_back(*std::move(digest));
  }
  const absl::Status status = CheckNotCalibratedOn(digests, TextsOfNote(note->second));
  return status.ok() ? "" : absl::StrCat("Remark: ", file, ": ", status.message(), "\n\n");
}

Json ToJson(const Retrieval& retrieval) {
  return {
      {"queries", retrieval.queries},        {"candidates", retrieval.candidates}, {"top_1", retrieval.top_1},
      {"top_10", retrieval.top_10},          {"chance", retrieval.chance},         {"chance_10", retrieval.chance_10},
      {"median_rank", retrieval.median_rank}};
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
  absl::StrAppend(
      &text, "How often the right one is the nearest, and among the ten nearest (in brackets: by chance)",
      absl::StrFormat(", among %.0f places; among those where both read the same token (%.0f on average); and of the "
                      "means of pieces, among %d.\n\n",
                      report.forward.among_all.candidates, report.forward.within_token.candidates,
                      report.held_out_pieces),
      "| map | variance explained | CKA | places | places of the same token | pieces |\n|---|---|---|---|---|---|\n",
      Line("source to target", report.forward, true), Line("target to source", report.backward, true),
      Line("control", report.control, false));
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

absl::StatusOr<bool> AlignmentProgram::Run(std::ostream& out_stream, std::ostream& log) {
  if (!out.empty()) {
    if (absl::Status status = CheckOutputFile(out, force); !status.ok()) return status;
  }
  if (absl::Status status = CheckAlignmentOptions(options); !status.ok()) return status;
  for (const Model* model : {&source, &target}) {
    const absl::StatusOr<engine::ModelConfig> config = engine::LoadModelConfig(model->dir);
    if (!config.ok()) return config.status();
    if (piece_tokens <= config->context_length) continue;
    return absl::InvalidArgumentError(absl::StrCat("a piece has ", piece_tokens, " tokens, but ", model->dir, " takes ",
                                                   config->context_length, " at most"));
  }
  at::set_num_threads(threads);
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
  const auto cut =
      CutPieces(texts, tokenizer, {.tokens_per_piece = piece_tokens, .pieces = pieces, .seed = options.seed});
  if (!cut.ok()) return cut.status();
  options.texts.clear();
  for (const TextPiece& piece : *cut) {
    absl::StatusOr<std::string> text = tokenizer.Decode(piece.tokens, /*skip_special=*/true);
    if (!text.ok()) return text.status();
    options.texts.push_back({piece.file, *std::move(text)});
  }
  const absl::StatusOr<AlignmentReport> report =
      Align({from->runner.get(), &from->profile, {.components_per_group = components, .step = from->step}},
            {to->runner.get(), &to->profile, {.components_per_group = components, .step = to->step}}, options);
  if (!report.ok()) return report.status();
  out_stream << CalibratedOn(texts, from->profile, source.profile) << CalibratedOn(texts, to->profile, target.profile)
             << AlignmentToMarkdown(*report);
  if (!out.empty()) {
    absl::Status status = WriteFileAtomically(out, AlignmentToJson(*report, command));
    if (!status.ok()) return status;
  }
  return report->reliable();
}

}  // namespace quicksave::server
