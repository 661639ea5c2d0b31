#include "server/sidecar/calibration_program.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/machine_resources.h"
#include "server/sidecar/output_file.h"

namespace quicksave::server {
namespace {

// Between two lines about the same thing.
constexpr absl::Duration kProgressInterval = absl::Seconds(2);

}  // namespace

std::string CalibrationProgram::FileOf(int split) const {
  if (options.splits.size() == 1) return out;
  const std::filesystem::path path(out);
  return (path.parent_path() / absl::StrCat(path.stem().string(), "-", split, path.extension().string())).string();
}

absl::Status CalibrationProgram::CheckOutputs() const {
  std::vector<std::string> files;
  for (const int split : options.splits) files.push_back(FileOf(split));
  if (!report.empty()) files.push_back(report);
  for (size_t i = 0; i < files.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (files[i] == files[k]) return absl::InvalidArgumentError(absl::StrCat(files[i], " would be written twice"));
    }
    absl::Status status = CheckOutputFile(files[i], force);
    if (absl::IsAlreadyExists(status) && !force) {
      return absl::AlreadyExistsError(absl::StrCat(status.message(), "; --force replaces it"));
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CalibrationProgram::Write(const Calibration& calibration, std::ostream& log) const {
  for (const compressor::LatentProfile& profile : calibration.profiles) {
    const std::string bytes = profile.Serialize();
    if (absl::Status status = WriteFileAtomically(FileOf(profile.split), bytes); !status.ok()) return status;
    log << absl::StrFormat("wrote %s, %.1f MB\n", FileOf(profile.split), static_cast<double>(bytes.size()) / 1e6);
  }
  for (const metrics::RateDistortionPoint& point : calibration.report.points) {
    log << absl::StrFormat("%s, step %g: %.2fx, KL %.2g, top-1 %.1f %%\n", point.codec, point.step,
                           point.effective_ratio, point.mean_kl, 100 * point.top_1_agreement);
  }
  const absl::Status reliable = metrics::CheckNegativeControls(calibration.report.controls);
  if (!reliable.ok()) log << "Do not rely on these figures: " << reliable.message() << "\n";
  if (report.empty()) return absl::OkStatus();
  metrics::RateDistortionReport complete = calibration.report;
  complete.machine = MachineText();
  complete.command = command;
  const absl::StatusOr<std::string> json = metrics::ReportToJson(complete);
  return json.ok() ? WriteFileAtomically(report, *json) : json.status();
}

absl::Status CalibrationProgram::Run(std::ostream& log) {
  if (absl::Status status = CheckOutputs(); !status.ok()) return status;
  const absl::StatusOr<engine::ModelConfig> config = engine::LoadModelConfig(model);
  if (!config.ok()) return config.status();
  if (piece_tokens > config->context_length) {
    return absl::InvalidArgumentError(absl::StrCat("a piece has ", piece_tokens, " tokens, but the model takes ",
                                                   config->context_length, " at most"));
  }
  log << absl::StrFormat("needs about %.1f GB of memory, of which this program may use %.1f\n",
                         CalibrationMemory(*config, options) / 1e9, static_cast<double>(MemoryLimit()) / 1e9);
  options.texts.clear();
  for (const std::string& text : texts) {
    absl::StatusOr<TextDigest> digest = DigestOfText(text);
    if (!digest.ok()) return digest.status();
    options.texts.push_back(*std::move(digest));
  }
  // The curve holds a live text, a restored one, another, and their continuations.
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner = ModelRunner::Load(model, options.threads, 4 * piece_tokens);
  if (!runner.ok()) return runner.status();
  const int wanted = (tokens + piece_tokens - 1) / piece_tokens;
  const auto pieces = CutPieces(texts, (*runner)->tokenizer(),
                                {.tokens_per_piece = piece_tokens, .pieces = wanted, .seed = options.seed});
  if (!pieces.ok()) return pieces.status();
  log << "calibrating on " << pieces->size() << " pieces of " << piece_tokens << " tokens\n";
  if (static_cast<int>(pieces->size()) < wanted) {
    log << "the texts have no more: fewer tokens than asked for make a worse profile\n";
  }
  options.gradients.seed = options.seed;
  options.progress = [line = ProgressLines(log), last = absl::InfinitePast(), last_what = std::string()](
                         const std::string& what, double done) mutable {
    if (what == last_what && absl::Now() - last < kProgressInterval) return;
    last = absl::Now();
    last_what = what;
    line(absl::StrFormat("%s %.0f %%", what, 100 * done));
  };
  const absl::StatusOr<Calibration> calibration = Calibrate(**runner, *pieces, options);
  return calibration.ok() ? Write(*calibration, log) : calibration.status();
}

}  // namespace quicksave::server
