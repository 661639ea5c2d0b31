#include "server/sidecar/training/training_program.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/learned/learned_codec.h"
#include "nlohmann/json.hpp"
#include "server/sidecar/calibration.h"
#include "server/sidecar/calibration_work.h"
#include "server/sidecar/moment_collector.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/profile_fitter.h"
#include "server/sidecar/program_text.h"
#include "server/sidecar/training/sidecar_measures.h"
#include "server/sidecar/training/sidecar_trainer.h"
#include "server/sidecar/training/training_set.h"

namespace quicksave::server {
namespace {

using compressor::LatentProfile;
using compressor::LearnedProfile;
using Json = nlohmann::ordered_json;

constexpr char kCheckpoint[] = "checkpoint";
constexpr float kLearnedSteps[] = {0.35f, 0.7f, 1, 1.5f, 2.5f, 4};
// Of components in units of a deviation, and of those in the calibrated metric.
constexpr float kPlainSteps[] = {0.2f, 0.4f, 0.6f, 0.9f, 1.3f, 2};
constexpr float kCalibratedSteps[] = {0.3f, 0.7f, 1.5f, 3, 6, 12};

// A codec that was measured on the held-out pieces.
struct Measured {
  std::string label;
  std::unique_ptr<compressor::CodecRegistry> registry;
  std::string codec;
  int split = 0;
  int64_t sidecar_bytes = 0;
  std::vector<metrics::RateDistortionPoint> curve;
  std::vector<TensorDistance> distances;  // at the trained sidecar's ratio

  CurveSubject subject() const { return {label, *registry, codec, split, sidecar_bytes}; }
};

// The named points that lie between measured ones: none where all of them diverge more.
std::vector<compressor::DialPoint> MeasuredPoints(const std::vector<metrics::RateDistortionPoint>& curve) {
  const auto [least, most] = std::minmax_element(curve.begin(), curve.end(),
                                                 [](const auto& a, const auto& b) { return a.mean_kl < b.mean_kl; });
  std::vector<compressor::DialPoint> points = NamedPoints(curve);
  points.erase(std::remove_if(points.begin(), points.end(),
                              [&, least = least->mean_kl, most = most->mean_kl](const compressor::DialPoint& point) {
                                return point.mean_kl < least || point.mean_kl > most;
                              }),
               points.end());
  return points;
}

absl::Status Named(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}

// Mean of some figure of the tensors that a predicate takes.
template <typename Take>
double MeanOf(const std::vector<TensorDistance>& distances, double TensorDistance::*figure, Take take) {
  double sum = 0;
  int count = 0;
  for (const TensorDistance& distance : distances) {
    if (!take(distance)) continue;
    sum += distance.*figure;
    ++count;
  }
  return count == 0 ? 0 : sum / count;
}

Json ToJson(const std::vector<TensorDistance>& distances) {
  Json array = Json::array();
  for (const TensorDistance& d : distances) {
    array.push_back({{"layer", d.layer},
                     {"tensor", d.key ? "key" : "value"},
                     {"mean_squared_error", d.mean_squared_error},
                     {"relative_mse", d.relative_mse},
                     {"unexplained_variance", d.unexplained},
                     {"cosine", d.cosine},
                     {"cka", d.cka}});
  }
  return array;
}

class Training {
 public:
  Training(const TrainingProgram& program, ModelRunner& runner, PieceRoles roles, std::ostream& log)
      : p_(program), runner_(runner), roles_(std::move(roles)), log_(log), line_(ProgressLines(log)) {}

  absl::Status Run(const std::map<std::string, std::string>& notes) {
    if (absl::Status status = MakeBase(notes); !status.ok()) return status;
    if (absl::Status status = Train(notes); !status.ok()) return status;
    if (absl::Status status = MeasureAll(); !status.ok()) return status;
    return Write();
  }

 private:
  // The front, and principal components of its groups to compare with.
  absl::Status MakeBase(const std::map<std::string, std::string>& notes) {
    LatentProfile model{.model_fingerprint = runner_.fingerprint(),
                        .layers = runner_.config().layers,
                        .kv_heads = runner_.config().kv_heads,
                        .head_dim = runner_.config().head_dim};
    FitOptions fit{.split = p_.split, .layers_per_group = p_.layers_per_group, .metric = ErrorMetric::kVariance};
    if (!p_.front.empty()) {
      const absl::StatusOr<LatentProfile> front = ReadLatent(p_.front);
      if (!front.ok()) return front.status();
      base_ = *front;
      fit.split = base_.split;
      fit.layers_per_group = 0;
      for (const auto& group : base_.groups) fit.layers_per_group = std::max(fit.layers_per_group, group.layers);
    }
    ProfileFitter fitter(model, runner_.config().hidden_size, fit);
    MomentCollector collector(runner_, roles_.fitted, {.pieces = 0}, {&fitter});
    line_("statistics of K and V");
    while (!collector.done()) {
      if (absl::Status status = collector.AddNext(); !status.ok()) return status;
    }
    if (p_.front.empty()) {
      absl::StatusOr<LatentProfile> channels = fitter.FitChannels();
      if (!channels.ok()) return channels.status();
      base_ = *std::move(channels);
    }
    // What the front was calibrated on counts, too.
    std::vector<TextDigest> texts;
    for (const auto* all : {&notes, &std::as_const(base_.notes)}) {
      const auto note = all->find(kTextsNote);
      if (note == all->end()) continue;
      for (TextDigest& text : TextsOfNote(note->second)) texts.push_back(std::move(text));
    }
    base_.notes = notes;
    base_.notes[kTextsNote] = NoteOfTexts(texts);
    base_.points.clear();
    base_.classes = compressor::ClassStatistics().Build();
    base_.residual_tables = compressor::ResidualStatistics().Build();
    if (!p_.principal) return absl::OkStatus();
    line_("principal components");
    absl::StatusOr<LatentProfile> fitted = fitter.Fit();
    if (!fitted.ok()) return fitted.status();
    fitted->classes = base_.classes;
    fitted->residual_tables = base_.residual_tables;
    principal_ = *std::move(fitted);
    const auto quietly = [](double /*done*/) {};
    return CountSymbols(runner_, roles_.tables, quietly, *principal_);
  }

  absl::StatusOr<LatentProfile> ReadLatent(const std::string& file) const {
    const absl::StatusOr<std::string> bytes = ReadWholeFile(file);
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<LatentProfile> profile = LatentProfile::Parse(*bytes);
    if (!profile.ok()) return Named(file, profile.status());
    if (profile->model_fingerprint == runner_.fingerprint()) return profile;
    return absl::FailedPreconditionError(
        absl::StrCat(file, " is for the model ", profile->model_fingerprint, ", this one is ", runner_.fingerprint()));
  }

  absl::Status Train(const std::map<std::string, std::string>& notes) {
    CalibrationWork work;
    if (!p_.work.empty()) {
      absl::StatusOr<CalibrationWork> opened = CalibrationWork::Open(p_.work, notes);
      if (!opened.ok()) return opened.status();
      work = *std::move(opened);
    }
    line_("components of the training texts");
    const absl::StatusOr<TrainingSet> train = CollectTrainingSet(runner_, roles_.fitted, base_);
    if (!train.ok()) return train.status();
    const absl::StatusOr<TrainingSet> watch = CollectTrainingSet(runner_, roles_.tables, base_);
    if (!watch.ok()) return watch.status();
    SidecarTrainer trainer(*train, *watch, p_.options);
    log_ << absl::StrFormat("%d parameters, %d tokens, %d steps\n", trainer.parameters(), train->tokens(),
                            trainer.steps_wanted());
    if (work.Has(kCheckpoint)) {
      absl::Status status = work.Read(kCheckpoint, [&](std::istream& stream) { return trainer.Load(stream); });
      if (!status.ok()) return status;
      line_(absl::StrCat("going on from step ", trainer.steps_done()));
    }
    if (absl::Status status = Loop(trainer, work); !status.ok()) return status;
    history_ = trainer.history();
    parameters_ = trainer.parameters();
    learned_ = trainer.Best(base_);
    line_("tables");
    return CountLatents(runner_, roles_.tables, learned_);
  }

  absl::Status Loop(SidecarTrainer& trainer, const CalibrationWork& work) {
    const auto save = [&] { return work.Write(kCheckpoint, [&](std::ostream& stream) { trainer.Save(stream); }); };
    const absl::Time start = absl::Now();
    absl::Time saved = start;
    while (!trainer.done()) {
      if (p_.stopped && p_.stopped()) {
        absl::Status status =
            absl::CancelledError(work.keeps() ? "stopped; the same command goes on from here" : "stopped");
        status.Update(save());
        return status;
      }
      const size_t rows = trainer.history().size();
      if (absl::Status status = trainer.Step(); !status.ok()) return status;
      if (trainer.history().size() > rows) {
        const TrainingRow& row = trainer.history().back();
        line_(absl::StrFormat("step %d of %d: loss %.5f, relative error %.5f, %.3f bits a component", row.step,
                              trainer.steps_wanted(), row.loss, row.relative_error, row.bits));
      }
      if (absl::Now() - saved < p_.save_interval) continue;
      if (absl::Status status = save(); !status.ok()) return status;
      saved = absl::Now();
    }
    seconds_ = absl::ToDoubleSeconds(absl::Now() - start);
    return save();
  }

  absl::Status MeasureAll() {
    Measured learned{.label = absl::StrCat("learned ", std::string(NameOf(learned_.architecture)))};
    learned.registry = std::make_unique<compressor::CodecRegistry>();
    learned.codec = compressor::kLearnedCodec;
    learned.split = learned_.base.split;
    if (absl::Status status = learned_.Validate(); !status.ok()) return status;
    learned.sidecar_bytes = static_cast<int64_t>(learned_.Serialize().size());
    absl::Status status =
        learned.registry->Register(compressor::NewLearnedCodec(std::make_shared<const LearnedProfile>(learned_)));
    if (!status.ok()) return status;
    if (status = Measure(std::move(learned), kLearnedSteps); !status.ok()) return status;
    learned_.base.points = MeasuredPoints(measured_[0].curve);
    if (principal_) status = MeasureLatent("principal components", *principal_, kPlainSteps);
    if (!status.ok()) return status;
    for (const std::string& file : p_.compare) {
      const absl::StatusOr<LatentProfile> profile = ReadLatent(file);
      if (!profile.ok()) return profile.status();
      status = MeasureLatent(absl::StrCat("latent n=", profile->split), *profile, kCalibratedSteps);
      if (!status.ok()) return status;
    }
    return MeasureAllDistances();
  }

  absl::Status MeasureLatent(const std::string& label, const LatentProfile& profile, absl::Span<const float> steps) {
    Measured measured{.label = label};
    measured.registry = std::make_unique<compressor::CodecRegistry>();
    measured.codec = compressor::kLatentCodec;
    measured.split = profile.split;
    measured.sidecar_bytes = static_cast<int64_t>(profile.Serialize().size());
    absl::Status status =
        measured.registry->Register(compressor::NewLatentCodec(std::make_shared<const LatentProfile>(profile)));
    return status.ok() ? Measure(std::move(measured), steps) : status;
  }

  absl::Status Measure(Measured measured, absl::Span<const float> steps) {
    line_(absl::StrCat("measuring ", measured.label));
    auto curve = MeasureCurve(
        runner_, roles_.held_out, [](double) {}, measured.subject(), steps);
    if (!curve.ok()) return curve.status();
    measured.curve = *std::move(curve);
    measured_.push_back(std::move(measured));
    return absl::OkStatus();
  }

  // At the ratio that the sidecar has at the step it was trained with.
  absl::Status MeasureAllDistances() {
    line_("distances");
    const auto trained = std::find_if(measured_[0].curve.begin(), measured_[0].curve.end(),
                                      [](const auto& point) { return point.step == 1; });
    for (Measured& measured : measured_) {
      const absl::StatusOr<PointAtRatio> point = AtRatio(measured.curve, trained->effective_ratio);
      if (!point.ok()) continue;
      const float step = &measured == &measured_[0] ? 1 : static_cast<float>(point->step);
      auto distances = MeasureDistances(runner_, roles_.held_out, measured.subject(), step);
      if (!distances.ok()) return distances.status();
      measured.distances = *std::move(distances);
    }
    return absl::OkStatus();
  }

  void LogTable() const {
    log_ << absl::StrFormat("trained %.0f s, %d parameters\n", seconds_, parameters_);
    for (const metrics::RateDistortionPoint& point : measured_[0].curve) {
      log_ << absl::StrFormat("step %-4g %6.2fx  KL %.5f  p99 %.4f  top-1 %.1f %%  perplexity %.4f", point.step,
                              point.effective_ratio, point.mean_kl, point.p99_kl, 100 * point.top_1_agreement,
                              point.perplexity_ratio);
      for (size_t i = 1; i < measured_.size(); ++i) {
        const absl::StatusOr<PointAtRatio> other = AtRatio(measured_[i].curve, point.effective_ratio);
        log_ << " | " << measured_[i].label << ": "
             << (other.ok() ? absl::StrFormat("KL %.5f", other->mean_kl) : "not measured there");
      }
      log_ << "\n";
    }
    const int layers = runner_.config().layers;
    for (const Measured& measured : measured_) {
      if (measured.distances.empty()) continue;
      const auto all = [](const TensorDistance& /*d*/) { return true; };
      const auto middle = [&](const TensorDistance& d) { return d.layer >= layers / 3 && d.layer < 2 * layers / 3; };
      log_ << absl::StrFormat(
          "%s at that ratio: relative MSE %.4f, unexplained %.4f, cosine %.4f, CKA %.4f; middle layers: MSE %.2g, "
          "relative %.4f; sidecar %.1f MB\n",
          measured.label, MeanOf(measured.distances, &TensorDistance::relative_mse, all),
          MeanOf(measured.distances, &TensorDistance::unexplained, all),
          MeanOf(measured.distances, &TensorDistance::cosine, all),
          MeanOf(measured.distances, &TensorDistance::cka, all),
          MeanOf(measured.distances, &TensorDistance::mean_squared_error, middle),
          MeanOf(measured.distances, &TensorDistance::relative_mse, middle),
          static_cast<double>(measured.sidecar_bytes) / 1e6);
    }
  }

  absl::Status Write() {
    if (absl::Status status = learned_.Validate(); !status.ok()) return status;
    if (absl::Status status = WriteFileAtomically(p_.out, learned_.Serialize()); !status.ok()) return status;
    if (principal_ && !p_.principal_out.empty()) {
      principal_->notes = base_.notes;
      principal_->points = NamedPoints(measured_[1].curve);
      absl::Status status = WriteFileAtomically(p_.principal_out, principal_->Serialize());
      if (!status.ok()) return status;
    }
    LogTable();
    log_ << "wrote " << p_.out << "\n";
    if (p_.report.empty()) return absl::OkStatus();
    Json json{{"command", p_.command},        {"machine", MachineText()},  {"model", runner_.fingerprint()},
              {"training_seconds", seconds_}, {"parameters", parameters_}, {"options", learned_.base.notes}};
    for (const TrainingRow& row : history_) {
      json["history"].push_back(
          {{"step", row.step}, {"loss", row.loss}, {"relative_error", row.relative_error}, {"bits", row.bits}});
    }
    for (const Measured& measured : measured_) {
      const absl::StatusOr<std::string> curve = metrics::ReportToJson({.points = measured.curve});
      if (!curve.ok()) return curve.status();
      json["codecs"].push_back({{"codec", measured.label},
                                {"points", Json::parse(*curve)["points"]},
                                {"distances_at_equal_ratio", ToJson(measured.distances)}});
    }
    return WriteFileAtomically(p_.report, json.dump(2) + "\n");
  }

  const TrainingProgram& p_;
  ModelRunner& runner_;
  const PieceRoles roles_;
  std::ostream& log_;
  const std::function<void(const std::string&)> line_;
  LatentProfile base_;
  std::optional<LatentProfile> principal_;
  LearnedProfile learned_;
  std::vector<TrainingRow> history_;
  int64_t parameters_ = 0;
  double seconds_ = 0;
  std::vector<Measured> measured_;  // the sidecar first
};

// What a training is of, so that no checkpoint is taken for another's; goes into the profile, too.
absl::StatusOr<std::map<std::string, std::string>> NotesOf(const TrainingProgram& p, const ModelRunner& runner,
                                                           const std::vector<TextPiece>& pieces) {
  std::vector<TextDigest> texts;
  for (const std::string& file : p.texts) {
    absl::StatusOr<TextDigest> digest = DigestOfText(file);
    if (!digest.ok()) return digest.status();
    texts.push_back(*std::move(digest));
  }
  std::string front = "none";
  if (!p.front.empty()) {
    const absl::StatusOr<std::string> bytes = ReadWholeFile(p.front);
    if (!bytes.ok()) return bytes.status();
    front = compressor::ComputeDigest(*bytes).ToHex();
  }
  const TrainingOptions& o = p.options;
  return std::map<std::string, std::string>{
      {"program", "quicksave-train " QUICKSAVE_VERSION},
      {"model", runner.fingerprint()},
      {"architecture", std::string(NameOf(o.shape.architecture))},
      {"pieces", absl::StrCat(pieces.size(), " of ", p.piece_tokens, " tokens")},
      {"front", front},
      {"split", absl::StrCat(p.split)},
      {"layers_per_group", absl::StrCat(p.layers_per_group)},
      {"hidden", absl::StrCat(o.shape.hidden)},
      {"latent_share", absl::StrCat(o.shape.latent_share)},
      {"heads", absl::StrCat(o.shape.heads)},
      {"rate", o.rate == RateModel::kKl ? "kl" : "entropy"},
      {"start", o.start == Start::kPrincipal ? absl::StrCat("principal, step ", o.start_step) : "random"},
      {"weights", absl::StrJoin({o.kv_weight, o.rate_weight, o.cosine_weight}, ",")},
      {"progressive", o.progressive ? "yes" : "no"},
      {"learning_rate", absl::StrCat(o.learning_rate)},
      {"batch_tokens", absl::StrCat(o.batch_tokens)},
      {"epochs", absl::StrCat(o.epochs)},
      {"patience", absl::StrCat(o.patience, " of ", o.evaluations)},
      {"seed", absl::StrCat(o.seed)},
      {"threads", absl::StrCat(p.threads)},
      {kTextsNote, NoteOfTexts(texts)}};
}

}  // namespace

absl::Status TrainingProgram::Run(std::ostream& log) {
  for (const std::string& file : {out, report, principal_out}) {
    if (file.empty()) continue;
    absl::Status status = CheckOutputFile(file, force);
    if (absl::IsAlreadyExists(status)) status = Named(file, absl::AlreadyExistsError("exists; --force replaces it"));
    if (!status.ok()) return status;
  }
  const SidecarShape& shape = options.shape;
  if (shape.architecture == compressor::Architecture::kUnified &&
      (shape.heads < 1 || shape.hidden % shape.heads != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(shape.heads, " heads of attention do not divide a width of ", shape.hidden));
  }
  const absl::StatusOr<std::unique_ptr<ModelRunner>> runner = ModelRunner::Load(model, threads, 4 * piece_tokens);
  if (!runner.ok()) return runner.status();
  if (split < 0 || split + 1 >= (*runner)->config().layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a split must be 0 to ", (*runner)->config().layers - 2, ", not ", split));
  }
  const int wanted = (tokens + piece_tokens - 1) / piece_tokens;
  const auto pieces = CutPieces(texts, (*runner)->tokenizer(),
                                {.tokens_per_piece = piece_tokens, .pieces = wanted, .seed = options.seed});
  if (!pieces.ok()) return pieces.status();
  if (static_cast<int>(pieces->size()) < wanted) {
    log << "the texts have only " << pieces->size() << " pieces of " << piece_tokens << " tokens\n";
  }
  absl::StatusOr<PieceRoles> roles = RolesOf(*pieces);
  if (!roles.ok()) return roles.status();
  const absl::StatusOr<std::map<std::string, std::string>> notes = NotesOf(*this, **runner, *pieces);
  if (!notes.ok()) return notes.status();
  at::set_num_threads(threads);
  return Training(*this, **runner, *std::move(roles), log).Run(*notes);
}

}  // namespace quicksave::server
