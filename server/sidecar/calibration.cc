#include "server/sidecar/calibration.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "compressor/latent/quantiser.h"
#include "compressor/latent/residual_codec.h"
#include "server/sidecar/calibration_work.h"
#include "server/sidecar/dial_curve.h"
#include "server/sidecar/profile_tables.h"
#include "server/sidecar/yardsticks.h"

namespace quicksave::server {
namespace {

using compressor::LatentProfile;

// One of so many pieces is for tables, and one is held out.
constexpr size_t kRoleEvery = 10;
constexpr size_t kLeastPieces = 3;
constexpr size_t kMostTokensOfRole = 16384;

constexpr char kMomentsPart[] = "moments";

std::string PartOf(int split, absl::string_view what) { return absl::StrCat("split-", split, ".", what); }

// Identifies what the pieces are.
std::string DigestOf(const std::vector<TextPiece>& pieces) {
  std::string bytes;
  for (const TextPiece& piece : pieces) absl::StrAppend(&bytes, absl::StrJoin(piece.tokens, " "), "\n");
  return compressor::ComputeDigest(bytes).ToHex();
}

int64_t TokensOf(const std::vector<TextPiece>& pieces) {
  int64_t tokens = 0;
  for (const TextPiece& piece : pieces) tokens += static_cast<int64_t>(piece.tokens.size());
  return tokens;
}

// Raised when the same moments give another profile, be it by the fit or by the codec that counts its tables.
constexpr char kFitVersion[] = "2";

// What the profiles are made of and how; the same for equal work.
std::map<std::string, std::string> NotesOf(const std::vector<TextPiece>& pieces, const CalibrationOptions& options) {
  return {{"program", "quicksave-calibrate " QUICKSAVE_VERSION},
          {"fit_version", kFitVersion},
          {"tokens", absl::StrCat(TokensOf(pieces))},
          {"pieces", absl::StrCat(pieces.size())},
          {"pieces_digest", DigestOf(pieces)},
          {"seed", absl::StrCat(options.seed)},
          {"layers_per_group", absl::StrCat(options.layers_per_group)},
          {"gradient_pieces", absl::StrCat(options.gradients.pieces)},
          {"gradient_samples", absl::StrCat(options.gradients.samples)},
          {"gradient_context", absl::StrCat(options.gradients.context)},
          {"gradient_labels", absl::StrCat(options.gradients.labels)},
          {kTextsNote, NoteOfTexts(options.texts)}};
}

class Calibrator {
 public:
  Calibrator(ModelRunner& runner, const std::vector<TextPiece>& pieces, const CalibrationOptions& options,
             PieceRoles roles)
      : runner_(runner), options_(options), roles_(std::move(roles)), notes_(NotesOf(pieces, options)) {}

  absl::StatusOr<Calibration> Run() {
    if (absl::Status status = OpenWork(); !status.ok()) return status;
    if (absl::Status status = Fit(); !status.ok()) return status;
    Calibration calibration;
    for (const int split : options_.splits) {
      absl::StatusOr<LatentProfile> profile = Finish(split, calibration.report);
      if (!profile.ok()) return profile.status();
      calibration.profiles.push_back(*std::move(profile));
    }
    if (absl::Status status = AddControls(calibration.report); !status.ok()) return status;
    calibration.report.model = PrintableAscii(runner_.fingerprint());
    calibration.report.remarks.push_back(
        absl::StrCat("Held-out pieces of the calibration texts: ", roles_.held_out.size(),
                     ". Texts of other kinds may do worse; ", "quicksave-eval measures them, and the noise floor"));
    return calibration;
  }

 private:
  absl::Status OpenWork() {
    if (options_.work_folder.empty()) return absl::OkStatus();
    std::map<std::string, std::string> key = notes_;
    key["model"] = runner_.fingerprint();
    key["splits"] = absl::StrJoin(options_.splits, ",");
    key["threads"] = absl::StrCat(options_.threads);
    absl::StatusOr<CalibrationWork> work = CalibrationWork::Open(options_.work_folder, key);
    if (!work.ok()) return work.status();
    work_ = *std::move(work);
    return absl::OkStatus();
  }

  void Report(const std::string& what, double done) const {
    if (options_.progress) options_.progress(what, done);
  }
  PartDone ReportOf(const std::string& what) const {
    return [this, what](double done) { Report(what, done); };
  }
  absl::Status CheckStopped() const {
    if (!options_.stopped || !options_.stopped()) return absl::OkStatus();
    return absl::CancelledError(work_.keeps() ? "stopped; the same command goes on from here" : "stopped");
  }

  // Fits the splits that were not fitted before; their profiles have placeholders for tables.
  absl::Status Fit() {
    const bool fitted = std::all_of(options_.splits.begin(), options_.splits.end(),
                                    [&](int split) { return work_.Has(PartOf(split, "fitted")); });
    if (fitted) return absl::OkStatus();
    LatentProfile model;
    model.model_fingerprint = runner_.fingerprint();
    model.layers = runner_.config().layers;
    model.kv_heads = runner_.config().kv_heads;
    model.head_dim = runner_.config().head_dim;
    model.notes = notes_;
    std::vector<std::unique_ptr<ProfileFitter>> fitters;
    std::vector<ProfileFitter*> pointers;
    for (const int split : options_.splits) {
      fitters.push_back(
          std::make_unique<ProfileFitter>(model, runner_.config().hidden_size,
                                          FitOptions{.split = split, .layers_per_group = options_.layers_per_group}));
      pointers.push_back(fitters.back().get());
    }
    if (absl::Status status = Collect(pointers); !status.ok()) return status;
    for (size_t i = 0; i < fitters.size(); ++i) {
      Report(absl::StrCat("fitting split ", options_.splits[i]),
             static_cast<double>(i) / static_cast<double>(fitters.size()));
      absl::StatusOr<LatentProfile> profile = fitters[i]->Fit();
      if (!profile.ok()) return profile.status();
      fitters[i].reset();
      profile->classes = compressor::ClassStatistics().Build();
      profile->residual_tables = compressor::ResidualStatistics().Build();
      if (absl::Status status = Keep("fitted", *std::move(profile)); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Collect(const std::vector<ProfileFitter*>& fitters) {
    MomentCollector collector(runner_, roles_.fitted, options_.gradients, fitters);
    if (work_.Has(kMomentsPart)) {
      absl::Status status = work_.Read(kMomentsPart, [&](std::istream& stream) { return collector.Load(stream); });
      if (!status.ok()) return status;
    }
    const auto save = [&] { return work_.Write(kMomentsPart, [&](std::ostream& stream) { collector.Save(stream); }); };
    absl::Time saved = absl::Now();
    bool unsaved = false;
    while (!collector.done()) {
      if (absl::Status status = CheckStopped(); !status.ok()) {
        status.Update(save());
        return status;
      }
      if (collector.states_done() < collector.states_wanted()) {
        Report("states", static_cast<double>(collector.states_done()) / collector.states_wanted());
      } else {
        Report("gradients", static_cast<double>(collector.gradients_done()) / collector.gradients_wanted());
      }
      if (absl::Status status = collector.AddNext(); !status.ok()) return status;
      unsaved = true;
      if (absl::Now() - saved < options_.save_interval) continue;
      if (absl::Status status = save(); !status.ok()) return status;
      saved = absl::Now();
      unsaved = false;
    }
    return unsaved ? save() : absl::OkStatus();
  }

  // Keeps a stage of a profile, in the work folder and in memory.
  absl::Status Keep(const std::string& stage, LatentProfile profile) {
    if (absl::Status status = profile.Validate(); !status.ok()) return status;
    if (absl::Status status = work_.Write(PartOf(profile.split, stage), profile.Serialize()); !status.ok()) {
      return status;
    }
    stages_[PartOf(profile.split, stage)] = std::move(profile);
    return absl::OkStatus();
  }

  // A stage that was kept before.
  absl::StatusOr<LatentProfile> Kept(int split, const std::string& stage) {
    const std::string part = PartOf(split, stage);
    if (auto node = stages_.extract(part); !node.empty()) return std::move(node.mapped());
    const absl::StatusOr<std::string> bytes = work_.Read(part);
    if (!bytes.ok()) return bytes.status();
    return LatentProfile::Parse(*bytes);
  }

  // Tables, curve and points of a split that was fitted.
  absl::StatusOr<LatentProfile> Finish(int split, metrics::RateDistortionReport& report) {
    if (!work_.Has(PartOf(split, "counted"))) {
      absl::StatusOr<LatentProfile> fitted = Kept(split, "fitted");
      if (!fitted.ok()) return fitted.status();
      if (absl::Status status = CheckStopped(); !status.ok()) return status;
      absl::Status status =
          CountSymbols(runner_, roles_.tables, ReportOf(absl::StrCat("tables of split ", split)), *fitted);
      if (!status.ok()) return status;
      status =
          CountResiduals(runner_, roles_.tables, ReportOf(absl::StrCat("residual tables of split ", split)), *fitted);
      if (!status.ok()) return status;
      if (status = Keep("counted", *std::move(fitted)); !status.ok()) return status;
    }
    absl::StatusOr<LatentProfile> profile = Kept(split, "counted");
    if (!profile.ok()) return profile.status();
    const absl::StatusOr<metrics::RateDistortionReport> curve = CurveOf(*profile);
    if (!curve.ok()) return curve.status();
    profile->points = NamedPoints(curve->points);
    if (absl::Status status = profile->Validate(); !status.ok()) return status;
    const auto bytes = static_cast<int64_t>(profile->Serialize().size());
    for (metrics::RateDistortionPoint point : curve->points) {
      point.sidecar_bytes = bytes;
      report.points.push_back(std::move(point));
    }
    return profile;
  }

  // A report that has the points alone.
  absl::StatusOr<metrics::RateDistortionReport> CurveOf(const LatentProfile& profile) {
    const std::string part = PartOf(profile.split, "curve.json");
    if (work_.Has(part)) {
      const absl::StatusOr<std::string> json = work_.Read(part);
      return json.ok() ? metrics::ReportFromJson(*json) : json.status();
    }
    if (absl::Status status = CheckStopped(); !status.ok()) return status;
    auto points =
        MeasureCurve(runner_, roles_.held_out, ReportOf(absl::StrCat("curve of split ", profile.split)), profile);
    if (!points.ok()) return points.status();
    metrics::RateDistortionReport curve{.points = *std::move(points)};
    const absl::StatusOr<std::string> json = metrics::ReportToJson(curve);
    if (!json.ok()) return json.status();
    if (absl::Status status = work_.Write(part, *json); !status.ok()) return status;
    return curve;
  }

  absl::Status AddControls(metrics::RateDistortionReport& report) {
    Report("negative controls", 0);
    std::vector<LiveText> texts;
    for (const TextPiece* piece : {roles_.held_out[0], roles_.tables[0]}) {
      const auto tokens = absl::MakeConstSpan(piece->tokens);
      const CurveLengths lengths = CurveLengthsOf(static_cast<int>(tokens.size()));
      absl::StatusOr<LiveText> text =
          RunLive(runner_, tokens.first(lengths.context + lengths.continuation), lengths.context, {});
      if (!text.ok()) return text.status();
      texts.push_back(*std::move(text));
    }
    absl::StatusOr<std::vector<metrics::NegativeControl>> controls = MeasureControls(runner_, texts[0], texts[1]);
    if (!controls.ok()) return controls.status();
    report.controls = *std::move(controls);
    return absl::OkStatus();
  }

  ModelRunner& runner_;
  const CalibrationOptions& options_;
  const PieceRoles roles_;
  const std::map<std::string, std::string> notes_;
  CalibrationWork work_;
  std::map<std::string, LatentProfile> stages_;
};

}  // namespace

absl::StatusOr<PieceRoles> RolesOf(const std::vector<TextPiece>& pieces) {
  if (pieces.size() < kLeastPieces) {
    return absl::InvalidArgumentError(absl::StrCat("calibration needs at least ", kLeastPieces, " pieces of text, not ",
                                                   pieces.size(), ": one to fit, one for tables, one to measure on"));
  }
  // By file, so that every so many of them are of different files.
  std::vector<const TextPiece*> order;
  for (const TextPiece& piece : pieces) order.push_back(&piece);
  std::stable_sort(order.begin(), order.end(),
                   [](const TextPiece* a, const TextPiece* b) { return a->file < b->file; });
  const size_t tokens = TokensOf(pieces);
  const size_t every =
      std::max(std::min(kRoleEvery, order.size()), (tokens + kMostTokensOfRole - 1) / kMostTokensOfRole);
  std::set<const TextPiece*> kept;
  PieceRoles roles;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i % every == every - 1) roles.tables.push_back(order[i]);
    if (i % every == (every - 1) / 2) roles.held_out.push_back(order[i]);
    if (i % every == every - 1 || i % every == (every - 1) / 2) kept.insert(order[i]);
  }
  // In the order of the pieces, which takes the files in turn: the first ones give the gradients.
  for (const TextPiece& piece : pieces) {
    if (kept.count(&piece) == 0) roles.fitted.push_back(&piece);
  }
  return roles;
}

double CalibrationMemory(const engine::ModelConfig& config, const CalibrationOptions& options) {
  const double hidden = config.hidden_size;
  const double per_layer =
      hidden * (2.0 * config.query_width() + 2.0 * config.kv_width()) + 3.0 * hidden * config.intermediate_size;
  const double weights = per_layer * config.layers + hidden * config.vocab_size * (config.tied_head ? 1 : 2);
  const double group_layers = std::clamp(options.layers_per_group, 1, config.layers);
  const double channels = group_layers * 2 * config.kv_width();
  double moments = 0;
  for (const int split : options.splits) {
    const double groups = std::max(config.layers - 1 - split, 1) / group_layers;
    moments += 4 * (groups * (2 * channels * channels + hidden * channels) + hidden * hidden);
  }
  // About eighteen matrices of the largest group in double.
  return 6 * weights + moments + 144 * channels * channels;
}

absl::StatusOr<Calibration> Calibrate(ModelRunner& runner, const std::vector<TextPiece>& pieces,
                                      const CalibrationOptions& options) {
  if (options.splits.empty()) return absl::InvalidArgumentError("calibration needs at least one split");
  std::set<int> splits;
  for (const int split : options.splits) {
    if (split < 0 || split + 1 >= runner.config().layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("a split must be 0 to ", runner.config().layers - 2, ", not ", split));
    }
    if (!splits.insert(split).second) return absl::InvalidArgumentError(absl::StrCat("the split ", split, " is twice"));
  }
  absl::StatusOr<PieceRoles> roles = RolesOf(pieces);
  if (!roles.ok()) return roles.status();
  at::set_num_threads(options.threads);
  return Calibrator(runner, pieces, options, *std::move(roles)).Run();
}

}  // namespace quicksave::server
