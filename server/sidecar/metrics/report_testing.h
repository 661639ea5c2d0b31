// A report for tests of its writers.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_REPORT_TESTING_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_REPORT_TESTING_H_

#include <string>

#include "server/sidecar/metrics/rate_distortion.h"

namespace quicksave::metrics {

// A point in which every field has a value of its own.
inline RateDistortionPoint PointOf(const std::string& codec, double effective_ratio, double mean_kl) {
  return {.codec = codec,
          .text_kind = "prose",
          .context_tokens = 2048,
          .split_layers = 6,
          .step = 0.1 + 0.2,  // no short decimal
          .effective_ratio = effective_ratio,
          .nominal_ratio = 1.25 * effective_ratio,
          .mean_kl = mean_kl,
          .p99_kl = 10 * mean_kl,
          .top_1_agreement = 0.984,
          .perplexity_ratio = 1.0039,
          .bytes_per_token = 23040 / effective_ratio,
          .encode_mb_per_s = 405.5,
          .decode_mb_per_s = 779.25,
          .sidecar_bytes = 52428800,
          .scored_tokens = 1024};
}

// Two codecs, and an exact one, on two kinds of text; the points of "latent n=6" are not in order of their ratio.
inline RateDistortionReport SmallReport() {
  RateDistortionReport report{.model = "SmolLM2-135M-Instruct",
                              .machine = "2 cores of an Intel(R) Xeon(R)",
                              .command = "evaluate --kinds=prose,code",
                              .noise_floor_kl = 0.0017,
                              .controls = {{"zeroed", 4.46}, {"another node's", 0.84}}};
  report.points = {PointOf("exact", 1.556, 0),          PointOf("q8_0 <8.5 bits> & \"scale\"", 1.88, 0.00009),
                   PointOf("latent n=6", 15.04, 0.002), PointOf("latent n=6", 41.5, 0.0146),
                   PointOf("latent n=6", 8.95, 0.0006), PointOf("latent n=6", 8.95, 0.0007)};
  report.points.back().text_kind = "Python code";
  return report;
}

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_REPORT_TESTING_H_
