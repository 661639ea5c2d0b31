// What the tool says of encodings of a node, and how a person names one of them.

#ifndef QUICKSAVE_CLIENT_CLI_ENCODING_TEXT_H_
#define QUICKSAVE_CLIENT_CLI_ENCODING_TEXT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/console.h"
#include "quicksave/graph_requests.h"

namespace quicksave::cli {

// "latent, split 6, step 0.05, profile 3eb8bc5a".
std::string EncodingName(const client::Encoding& encoding);
// "mean KL 0.0021 nats, largest 0.034, top-1 98.4%", and where that is known over how many tokens that was
// measured, and the KL after the last one: " over 32 tokens, 0.0021 after the last".
std::string FidelityText(const client::Fidelity& fidelity);
// Name, sizes and fidelity in one line: "latent, split 6, step 0.05, profile 3eb8bc5a: 120.0 KiB (12.30x), with
// residual 1.2 MiB (1.80x); mean KL 0.0021 nats, largest 0.034, top-1 98.4%".
std::string EncodingText(const client::Encoding& encoding);

// How much smaller the encoding is together with its residual; 0 when it has none.
double LayeredRatio(const client::Encoding& encoding);
// Stored bytes of all that the node has of its K and V; blocks that two of its encodings share count for both.
int64_t StoredBytes(const client::Node& node);
// How much smaller that is than the K and V; 0 when that is not known.
double StoredRatio(const client::Node& node);

// A table of what EncodeNode tried.
std::string TrialTable(const std::vector<client::EncodingTrial>& trials, const Console& console);

// Returns the one encoding of the node that `text` means: its number as `quicksave show` counts them, or what sets it
// apart, such as `split=6`, `step=0.05`, `profile=3eb8` or several of them, separated by commas. INVALID_ARGUMENT for
// other texts and, with the encodings that the node has, for what means several of them; NOT_FOUND for none.
absl::StatusOr<client::Encoding> FindEncoding(const client::Node& node, const std::string& text);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_ENCODING_TEXT_H_
