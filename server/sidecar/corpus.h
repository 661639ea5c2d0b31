#ifndef QUICKSAVE_SERVER_SIDECAR_CORPUS_H_
#define QUICKSAVE_SERVER_SIDECAR_CORPUS_H_

// Texts for calibration and evaluation, cut into pieces of equal length.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/tokenizer.h"

namespace quicksave::server {

// One piece of a file.
struct TextPiece {
  std::string file;  // its name without folder and extension
  std::vector<int32_t> tokens;
};

struct CorpusOptions {
  int tokens_per_piece = 1024;
  int pieces = 48;  // in all
  uint64_t seed = 1;
};

// Cuts pieces out of UTF-8 files, the files in turn, each at places that the seed chooses, none overlapping another.
// Every piece begins with what the tokenizer puts before a text. Files too short for one more piece give none; fewer
// than `pieces` come back when all are used up. NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for one that
// is not UTF-8 or when no file has a piece.
absl::StatusOr<std::vector<TextPiece>> CutPieces(const std::vector<std::string>& files,
                                                 const text::Tokenizer& tokenizer, const CorpusOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CORPUS_H_
