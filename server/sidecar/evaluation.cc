#include "server/sidecar/evaluation.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"
#include "compressor/learned/profile_codecs.h"
#include "server/engine/model/reference_decoder.h"
#include "server/sidecar/drift.h"
#include "server/sidecar/metrics/figure_text.h"
#include "server/sidecar/metrics/rate_distortion_chart.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/trial_totals.h"
#include "server/sidecar/yardsticks.h"

namespace quicksave::server {
namespace {

constexpr char kExactCodec[] = "exact";
// Has no factor in common with the engine's pages or with the chunks of other runs.
constexpr int kOddChunk = 37;

}  // namespace

Evaluation::Evaluation(ModelRunner& runner, EvaluationOptions options)
    : runner_(runner), options_(std::move(options)) {}

void Evaluation::Report(const std::string& what) const {
  if (options_.progress) options_.progress(what);
}

std::string Evaluation::UnusedLabel(const std::string& label, const std::string& file) const {
  const auto used = [&](const std::string& wanted) {
    return std::any_of(contenders_.begin(), contenders_.end(), [&](const Contender& c) { return c.label == wanted; });
  };
  if (!used(label)) return label;
  std::string other = absl::StrCat(label, " ", KindOfFile(file));
  for (int again = 2; used(other); ++again) other = absl::StrCat(label, " ", KindOfFile(file), " ", again);
  return other;
}

absl::Status Evaluation::AddExact() {
  Contender contender{.label = UnusedLabel(kExactCodec, "built in"), .codec = kExactCodec, .steps = {0}};
  contender.registry = std::make_unique<compressor::CodecRegistry>();
  if (absl::Status status = compressor::RegisterBuiltinCodecs(*contender.registry); !status.ok()) return status;
  contenders_.push_back(std::move(contender));
  return absl::OkStatus();
}

absl::Status Evaluation::AddExact(const std::string& profile_file) {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(profile_file);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<compressor::ExactProfile> profile = compressor::ExactProfile::Parse(*bytes);
  if (!profile.ok()) {
    return absl::Status(profile.status().code(), absl::StrCat(profile_file, ": ", profile.status().message()));
  }
  Contender contender{.label = UnusedLabel("exact, profile", profile_file),
                      .codec = kExactCodec,
                      .steps = {0},
                      .sidecar_bytes = static_cast<int64_t>(bytes->size())};
  contender.registry = std::make_unique<compressor::CodecRegistry>();
  absl::Status status = contender.registry->Register(
      compressor::NewExactCodec(std::make_shared<const compressor::ExactProfile>(*std::move(profile))));
  if (!status.ok()) return status;
  contenders_.push_back(std::move(contender));
  return absl::OkStatus();
}

absl::Status Evaluation::AddLatent(const std::string& profile_file) {
  const absl::StatusOr<std::string> bytes = ReadWholeFile(profile_file);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<compressor::ProfileCodecs> parsed = compressor::ParseProfile(*bytes);
  if (!parsed.ok()) {
    return absl::Status(parsed.status().code(), absl::StrCat(profile_file, ": ", parsed.status().message()));
  }
  const std::shared_ptr<const compressor::LatentProfile> profile = parsed->profile;
  const std::string codec(parsed->latent->name());
  if (profile->model_fingerprint != runner_.fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(profile_file, " is for the model ", profile->model_fingerprint,
                                                      ", this one is ", runner_.fingerprint()));
  }
  Contender contender{.label = UnusedLabel(absl::StrCat(codec, " n=", profile->split), profile_file),
                      .codec = codec,
                      .split = profile->split,
                      .has_residual = parsed->residual != nullptr,
                      .steps = options_.steps,
                      .sidecar_bytes = static_cast<int64_t>(bytes->size())};
  if (contender.steps.empty()) {
    for (const compressor::DialPoint& point : profile->points) contender.steps.push_back(point.step);
  }
  if (contender.steps.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(profile_file, " has no named points: give steps"));
  }
  const auto note = profile->notes.find(kTextsNote);
  if (note != profile->notes.end()) {
    contender.calibration_texts = TextsOfNote(note->second);
  } else {
    report_.remarks.push_back(absl::StrCat(contender.label,
                                           " does not say on which texts it was calibrated: that they "
                                           "are others than these cannot be checked"));
  }
  contender.registry = std::make_unique<compressor::CodecRegistry>();
  absl::Status status = contender.registry->Register(std::move(parsed->latent));
  if (contender.has_residual) status.Update(contender.registry->Register(std::move(parsed->residual)));
  if (!status.ok()) return status;
  splits_.push_back(profile->split);
  contenders_.push_back(std::move(contender));
  return absl::OkStatus();
}

absl::Status Evaluation::CheckHygiene() {
  std::vector<TextDigest> texts;
  for (const TextKind& kind : options_.texts) {
    for (const std::string& file : kind.files) {
      absl::StatusOr<TextDigest> digest = DigestOfText(file);
      if (!digest.ok()) return digest.status();
      texts.push_back(*std::move(digest));
    }
  }
  for (const Contender& contender : contenders_) {
    const absl::Status status = CheckNotCalibratedOn(texts, contender.calibration_texts);
    if (status.ok()) continue;
    const std::string what = absl::StrCat(contender.label, ": ", status.message());
    if (!options_.allow_calibration_texts) return absl::Status(status.code(), what);
    report_.remarks.push_back(absl::StrCat(what, " (allowed by an option)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Evaluation::Panel>> Evaluation::CutPanels() {
  std::vector<Panel> panels;
  for (const int context : options_.contexts) {
    for (const TextKind& kind : options_.texts) {
      absl::StatusOr<std::vector<TextPiece>> pieces = CutPieces(
          kind.files, runner_.tokenizer(),
          {.tokens_per_piece = context + options_.continuation, .pieces = options_.pieces, .seed = options_.seed});
      if (!pieces.ok()) {
        return absl::Status(pieces.status().code(),
                            absl::StrCat("the kind of text '", kind.kind, "': ", pieces.status().message()));
      }
      if (static_cast<int>(pieces->size()) < options_.pieces) {
        report_.remarks.push_back(absl::StrCat(kind.kind, " has only ", pieces->size(), " of ", options_.pieces,
                                               " pieces of ", context + options_.continuation, " tokens"));
      }
      panels.push_back({kind.kind, context, *std::move(pieces)});
    }
  }
  return panels;
}

absl::Status Evaluation::AddControls(const std::vector<Panel>& panels, int context) {
  std::vector<const TextPiece*> pieces;  // the first of each kind, then the others
  for (const bool first : {true, false}) {
    for (const Panel& panel : panels) {
      for (size_t i = first ? 0 : 1; panel.context == context && i < (first ? 1 : panel.pieces.size()); ++i) {
        pieces.push_back(&panel.pieces[i]);
      }
    }
  }
  if (pieces.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat("the negative control needs two pieces of ", context,
                                                   " tokens and their continuation: give more "
                                                   "pieces, or a longer text"));
  }
  Report(absl::StrCat("negative controls, ", context, " tokens"));
  const absl::StatusOr<LiveText> a = RunLive(runner_, pieces[0]->tokens, context, {});
  if (!a.ok()) return a.status();
  const absl::StatusOr<LiveText> b = RunLive(runner_, pieces[1]->tokens, context, {});
  if (!b.ok()) return b.status();
  const auto controls = MeasureControls(runner_, *a, *b);
  if (!controls.ok()) return controls.status();
  for (const metrics::NegativeControl& control : *controls) {
    report_.controls.push_back({absl::StrCat(control.name, ", ", context, " tokens"), control.mean_kl});
  }
  return absl::OkStatus();
}

absl::Status Evaluation::AddNoiseFloor(const std::vector<Panel>& panels) {
  if (options_.floor_pieces == 0) {
    report_.remarks.emplace_back("The noise floor was not measured (by an option)");
    return absl::OkStatus();
  }
  Report("noise floor: loading the model in fp32");
  const auto reference = engine::ReferenceDecoder::Load(runner_.model_dir());
  if (!reference.ok()) return reference.status();
  const int context = *std::min_element(options_.contexts.begin(), options_.contexts.end());
  metrics::DivergenceRows rows;
  int64_t different = 0;
  int used = 0;
  for (size_t i = 0; used < options_.floor_pieces; ++i) {
    const int before = used;
    for (const Panel& panel : panels) {
      if (panel.context != context || i >= panel.pieces.size() || used == options_.floor_pieces) continue;
      Report(absl::StrCat("noise floor: piece ", ++used, " of ", options_.floor_pieces));
      const absl::StatusOr<LiveText> live = RunLive(runner_, panel.pieces[i].tokens, context, {});
      if (!live.ok()) return live.status();
      const absl::StatusOr<int64_t> chunked = CountChunkDifferences(runner_, live->context, kOddChunk);
      if (!chunked.ok()) return chunked.status();
      different += *chunked;
      const absl::StatusOr<metrics::DivergenceRows> floor = CompareWithReference(**reference, *live);
      if (!floor.ok()) return floor.status();
      if (absl::Status status = rows.Append(*floor); !status.ok()) return status;
    }
    if (used == before) break;
  }
  const absl::StatusOr<metrics::DivergenceSummary> summary = rows.Summarize();
  if (!summary.ok()) return summary.status();
  report_.noise_floor_kl = summary->kl.mean;
  report_.remarks.push_back(absl::StrCat(
      "The noise floor is the model in fp32 against the engine's bf16 arithmetic: ", used, " piece(s) of ", context,
      " tokens, ", summary->kl.count, " scored, p99 KL ", metrics::ReadableNumber(summary->kl.p99), ", top-1 ",
      metrics::ReadableNumber(100 * summary->top_1_agreement), " %"));
  report_.remarks.push_back(absl::StrCat("Prefill in chunks of ", kOddChunk, " instead of 128 tokens: ", different,
                                         " values of K and V differ on the noise floor's pieces",
                                         different == 0 ? ", so chunking adds no noise" : ""));
  return absl::OkStatus();
}

absl::Status Evaluation::AddPoints(const Panel& panel) {
  // By contender, step, and without or with residual.
  std::map<std::tuple<size_t, float, bool>, TrialTotals> totals;
  for (size_t i = 0; i < panel.pieces.size(); ++i) {
    const std::string where =
        absl::StrCat(panel.kind, ", ", panel.context, " tokens, piece ", i + 1, " of ", panel.pieces.size());
    Report(where);
    const absl::StatusOr<LiveText> live = RunLive(runner_, panel.pieces[i].tokens, panel.context, splits_);
    if (!live.ok()) return live.status();
    for (size_t c = 0; c < contenders_.size(); ++c) {
      const Contender& contender = contenders_[c];
      for (const float step : contender.steps) {
        Report(absl::StrCat(where, ": ", contender.label, step > 0 ? absl::StrCat(", step ", step) : ""));
        const bool residual = options_.residual && contender.has_residual;
        const absl::StatusOr<TrialResult> trial =
            TryCodec(runner_, *live, *contender.registry,
                     {.codec = contender.codec, .split = contender.split, .step = step, .residual = residual});
        if (!trial.ok()) return trial.status();
        absl::Status status =
            totals[{c, step, false}].Add(panel.context, trial->raw_bytes, trial->cost, trial->divergence);
        if (residual) {
          status.Update(totals[{c, step, true}].Add(panel.context, trial->raw_bytes, trial->layered_cost,
                                                    trial->layered_divergence));
        }
        if (!status.ok()) return status;
      }
    }
  }
  for (const auto& [key, total] : totals) {
    const auto& [c, step, layered] = key;
    absl::StatusOr<metrics::RateDistortionPoint> point = total.ToPoint();
    if (!point.ok()) return point.status();
    point->codec = absl::StrCat(contenders_[c].label, layered ? " + residual" : "");
    point->text_kind = panel.kind;
    point->split_layers = contenders_[c].split.value_or(0);
    point->step = step;
    point->sidecar_bytes = contenders_[c].sidecar_bytes;
    report_.points.push_back(*std::move(point));
  }
  return absl::OkStatus();
}

absl::StatusOr<metrics::RateDistortionReport> Evaluation::Run() {
  if (absl::Status status = CheckEvaluationOptions(options_, runner_.config().context_length); !status.ok()) {
    return status;
  }
  if (contenders_.empty()) return absl::FailedPreconditionError("evaluation needs a codec");
  size_t curves = contenders_.size();
  for (const Contender& contender : contenders_) curves += options_.residual && contender.has_residual ? 1 : 0;
  if (curves > metrics::kMostCodecs) {
    return absl::InvalidArgumentError(
        absl::StrCat("a report has room for ", metrics::kMostCodecs, " curves, not ", curves, ": give fewer profiles"));
  }
  if (absl::Status status = CheckHygiene(); !status.ok()) return status;
  const absl::StatusOr<std::vector<Panel>> panels = CutPanels();
  if (!panels.ok()) return panels.status();
  for (const int context : options_.contexts) {
    if (absl::Status status = AddControls(*panels, context); !status.ok()) return status;
  }
  if (absl::Status status = AddNoiseFloor(*panels); !status.ok()) return status;
  for (const Panel& panel : *panels) {
    if (absl::Status status = AddPoints(panel); !status.ok()) return status;
  }
  report_.remarks.push_back(absl::StrCat("At most ", options_.pieces, " piece(s) of each kind, continuation of ",
                                         options_.continuation, " tokens, seed ", options_.seed,
                                         "; speeds are of one thread's processor time, without recomputed layers"));
  return std::move(report_);
}

DriftOptions Evaluation::DriftOptionsOf(const Contender& contender, float step) const {
  return {.codec = contender.codec,
          .step = step,
          .context = options_.contexts.front(),
          .extension = options_.extension,
          .generations = options_.generations,
          .continuation = options_.continuation};
}

absl::StatusOr<std::vector<TextPiece>> Evaluation::CutDriftPieces() const {
  std::vector<TextPiece> pieces;
  const int tokens = TokensForDrift(DriftOptionsOf({}, 0));
  for (const TextKind& kind : options_.texts) {
    absl::StatusOr<std::vector<TextPiece>> cut =
        CutPieces(kind.files, runner_.tokenizer(),
                  {.tokens_per_piece = tokens, .pieces = options_.pieces, .seed = options_.seed});
    if (!cut.ok()) {
      return absl::Status(cut.status().code(), absl::StrCat("drift, ", kind.kind, ": ", cut.status().message()));
    }
    pieces.insert(pieces.end(), cut->begin(), cut->end());
  }
  return pieces;
}

absl::Status Evaluation::CheckDrift() {
  if (absl::Status status = CheckEvaluationOptions(options_, runner_.config().context_length); !status.ok()) {
    return status;
  }
  if (options_.generations.empty()) return absl::InvalidArgumentError("drift needs a number of generations");
  if (std::none_of(contenders_.begin(), contenders_.end(), [](const Contender& c) { return c.split == 0; })) {
    return absl::InvalidArgumentError(
        "drift is measured of latents without recomputed layers: add a profile of split 0");
  }
  return CutDriftPieces().status();
}

absl::StatusOr<std::vector<DriftPoint>> Evaluation::DriftOf(const Contender& contender, float step,
                                                            const std::vector<TextPiece>& pieces) {
  const DriftOptions drift = DriftOptionsOf(contender, step);
  std::vector<DriftRows> totals(drift.generations.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    Report(absl::StrCat("drift: ", contender.label, ", step ", step, ", piece ", i + 1, " of ", pieces.size()));
    const auto rows = MeasureDrift(runner_, pieces[i].tokens, *contender.registry, drift);
    if (!rows.ok()) return rows.status();
    for (size_t k = 0; k < totals.size(); ++k) {
      absl::Status status = totals[k].append_only.Append((*rows)[k].append_only);
      status.Update(totals[k].anew.Append((*rows)[k].anew));
      status.Update(totals[k].once.Append((*rows)[k].once));
      if (!status.ok()) return status;
    }
  }
  std::vector<DriftPoint> points;
  for (size_t k = 0; k < totals.size(); ++k) {
    const auto append_only = totals[k].append_only.Summarize();
    const auto anew = totals[k].anew.Summarize();
    const auto once = totals[k].once.Summarize();
    for (const auto* summary : {&append_only, &anew, &once}) {
      if (!summary->ok()) return summary->status();
    }
    const int generations = drift.generations[k];
    points.push_back({contender.label, step, generations, drift.context + generations * drift.extension, *append_only,
                      *anew, *once});
  }
  return points;
}

absl::StatusOr<std::vector<DriftPoint>> Evaluation::RunDrift() {
  if (absl::Status status = CheckDrift(); !status.ok()) return status;
  const absl::StatusOr<std::vector<TextPiece>> pieces = CutDriftPieces();
  if (!pieces.ok()) return pieces.status();
  std::vector<DriftPoint> points;
  for (const Contender& contender : contenders_) {
    if (contender.split != 0) continue;
    for (const float step : contender.steps) {
      const auto of_step = DriftOf(contender, step, *pieces);
      if (!of_step.ok()) return of_step.status();
      points.insert(points.end(), of_step->begin(), of_step->end());
    }
  }
  return points;
}

}  // namespace quicksave::server
