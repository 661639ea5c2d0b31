// Ctrl-C and SIGTERM as cancellations.

#ifndef QUICKSAVE_CLIENT_CLI_INTERRUPTS_H_
#define QUICKSAVE_CLIENT_CLI_INTERRUPTS_H_

#include "quicksave/call_options.h"

namespace quicksave::cli {

// Returns a new token that the next SIGINT or SIGTERM cancels; a second signal ends the process. A read of standard
// input that is waiting is interrupted by the signal. To be called on one thread.
client::CancellationToken ArmInterrupts();

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_INTERRUPTS_H_
