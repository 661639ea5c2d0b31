// quicksave: the command line tool.

#include <string>
#include <vector>

#include "client/cli/cli.h"
#include "client/cli/console.h"
#include "client/cli/interrupts.h"

int main(int argc, char** argv) {
  quicksave::cli::Console console = quicksave::cli::ProcessConsole();
  return quicksave::cli::RunCli(std::vector<std::string>(argv + 1, argv + argc), console,
                                {.connect = quicksave::client::MakeConnection, .arm = quicksave::cli::ArmInterrupts});
}
