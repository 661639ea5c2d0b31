// The measured points of codecs: how much smaller, and how far from the live state. What the evaluation program fills
// and the writers (rate_distortion_table.h, rate_distortion_chart.h) show; as JSON it comes back bit for bit.
//
//   RateDistortionReport report{.model = "SmolLM2-135M-Instruct", .machine = ..., .command = ...};
//   report.points.push_back({.codec = "latent n=6", .text_kind = "prose", ...});
//   absl::Status status = WriteReport(report, "out");  // out/rate_distortion.json, .md and one .svg for each panel

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/sidecar/metrics/poison.h"

namespace quicksave::metrics {

// One setting of one codec on one kind of text at one length. K and V as the engine holds them (bf16) are "raw".
struct RateDistortionPoint {
  std::string codec;           // label of its curve, such as "latent n=6"
  std::string text_kind;       // "prose", "code", ...
  int64_t context_tokens = 0;  // tokens of the state that was encoded
  int64_t split_layers = 0;    // the first n layers, recomputed at restore
  double step = 0;             // the dial; 0 where the codec has none
  double effective_ratio = 0;  // raw bytes over everything stored for them: headers and exact first tokens included
  double nominal_ratio = 0;    // raw bytes over the coded symbols alone
  double mean_kl = 0;          // nats, see KlDivergence
  double p99_kl = 0;           // nats
  double top_1_agreement = 0;  // in [0, 1]
  double perplexity_ratio = 1;
  double bytes_per_token = 0;  // everything stored, over context_tokens
  double encode_mb_per_s = 0;  // 10^6 raw bytes a second; 0 where not measured
  double decode_mb_per_s = 0;
  int64_t sidecar_bytes = 0;  // the profile: once for each model, so in no ratio
  int64_t scored_tokens = 0;  // positions that the divergence is of

  friend bool operator==(const RateDistortionPoint&, const RateDistortionPoint&) = default;
};

struct RateDistortionReport {
  std::string model;
  std::string machine;
  std::string command;
  // Mean KL of the live state against the same tokens under other arithmetic (another schedule, another precision): a
  // codec below it changes less than the choice of kernels does.
  std::optional<double> noise_floor_kl;
  // Whatever else a reader must know to judge the figures: what was not measured, and what the floor is of.
  std::vector<std::string> remarks;
  std::vector<NegativeControl> controls;
  std::vector<RateDistortionPoint> points;

  friend bool operator==(const RateDistortionReport&, const RateDistortionReport&) = default;
};

// INVALID_ARGUMENT that says which point (from 0) and which field, unless: there is a point; texts are printable ASCII,
// and codecs and kinds not empty; ratios are above 0, agreement is in [0, 1], all other figures are numbers of at least
// 0. Every reader and writer of reports checks this, so that none of them shows nonsense.
absl::Status CheckReport(const RateDistortionReport& report);

// The report as JSON, indented, a line end at its end; fields are called as in the structs. Errors of CheckReport.
absl::StatusOr<std::string> ReportToJson(const RateDistortionReport& report);

// Reads what ReportToJson wrote: every figure comes back as it was. INVALID_ARGUMENT that names what is wrong for text
// that is no JSON, a field that is missing or of another type, another version, and reports that fail CheckReport.
absl::StatusOr<RateDistortionReport> ReportFromJson(absl::string_view json);

// The points of one kind of text and one length, which share a chart.
struct RateDistortionPanel {
  std::string text_kind;
  int64_t context_tokens = 0;
  std::string file_name;                    // "rate_distortion_prose_2048.svg"; no two panels have the same
  std::vector<RateDistortionPoint> points;  // in the report's order
};

// The panels of a report, in the order in which they first appear.
std::vector<RateDistortionPanel> PanelsOf(const RateDistortionReport& report);

// The labels of all codecs, in the order in which they first appear.
std::vector<std::string> CodecsOf(const RateDistortionReport& report);

// Writes rate_distortion.json, rate_distortion.md and the charts to `directory`, which is made if it is not there;
// files of these names are replaced. Errors of CheckReport; UNAVAILABLE, with the path, if one cannot be written.
absl::Status WriteReport(const RateDistortionReport& report, const std::string& directory);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_H_
