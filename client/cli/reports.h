// What the tool says about proofs, saves and sessions, in words.

#ifndef QUICKSAVE_CLIENT_CLI_REPORTS_H_
#define QUICKSAVE_CLIENT_CLI_REPORTS_H_

#include <string>
#include <utility>
#include <vector>

#include "client/cli/console.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

using Fields = std::vector<std::pair<std::string, std::string>>;

// One line: "120 tokens reused, 0 recomputed; next-token distribution identical (49,152 logits); 1.2 MiB read in 12.3
// ms".
std::string ProofLine(const client::Proof& proof);
// One line: "1,000 of 1,200 tokens not computed: restored from nodes/7f3a9c21"; empty when all of the input is
// computed.
std::string PrefixLine(const client::GenerateStarted& started);
// One line: "saved nodes/7f3a9c21: 128 tokens, 1.9 MiB (1.56x), +0.3 MiB new, in 15.0 ms".
std::string SavedLine(const client::SavedNode& saved);
// One line: "32 tokens in 1.20 s (26.7 tokens/s), ended by max tokens".
std::string FinishedLine(const client::GenerateFinished& finished);

// One line: "the records of 2 nodes are damaged: nodes/a, nodes/b; `quicksave show NODE` says how".
std::string UnreadableLine(const std::vector<std::string>& names);

// Lines of a proof and of sampler settings, for RenderFields().
Fields ProofFields(const client::Proof& proof);
std::string SamplingText(const client::SamplingParameters& sampling);

// A table of sessions.
std::string SessionTable(const std::vector<client::Session>& sessions, const Console& console);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_REPORTS_H_
