#include "server/sidecar/moment_collector.h"

#include <algorithm>
#include <utility>

#include "compressor/latent/channel_panels.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

using compressor::ChannelPanels;

// Removes the padding of a panel.
void Compact(const ChannelPanels& panels, std::vector<float>& channels) {
  const size_t rows = channels.size() / panels.columns();
  for (size_t c = 0; c < rows; ++c) {
    std::copy_n(channels.begin() + c * panels.columns(), panels.tokens(), channels.begin() + c * panels.tokens());
  }
  channels.resize(rows * panels.tokens());
}

}  // namespace

MomentCollector::MomentCollector(ModelRunner& runner, std::vector<const TextPiece*> pieces, GradientOptions gradients,
                                 std::vector<ProfileFitter*> fitters)
    : runner_(runner), pieces_(std::move(pieces)), gradients_(gradients), fitters_(std::move(fitters)) {
  for (const ProfileFitter* fitter : fitters_) splits_.push_back(fitter->options().split);
}

absl::Status MomentCollector::AddNext() {
  if (states_done_ < states_wanted()) {
    absl::Status status = AddStates(*pieces_[states_done_]);
    states_done_ += status.ok() ? 1 : 0;
    return status;
  }
  absl::Status status = AddGradients(*pieces_[gradients_done_], gradients_.seed + gradients_done_);
  gradients_done_ += status.ok() ? 1 : 0;
  return status;
}

absl::Status MomentCollector::AddStates(const TextPiece& piece) {
  absl::StatusOr<RunText> text = runner_.Run(piece.tokens, splits_);
  if (!text.ok()) return text.status();
  const size_t width = runner_.config().hidden_size;
  ForEachBlock(runner_, *text, splits_[0], [&](compressor::BlockView block, const compressor::BlockContext& context) {
    const ChannelPanels panels(block.shape, context);
    if (panels.tokens() == 0) return;
    std::vector<float> channels = panels.Read(block, 0, block.shape.layers);
    Compact(panels, channels);
    const size_t first = context.first_position + context.known_tokens;
    for (size_t f = 0; f < fitters_.size(); ++f) {
      const auto states = absl::MakeConstSpan(text->hidden_states[f]);
      fitters_[f]->AddStates(channels, states.subspan(first * width, panels.tokens() * width), panels.tokens());
    }
  });
  return absl::OkStatus();
}

absl::Status MomentCollector::AddGradients(const TextPiece& piece, uint64_t seed) {
  if (reference_ == nullptr) {
    auto loaded = engine::ReferenceDecoder::Load(runner_.model_dir());
    if (!loaded.ok()) return loaded.status();
    reference_ = *std::move(loaded);
  }
  const auto tokens = absl::MakeConstSpan(piece.tokens);
  const int labels = std::min(gradients_.labels, static_cast<int>(tokens.size()) / 2);
  const int context = std::min(gradients_.context, static_cast<int>(tokens.size()) - labels);
  absl::StatusOr<RunText> text = runner_.Run(tokens.first(context), {splits_[0]});
  if (!text.ok()) return text.status();
  const engine::ReferenceDecoder::Past past = PastOf(*text);
  const size_t width = past.key_values.size() / past.tokens;
  for (const auto& sample :
       reference_->LabelGradients(past, tokens.subspan(context, labels), gradients_.samples, seed)) {
    const auto counted = absl::MakeConstSpan(sample.gradients).subspan(kRecomputedTokens * width);
    for (ProfileFitter* fitter : fitters_) fitter->AddGradients(counted, context - kRecomputedTokens, labels);
  }
  return absl::OkStatus();
}

engine::ReferenceDecoder::Past MomentCollector::PastOf(const RunText& text) const {
  engine::ReferenceDecoder::Past past{.tokens = text.tokens()};
  ForEachBlock(runner_, text, splits_[0], [&](compressor::BlockView block, compressor::BlockContext context) {
    context.known_tokens = 0;
    const ChannelPanels panels(block.shape, context);
    const std::vector<float> channels = panels.Read(block, 0, block.shape.layers);
    const size_t rows = channels.size() / panels.columns();
    for (int t = 0; t < panels.tokens(); ++t) {
      for (size_t c = 0; c < rows; ++c) past.key_values.push_back(channels[c * panels.columns() + t]);
    }
  });
  return past;
}

void MomentCollector::Save(std::ostream& stream) const {
  stream << states_done_ << " " << gradients_done_ << "\n";
  for (const ProfileFitter* fitter : fitters_) fitter->SaveMoments(stream);
}

absl::Status MomentCollector::Load(std::istream& stream) {
  int states = -1;
  int gradients = -1;
  stream >> states >> gradients;
  if (!stream || stream.get() != '\n' || states < 0 || states > states_wanted() || gradients < 0 ||
      gradients > gradients_wanted()) {
    return absl::DataLossError("these are not the moments of this work");
  }
  for (ProfileFitter* fitter : fitters_) {
    if (absl::Status status = fitter->LoadMoments(stream); !status.ok()) return status;
  }
  states_done_ = states;
  gradients_done_ = gradients;
  return absl::OkStatus();
}

}  // namespace quicksave::server
