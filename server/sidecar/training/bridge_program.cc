#include "server/sidecar/training/bridge_program.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "server/archive/state_replay.h"
#include "server/engine/model/reference_decoder.h"
#include "server/sidecar/calibration.h"
#include "server/sidecar/metrics/state_distance.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/program_text.h"

namespace quicksave::server {
namespace {

using Json = nlohmann::ordered_json;

// A text that the model has gone over.
struct UsedText {
  std::vector<int32_t> tokens;
  engine::ReferenceDecoder::Output output;
};

class BridgeTraining {
 public:
  BridgeTraining(const BridgeProgram& program, ModelRunner& runner, const engine::ReferenceDecoder& reference,
                 PieceRoles roles, std::ostream& log)
      : p_(program), runner_(runner), reference_(reference), roles_(std::move(roles)), line_(ProgressLines(log)) {}

  absl::StatusOr<std::vector<BridgeRow>> Run() {
    RunUsedTexts();
    for (const int tap : p_.taps) {
      if (absl::Status status = RunTap(tap); !status.ok()) return status;
    }
    return std::move(rows_);
  }

 private:
  void RunUsedTexts() {
    for (const TextPiece* piece : roles_.held_out) {
      if (static_cast<int>(used_.size()) == p_.used_pieces) break;
      line_("the model over a held-out text");
      UsedText text;
      const size_t count = std::min<size_t>(p_.used_tokens, piece->tokens.size());
      text.tokens.assign(piece->tokens.begin(), piece->tokens.begin() + static_cast<std::ptrdiff_t>(count));
      text.output = reference_.Run(text.tokens);
      used_.push_back(std::move(text));
    }
  }

  absl::Status RunTap(int tap) {
    const int width = runner_.config().hidden_size;
    line_(absl::StrCat("hidden states of tap ", tap));
    const absl::StatusOr<std::vector<float>> train = RowsOf(roles_.fitted, tap);
    if (!train.ok()) return train.status();
    const absl::StatusOr<std::vector<float>> held_out = RowsOf(roles_.held_out, tap);
    if (!held_out.ok()) return held_out.status();
    for (const int rank : p_.ranks) {
      const Bridge principal = PrincipalBridge(*train, width, rank);
      absl::Status status = Measure(principal, {.tap = tap, .rank = rank, .method = "principal components"}, *held_out);
      if (!status.ok()) return status;
      for (const BridgeLoss loss : {BridgeLoss::kSquared, BridgeLoss::kSquaredAndCosine, BridgeLoss::kProgressive}) {
        for (int seed = 1; seed <= p_.seeds; ++seed) {
          BridgeOptions options = p_.options;
          options.rank = rank;
          options.loss = loss;
          options.seed = seed;
          const BridgeRow row{.tap = tap, .rank = rank, .method = std::string(NameOf(loss)), .seed = options.seed};
          status = Measure(TrainBridge(*train, width, options), row, *held_out);
          if (!status.ok()) return status;
        }
      }
    }
    return absl::OkStatus();
  }

  // Hidden states of all tokens of the pieces but their first ones: [tokens, hidden_size].
  absl::StatusOr<std::vector<float>> RowsOf(const std::vector<const TextPiece*>& pieces, int tap) const {
    std::vector<float> rows;
    const size_t skipped = static_cast<size_t>(kRecomputedTokens) * runner_.config().hidden_size;
    for (const TextPiece* piece : pieces) {
      const absl::StatusOr<RunText> text = runner_.Run(piece->tokens, {tap});
      if (!text.ok()) return text.status();
      const std::vector<float>& states = text->HiddenStates(tap);
      rows.insert(rows.end(), states.begin() + static_cast<std::ptrdiff_t>(skipped), states.end());
    }
    return rows;
  }

  absl::Status Measure(const Bridge& bridge, BridgeRow row, const std::vector<float>& held_out) {
    const std::vector<float> restored = bridge.Restore(held_out);
    const metrics::Rows live{held_out, bridge.mean.size()};
    const metrics::Rows back{restored, bridge.mean.size()};
    const std::pair<double*, absl::StatusOr<double>> figures[] = {
        {&row.mean_squared_error, metrics::MeanSquaredError(held_out, restored)},
        {&row.relative_mse, metrics::RelativeMse(held_out, restored)},
        {&row.cosine, metrics::CosineSimilarity(live, back)},
        {&row.cka, metrics::LinearCka(live, back)}};
    for (const auto& [to, figure] : figures) {
      if (!figure.ok()) return figure.status();
      *to = *figure;
    }
    metrics::DivergenceRows divergence;
    for (const UsedText& text : used_) {
      if (absl::Status status = Use(bridge, row.tap, text, divergence); !status.ok()) return status;
    }
    absl::StatusOr<metrics::DivergenceSummary> summary = divergence.Summarize();
    if (!summary.ok()) return summary.status();
    row.divergence = *std::move(summary);
    line_(absl::StrFormat(
        "tap %d, rank %d, %s, seed %d: MSE %.4g, relative %.4f, cosine %.4f, CKA %.5f, KL %.4f, top-1 %.1f %%", row.tap,
        row.rank, row.method, row.seed, row.mean_squared_error, row.relative_mse, row.cosine, row.cka,
        row.divergence.kl.mean, 100 * row.divergence.top_1_agreement));
    rows_.push_back(std::move(row));
    return absl::OkStatus();
  }

  // Goes on from the restored states of a text, and compares at the tokens whose states were restored.
  absl::Status Use(const Bridge& bridge, int tap, const UsedText& text, metrics::DivergenceRows& divergence) const {
    const std::vector<float>& live = text.output.hidden_states[tap];
    const size_t exact = static_cast<size_t>(kRecomputedTokens) * bridge.mean.size();
    std::vector<float> states(live.begin(), live.begin() + static_cast<std::ptrdiff_t>(exact));
    const std::vector<float> restored = bridge.Restore(absl::MakeConstSpan(live).subspan(exact));
    states.insert(states.end(), restored.begin(), restored.end());
    const std::vector<float> logits = reference_.LogitsFrom(tap, states);
    const size_t vocab = runner_.config().vocab_size;
    for (size_t t = kRecomputedTokens; t < text.tokens.size(); ++t) {
      const auto next = t + 1 < text.tokens.size() ? std::optional<int32_t>(text.tokens[t + 1]) : std::nullopt;
      absl::Status status = divergence.Add(absl::MakeConstSpan(text.output.logits).subspan(t * vocab, vocab),
                                           absl::MakeConstSpan(logits).subspan(t * vocab, vocab), next);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const BridgeProgram& p_;
  ModelRunner& runner_;
  const engine::ReferenceDecoder& reference_;
  const PieceRoles roles_;
  const std::function<void(const std::string&)> line_;
  std::vector<UsedText> used_;
  std::vector<BridgeRow> rows_;
};

// Means over the seeds, a line for each tap, rank and method.
void LogTable(const std::vector<BridgeRow>& rows, std::ostream& log) {
  log << "| tap | rank | method | CKA, least to most | relative MSE | cosine | KL, least to most | top-1 |\n"
      << "|---|---|---|---|---|---|---|---|\n";
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    const BridgeRow& first = rows[begin];
    while (end < rows.size() && rows[end].tap == first.tap && rows[end].rank == first.rank &&
           rows[end].method == first.method) {
      ++end;
    }
    const auto range = [&](auto figure) {
      double least = figure(first);
      double most = least;
      for (size_t i = begin; i < end; ++i) {
        least = std::min(least, figure(rows[i]));
        most = std::max(most, figure(rows[i]));
      }
      return std::pair(least, most);
    };
    const auto cka = range([](const BridgeRow& row) { return row.cka; });
    const auto kl = range([](const BridgeRow& row) { return row.divergence.kl.mean; });
    double relative = 0;
    double cosine = 0;
    double top_1 = 0;
    for (size_t i = begin; i < end; ++i) {
      relative += rows[i].relative_mse / static_cast<double>(end - begin);
      cosine += rows[i].cosine / static_cast<double>(end - begin);
      top_1 += rows[i].divergence.top_1_agreement / static_cast<double>(end - begin);
    }
    log << absl::StrFormat("| %d | %d | %s | %.5f to %.5f | %.4f | %.4f | %.3f to %.3f | %.1f %% |\n", first.tap,
                           first.rank, first.method, cka.first, cka.second, relative, cosine, kl.first, kl.second,
                           100 * top_1);
  }
}

std::string ReportText(const BridgeProgram& program, const std::vector<BridgeRow>& rows) {
  Json json{{"command", program.command}, {"machine", MachineText()}};
  for (const BridgeRow& row : rows) {
    json["bridges"].push_back({{"tap", row.tap},
                               {"rank", row.rank},
                               {"method", row.method},
                               {"seed", row.seed},
                               {"mean_squared_error", row.mean_squared_error},
                               {"relative_mse", row.relative_mse},
                               {"cosine", row.cosine},
                               {"cka", row.cka},
                               {"mean_kl", row.divergence.kl.mean},
                               {"p99_kl", row.divergence.kl.p99},
                               {"top_1_agreement", row.divergence.top_1_agreement},
                               {"perplexity_ratio", row.divergence.perplexity_ratio.value_or(0)},
                               {"scored_tokens", row.divergence.kl.count}});
  }
  return json.dump(2) + "\n";
}

}  // namespace

absl::Status BridgeProgram::Run(std::ostream& log) {
  if (!report.empty()) {
    absl::Status status = CheckOutputFile(report, force);
    if (absl::IsAlreadyExists(status))
      status = absl::AlreadyExistsError(absl::StrCat(report, " exists; --force replaces it"));
    if (!status.ok()) return status;
  }
  const absl::StatusOr<std::unique_ptr<ModelRunner>> runner = ModelRunner::Load(model, threads, 2 * piece_tokens);
  if (!runner.ok()) return runner.status();
  const engine::ModelConfig& config = (*runner)->config();
  if (taps.empty()) taps = {config.layers / 2, config.layers};
  for (const int tap : taps) {
    if (tap < 0 || tap > config.layers + 1) {
      return absl::InvalidArgumentError(absl::StrCat("a tap must be 0 to ", config.layers + 1, ", not ", tap));
    }
  }
  for (const int rank : ranks) {
    if (rank < 1 || rank > config.hidden_size) {
      return absl::InvalidArgumentError(absl::StrCat("a rank must be 1 to ", config.hidden_size, ", not ", rank));
    }
  }
  const int wanted = (tokens + piece_tokens - 1) / piece_tokens;
  const auto pieces = CutPieces(texts, (*runner)->tokenizer(),
                                {.tokens_per_piece = piece_tokens, .pieces = wanted, .seed = options.seed});
  if (!pieces.ok()) return pieces.status();
  absl::StatusOr<PieceRoles> roles = RolesOf(*pieces);
  if (!roles.ok()) return roles.status();
  const auto reference = engine::ReferenceDecoder::Load(model);
  if (!reference.ok()) return reference.status();
  at::set_num_threads(threads);
  const absl::StatusOr<std::vector<BridgeRow>> rows =
      BridgeTraining(*this, **runner, **reference, *std::move(roles), log).Run();
  if (!rows.ok()) return rows.status();
  LogTable(*rows, log);
  return report.empty() ? absl::OkStatus() : WriteFileAtomically(report, ReportText(*this, *rows));
}

}  // namespace quicksave::server
