#include "server/sidecar/evaluation_program.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/sidecar/evaluation.h"
#include "server/sidecar/metrics/figure_text.h"
#include "server/sidecar/metrics/rate_distortion_table.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/program_text.h"

namespace quicksave::server {
namespace {

absl::Status PrepareFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot make ", folder, ": ", error.message()));
  return CheckOutputFile((std::filesystem::path(folder) / "rate_distortion.json").string(), /*replace=*/true);
}

absl::Status AddCodecs(const EvaluationProgram& program, Evaluation& evaluation) {
  if (absl::Status status = evaluation.AddExact(); !status.ok()) return status;
  if (!program.exact_profile.empty()) {
    if (absl::Status status = evaluation.AddExact(program.exact_profile); !status.ok()) return status;
  }
  for (const std::string& profile : program.profiles) {
    if (absl::Status status = evaluation.AddLatent(profile); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string DriftToMarkdown(const std::vector<DriftPoint>& points, const metrics::RateDistortionReport& report) {
  std::string text =
      "\n## Drift\n\nMean KL (top-1 agreement) of a state that was restored from its latent, extended and saved again, "
      "generation after generation, beside one that was never encoded, on all kinds of text.\n\n";
  absl::StrAppend(&text, "- Model: ", report.model, "\n- Machine: ", report.machine, "\n- Command: `", report.command,
                  "`\n");
  for (const std::string& remark : report.remarks) absl::StrAppend(&text, "- ", remark, "\n");
  absl::StrAppend(
      &text,
      "\n"
      "| codec | step | generations | tokens | only new tokens encoded | all encoded anew each time | encoded once | "
      "scored "
      "tokens |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
  const auto cell = [](const metrics::DivergenceSummary& summary) {
    return absl::StrCat(metrics::ReadableNumber(summary.kl.mean), " (",
                        metrics::ReadableNumber(100 * summary.top_1_agreement), " %)");
  };
  for (const DriftPoint& point : points) {
    absl::StrAppend(&text, "| ", point.codec, " | ", metrics::ReadableNumber(point.step), " | ", point.generations,
                    " | ", point.tokens, " | ", cell(point.append_only), " | ", cell(point.anew), " | ",
                    cell(point.once), " | ", point.once.kl.count, " |\n");
  }
  return text;
}

}  // namespace

absl::StatusOr<bool> EvaluationProgram::Run(std::ostream& out_stream, std::ostream& log) {
  absl::StatusOr<std::vector<TextKind>> kinds = ParseTextKinds(texts);
  if (!kinds.ok()) return kinds.status();
  options.texts = *std::move(kinds);
  options.progress = ProgressLines(log);
  const absl::StatusOr<engine::ModelConfig> config = engine::LoadModelConfig(model);
  if (!config.ok()) return config.status();
  if (absl::Status status = CheckEvaluationOptions(options, config->context_length); !status.ok()) return status;
  if (!out.empty()) {
    if (absl::Status status = PrepareFolder(out); !status.ok()) return status;
  }
  const auto runner = ModelRunner::Load(model, threads, TokensForEvaluation(options));
  if (!runner.ok()) return runner.status();
  Evaluation evaluation(**runner, options);
  if (absl::Status status = AddCodecs(*this, evaluation); !status.ok()) return status;
  if (!options.generations.empty()) {
    if (absl::Status status = evaluation.CheckDrift(); !status.ok()) return status;
  }
  absl::StatusOr<metrics::RateDistortionReport> report = evaluation.Run();
  if (!report.ok()) return report.status();
  report->model = PrintableAscii((*runner)->fingerprint());
  report->machine = MachineText();
  report->command = command;
  const absl::StatusOr<std::string> markdown = metrics::ReportToMarkdown(*report);
  if (!markdown.ok()) return markdown.status();
  out_stream << *markdown;
  const std::string drift_file = (std::filesystem::path(out) / "drift.md").string();
  if (!out.empty()) {
    if (absl::Status status = metrics::WriteReport(*report, out); !status.ok()) return status;
    // One of an earlier report would look like this one's.
    std::error_code none;
    std::filesystem::remove(drift_file, none);
  }
  if (!options.generations.empty()) {
    const absl::StatusOr<std::vector<DriftPoint>> drift = evaluation.RunDrift();
    if (!drift.ok()) return drift.status();
    const std::string table = DriftToMarkdown(*drift, *report);
    out_stream << table;
    if (!out.empty()) {
      absl::Status status = WriteFileAtomically(drift_file, table);
      if (!status.ok()) return status;
    }
  }
  return metrics::CheckNegativeControls(report->controls).ok();
}

}  // namespace quicksave::server
