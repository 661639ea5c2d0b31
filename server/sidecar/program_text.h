#ifndef QUICKSAVE_SERVER_SIDECAR_PROGRAM_TEXT_H_
#define QUICKSAVE_SERVER_SIDECAR_PROGRAM_TEXT_H_

// What the programs of this folder say about themselves and their progress.

#include <functional>
#include <ostream>
#include <string>

namespace quicksave::server {

// The command line in printable ASCII, arguments with spaces in quotes.
std::string CommandText(int argc, const char* const* argv);

// The processor's name, and how many processors this program may use; printable ASCII.
std::string MachineText();

// Writes a line for each thing that is done, with the seconds since this call; `stream` must outlive it.
std::function<void(const std::string& what)> ProgressLines(std::ostream& stream);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_PROGRAM_TEXT_H_
