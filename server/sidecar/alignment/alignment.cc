#include "server/sidecar/alignment/alignment.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/latent/quantiser.h"
#include "server/sidecar/alignment/linear_map.h"
#include "server/sidecar/alignment/token_pairs.h"

namespace quicksave::server {
namespace {

using metrics::Rows;

// Latents of tokens that belong together: row i of both.
struct PairedRows {
  std::vector<float> source;
  std::vector<float> target;
  std::vector<int32_t> tokens;  // a number for each pair of tokens that source and target read
  std::vector<size_t> ends;     // of each piece, in rows
};

Rows View(const std::vector<float>& values, int width) { return {values, static_cast<size_t>(width)}; }

// A text that one model has read.
struct ReadText {
  std::vector<int32_t> ids;
  std::vector<int> ends;
  std::vector<float> rows;
};

absl::StatusOr<ReadText> Read(const AlignedModel& model, const LatentRows& latents, const std::string& text) {
  const text::Tokenizer& tokenizer = model.runner->tokenizer();
  absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.Encode(text, /*add_special_tokens=*/true, /*parse_special=*/false);
  if (!ids.ok()) return ids.status();
  const int most = model.runner->config().context_length;
  if (ids->size() > static_cast<size_t>(most)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a piece of text has ", ids->size(), " tokens, but a model takes ", most, " at most"));
  }
  absl::StatusOr<std::vector<int>> ends = TokenEnds(tokenizer, text, *ids);
  if (!ends.ok()) return ends.status();
  const absl::StatusOr<RunText> run = model.runner->Run(*ids, {model.profile->split});
  if (!run.ok()) return run.status();
  return ReadText{*std::move(ids), *std::move(ends), latents.Of(*model.runner, *run)};
}

class Aligner {
 public:
  Aligner(const AlignedModel& source, const AlignedModel& target, const AlignmentOptions& options)
      : source_(source),
        target_(target),
        options_(options),
        source_latents_(*source.profile, source.rows),
        target_latents_(*target.profile, target.rows) {}

  absl::StatusOr<AlignmentReport> Run() {
    // Of each file some pieces, spread evenly, so that all kinds of text are in both parts.
    std::map<std::string, size_t> pieces;
    for (const AlignmentText& text : options_.texts) ++pieces[text.file];
    std::map<std::string, size_t> done;
    for (size_t i = 0; i < options_.texts.size(); ++i) {
      Say(absl::StrCat("piece ", i + 1, " of ", options_.texts.size()));
      const size_t all = pieces[options_.texts[i].file];
      const auto held_out = static_cast<size_t>(std::lround(options_.held_out * static_cast<double>(all)));
      const size_t place = done[options_.texts[i].file]++;
      const bool scored = (place + 1) * held_out / all != place * held_out / all;
      if (absl::Status status = Add(options_.texts[i].text, scored ? scored_ : fitted_); !status.ok()) return status;
    }
    if (fitted_.ends.size() < 2 || scored_.ends.size() < 2) {
      return absl::InvalidArgumentError("an alignment needs at least four pieces of text: two to fit, two to score");
    }
    AlignmentReport report{.fitted_tokens = static_cast<int>(fitted_.tokens.size()),
                           .held_out_tokens = static_cast<int>(scored_.tokens.size()),
                           .held_out_pieces = static_cast<int>(scored_.ends.size()),
                           .paired_tokens = static_cast<double>(fitted_.tokens.size() + scored_.tokens.size()) /
                                            static_cast<double>(source_tokens_)};
    const absl::StatusOr<double> unmapped = metrics::LinearCka(Source(scored_), Target(scored_));
    if (!unmapped.ok()) return unmapped.status();
    report.cka_unmapped = *unmapped;
    const std::vector<float> displaced = RowsAt(Target(fitted_), Shuffled(fitted_.tokens.size()));
    const Rows displaced_rows = View(displaced, target_latents_.width());
    const struct {
      const char* name;
      Rows from, to, scored_from, scored_to;
      AlignmentScores* scores;
    } maps[] = {
        {"source to target", Source(fitted_), Target(fitted_), Source(scored_), Target(scored_), &report.forward},
        {"target to source", Target(fitted_), Source(fitted_), Target(scored_), Source(scored_), &report.backward},
        {"control", Source(fitted_), displaced_rows, Source(scored_), Target(scored_), &report.control},
    };
    for (const auto& map : maps) {
      Say(absl::StrCat("map: ", map.name));
      const std::vector<float> mapped = LinearMap::Fit(map.from, map.to, options_.ridge).Apply(map.scored_from);
      absl::StatusOr<AlignmentScores> scores = Score({mapped, map.scored_to.width}, map.scored_to);
      if (!scores.ok()) return scores.status();
      *map.scores = *scores;
    }
    return report;
  }

 private:
  void Say(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }
  Rows Source(const PairedRows& rows) const { return View(rows.source, source_latents_.width()); }
  Rows Target(const PairedRows& rows) const { return View(rows.target, target_latents_.width()); }

  absl::Status Add(const std::string& text, PairedRows& to) {
    const absl::StatusOr<ReadText> source = Read(source_, source_latents_, text);
    if (!source.ok()) return source.status();
    const absl::StatusOr<ReadText> target = Read(target_, target_latents_, text);
    if (!target.ok()) return target.status();
    const auto append = [](const std::vector<float>& rows, size_t row, size_t width, std::vector<float>& out) {
      out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * width),
                 rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
    };
    for (const TokenPair& pair : PairTokens(source->ends, target->ends)) {
      if (std::min(pair.source, pair.target) < kRecomputedTokens) continue;  // they have no latents
      append(source->rows, pair.source, source_latents_.width(), to.source);
      append(target->rows, pair.target, target_latents_.width(), to.target);
      const std::pair<int32_t, int32_t> read(source->ids[pair.source], target->ids[pair.target]);
      to.tokens.push_back(token_pairs_.try_emplace(read, static_cast<int32_t>(token_pairs_.size())).first->second);
    }
    source_tokens_ += source->ids.size() - std::min<size_t>(source->ids.size(), kRecomputedTokens);
    if (to.tokens.size() > (to.ends.empty() ? 0 : to.ends.back())) to.ends.push_back(to.tokens.size());
    return absl::OkStatus();
  }

  absl::StatusOr<AlignmentScores> Score(const Rows& mapped, const Rows& truth) const {
    const absl::StatusOr<double> unexplained = metrics::FractionOfVarianceUnexplained(truth, mapped);
    if (!unexplained.ok()) return unexplained.status();
    const absl::StatusOr<double> cka = metrics::LinearCka(truth, mapped);
    if (!cka.ok()) return cka.status();
    AlignmentScores scores{.variance_explained = 1 - *unexplained, .cka = *cka};
    const std::vector<size_t> places = Spread();
    const std::vector<float> queries = RowsAt(mapped, places);
    const std::vector<float> candidates = RowsAt(truth, places);
    scores.among_all = Retrieve({queries, truth.width}, {candidates, truth.width});
    scores.within_token = RetrieveWithinLabels(mapped, truth, scored_.tokens, options_.least_of_a_token);
    const std::vector<float> mapped_pieces = PieceMeans(mapped);
    const std::vector<float> true_pieces = PieceMeans(truth);
    scores.of_pieces = Retrieve({mapped_pieces, truth.width}, {true_pieces, truth.width});
    return scores;
  }

  // All places in an order that the seed chooses. Not std::shuffle, whose order the standard leaves open.
  std::vector<size_t> Shuffled(size_t count) const {
    std::vector<size_t> places(count);
    std::iota(places.begin(), places.end(), 0);
    std::mt19937_64 random(options_.seed);
    for (size_t i = count; i > 1; --i) std::swap(places[i - 1], places[random() % i]);
    return places;
  }

  // So many held-out rows, from all pieces.
  std::vector<size_t> Spread() const {
    const size_t rows = scored_.tokens.size();
    const size_t count = std::min<size_t>(rows, options_.queries);
    std::vector<size_t> places;
    for (size_t i = 0; i < count; ++i) places.push_back(i * rows / count);
    return places;
  }

  static std::vector<float> RowsAt(const Rows& rows, const std::vector<size_t>& places) {
    std::vector<float> chosen;
    for (const size_t place : places) {
      const auto row = rows.values.subspan(place * rows.width, rows.width);
      chosen.insert(chosen.end(), row.begin(), row.end());
    }
    return chosen;
  }

  std::vector<float> PieceMeans(const Rows& rows) const {
    std::vector<float> means;
    size_t first = 0;
    for (const size_t end : scored_.ends) {
      std::vector<double> sum(rows.width);
      for (size_t i = first * rows.width; i < end * rows.width; ++i) sum[i % rows.width] += rows.values[i];
      for (const double value : sum) means.push_back(static_cast<float>(value / static_cast<double>(end - first)));
      first = end;
    }
    return means;
  }

  const AlignedModel& source_;
  const AlignedModel& target_;
  const AlignmentOptions& options_;
  const LatentRows source_latents_;
  const LatentRows target_latents_;
  PairedRows fitted_;
  PairedRows scored_;
  size_t source_tokens_ = 0;
  std::map<std::pair<int32_t, int32_t>, int32_t> token_pairs_;
};

absl::Status CheckModel(const char* which, const AlignedModel& model) {
  const compressor::LatentProfile& profile = *model.profile;
  if (profile.model_fingerprint != model.runner->fingerprint()) {
    return absl::InvalidArgumentError(absl::StrCat("the profile of the ", which, " is of another model"));
  }
  for (const compressor::LayerGroup& group : profile.groups) {
    if (group.encode.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the profile of the ", which, " has no bases"));
    }
  }
  if (model.rows.components_per_group < 1) return absl::InvalidArgumentError("components must be 1 or more");
  if (compressor::IsStep(model.rows.step)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the step of the ", which, " must be a positive number that has an inverse"));
}

}  // namespace

bool AlignmentReport::reliable() const {
  constexpr double kMostExplained = 0.05;
  constexpr double kTimesChance = 5;
  return control.variance_explained < kMostExplained &&
         control.among_all.top_1 <= kTimesChance * control.among_all.chance;
}

absl::Status CheckAlignmentOptions(const AlignmentOptions& options) {
  if (!(options.held_out > 0 && options.held_out < 1)) {
    return absl::InvalidArgumentError("the held-out share must be between 0 and 1");
  }
  if (!(options.ridge > 0) || !std::isfinite(options.ridge) || options.queries < 2 || options.least_of_a_token < 2) {
    return absl::InvalidArgumentError("ridge must be above 0, queries and occurrences 2 or more");
  }
  return absl::OkStatus();
}

absl::StatusOr<AlignmentReport> Align(const AlignedModel& source, const AlignedModel& target,
                                      const AlignmentOptions& options) {
  if (absl::Status status = CheckModel("source", source); !status.ok()) return status;
  if (absl::Status status = CheckModel("target", target); !status.ok()) return status;
  if (absl::Status status = CheckAlignmentOptions(options); !status.ok()) return status;
  return Aligner(source, target, options).Run();
}

}  // namespace quicksave::server
