#ifndef QUICKSAVE_SERVER_SIDECAR_EVALUATION_H_
#define QUICKSAVE_SERVER_SIDECAR_EVALUATION_H_

// The protocol by which codecs are measured; docs/compression.md, "How a codec is measured".
//
//   Evaluation evaluation(runner, options);
//   if (absl::Status status = evaluation.AddLatent("p.safetensors"); !status.ok()) return status;
//   absl::StatusOr<metrics::RateDistortionReport> report = evaluation.Run();
//   absl::Status trust = metrics::CheckNegativeControls(report->controls);

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compressor/codec.h"
#include "server/sidecar/calibration_notes.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/drift.h"
#include "server/sidecar/evaluation_options.h"
#include "server/sidecar/metrics/divergence_summary.h"
#include "server/sidecar/metrics/rate_distortion.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// How far states are from ones that were never encoded, after so many generations; see drift.h.
struct DriftPoint {
  std::string codec;
  float step = 0;
  int generations = 0;
  int tokens = 0;  // of the state then
  metrics::DivergenceSummary append_only;
  metrics::DivergenceSummary anew;
  metrics::DivergenceSummary once;
};

// Measures codecs that were added on texts. The runner must outlive it and hold TokensForEvaluation. One thread.
class Evaluation {
 public:
  Evaluation(ModelRunner& runner, EvaluationOptions options);

  // Adds the exact codec with its built-in tables, or with those of a profile's file. NOT_FOUND, DATA_LOSS.
  absl::Status AddExact();
  absl::Status AddExact(const std::string& profile_file);
  // Adds a latent or learned profile. NOT_FOUND, DATA_LOSS; FAILED_PRECONDITION for another model's, or one that has no
  // named points where no steps are given.
  absl::Status AddLatent(const std::string& profile_file);

  // Runs the protocol. The report lacks model, machine and command. INVALID_ARGUMENT as CheckEvaluationOptions, and for
  // texts that are too short; FAILED_PRECONDITION for texts that a profile was calibrated on; DATA_LOSS for a codec
  // that loses what it must not. Controls that did not fail are in the report, and no error.
  absl::StatusOr<metrics::RateDistortionReport> Run();

  // Whether drift can be measured: INVALID_ARGUMENT for texts that are too short, or where there is no such latent as
  // RunDrift measures.
  absl::Status CheckDrift();

  // Measures drift by the options' generations, for the latents without recomputed layers that were added, on all kinds
  // of text together. Errors as CheckDrift and MeasureDrift.
  absl::StatusOr<std::vector<DriftPoint>> RunDrift();

 private:
  // A codec, and the settings at which it is tried.
  struct Contender {
    std::string label;
    std::unique_ptr<compressor::CodecRegistry> registry;
    std::string codec;
    std::optional<int> split;
    bool has_residual = false;
    std::vector<float> steps;  // {0} where there is no dial
    int64_t sidecar_bytes = 0;
    std::vector<TextDigest> calibration_texts;
  };
  // Texts of one kind and length.
  struct Panel {
    std::string kind;
    int context = 0;
    std::vector<TextPiece> pieces;
  };

  absl::Status CheckHygiene();
  absl::StatusOr<std::vector<Panel>> CutPanels();
  absl::Status AddControls(const std::vector<Panel>& panels, int context);
  absl::Status AddNoiseFloor(const std::vector<Panel>& panels);
  absl::Status AddPoints(const Panel& panel);
  DriftOptions DriftOptionsOf(const Contender& contender, float step) const;
  absl::StatusOr<std::vector<TextPiece>> CutDriftPieces() const;
  absl::StatusOr<std::vector<DriftPoint>> DriftOf(const Contender& contender, float step,
                                                  const std::vector<TextPiece>& pieces);
  std::string UnusedLabel(const std::string& label, const std::string& file) const;
  void Report(const std::string& what) const;

  ModelRunner& runner_;
  const EvaluationOptions options_;
  std::vector<Contender> contenders_;
  std::vector<int> splits_;
  metrics::RateDistortionReport report_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_EVALUATION_H_
