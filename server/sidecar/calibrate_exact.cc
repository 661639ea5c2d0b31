#include "server/sidecar/calibrate_exact.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/scheduler/evaluate_job.h"
#include "server/sidecar/calibration_text.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

constexpr size_t kTokensPerText = 1024;
// With fewer tokens the tables would fit the few texts, not the model.
constexpr size_t kFewestTokensPerText = 256;

// Token ids of one text, put through the chat template when it is a dialogue and the model has one.
absl::StatusOr<std::vector<int32_t>> Encode(const Core& core, const CalibrationText& text) {
  if (text.turns.empty())
    return core.tokenizer->Encode(text.text, /*add_special_tokens=*/true, /*parse_special=*/false);
  std::vector<text::ChatMessage> messages;
  std::string plain;
  for (const CalibrationTurn& turn : text.turns) {
    messages.push_back({turn.role, turn.content});
    plain.append(turn.role).append(": ").append(turn.content).append("\n\n");
  }
  absl::StatusOr<std::vector<int32_t>> ids = core.chat_template->Encode(*core.tokenizer, messages, false);
  // Templates differ in the roles that they know.
  if (!ids.ok()) ids = core.tokenizer->Encode(plain, /*add_special_tokens=*/true, /*parse_special=*/false);
  return ids;
}

absl::StatusOr<engine::Sequence> Evaluate(Core& core, std::vector<int32_t> tokens) {
  const auto job = std::make_shared<EvaluateJob>(engine::Sequence(), std::move(tokens), engine::LogitsWanted::kNone,
                                                 EvaluateJob::Consumer());
  if (absl::Status status = core.scheduler->Run(job, job->count()); !status.ok()) return status;
  return job->sequence();
}

}  // namespace

absl::Status CalibrateExact(Core& core, absl::FunctionRef<bool()> stopped) {
  const absl::Time start = absl::Now();
  const absl::Span<const CalibrationText> texts = CalibrationTexts();
  const size_t room = core.pool->total_pages() / texts.size() * engine::cpu::kPageTokens;
  const size_t most = std::min({kTokensPerText, room, size_t(core.decoder->config().context_length)});
  if (most < kFewestTokensPerText) {
    LogEvent(spdlog::level::warn, "too little KV memory to calibrate the exact codec, which then compresses less",
             {{"tokens", static_cast<int64_t>(most * texts.size())}});
    return absl::OkStatus();
  }
  LogEvent(spdlog::level::info, "calibrating the exact codec, once for this model and store", {});
  std::vector<engine::Sequence> sequences;
  int64_t tokens = 0;
  for (const CalibrationText& text : texts) {
    if (stopped()) return absl::CancelledError("stopped while calibrating");
    absl::StatusOr<std::vector<int32_t>> ids = Encode(core, text);
    if (!ids.ok()) return ids.status();
    if (ids->size() > most) ids->resize(most);
    absl::StatusOr<engine::Sequence> sequence = Evaluate(core, *std::move(ids));
    if (!sequence.ok()) return sequence.status();
    tokens += sequence->length();
    sequences.push_back(*std::move(sequence));
    LogEvent(spdlog::level::info, "calibrating", {{"text", text.name}, {"tokens", tokens}});
  }
  if (absl::Status status = core.archive->Calibrate(sequences); !status.ok()) return status;
  LogEvent(spdlog::level::info, "calibrated the exact codec",
           {{"tokens", tokens}, {"seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  return absl::OkStatus();
}

}  // namespace quicksave::server
