// Several generations from one state, at the same time.

#ifndef QUICKSAVE_CLIENT_CLI_SAMPLES_H_
#define QUICKSAVE_CLIENT_CLI_SAMPLES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "client/cli/command.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

// Computes what all samples have in common once, branches with seeds that count up from the request's (or from 0), and
// generates in all branches, at most 16 at a time, which the server batches. Shows them one after the other: the first
// as it comes, the others as soon as those before them have ended. After an error no other sample is begun; those
// that were are shown, and the first error is returned; sessions that are not to be kept are deleted in any case.
absl::Status GenerateSamples(const client::GenerateRequest& request, int32_t samples, CommandContext& context);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_SAMPLES_H_
