#include "server/sidecar/training/training_set.h"

#include "absl/strings/str_cat.h"
#include "compressor/latent/latent_transform.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {

absl::StatusOr<TrainingSet> CollectTrainingSet(ModelRunner& runner, const std::vector<const TextPiece*>& pieces,
                                               const compressor::LatentProfile& base) {
  TrainingSet set{.groups = std::vector<std::vector<float>>(base.groups.size())};
  for (const TextPiece* piece : pieces) {
    const absl::StatusOr<RunText> text = runner.Run(piece->tokens, {base.split});
    if (!text.ok()) return text.status();
    ForEachBlock(runner, *text, base.split, [&](compressor::BlockView block, const compressor::BlockContext& context) {
      const compressor::LatentTransform transform(base, block.shape, context);
      if (transform.tokens() < kRunTokens) return;
      set.first_positions.push_back(context.first_position + context.known_tokens);
      for (size_t g = 0; g < base.groups.size(); ++g) {
        const std::vector<float> panel = transform.Analyse(base.groups[g], block);
        const size_t components = base.groups[g].components();
        for (size_t t = 0; t < kRunTokens; ++t) {
          for (size_t k = 0; k < components; ++k) set.groups[g].push_back(panel[k * transform.columns() + t]);
        }
      }
    });
  }
  if (set.runs() > 0) return set;
  return absl::InvalidArgumentError(absl::StrCat("no piece of text has a block of ", kRunTokens, " tokens"));
}

}  // namespace quicksave::server
