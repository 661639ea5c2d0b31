#include "server/sidecar/program_text.h"

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/machine_resources.h"
#include "server/sidecar/calibration_notes.h"

namespace quicksave::server {

std::string CommandText(int argc, const char* const* argv) {
  std::string text;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = PrintableAscii(argv[i]);
    const bool quoted = argument.empty() || argument.find(' ') != std::string::npos;
    absl::StrAppend(&text, i > 0 ? " " : "", quoted ? "'" : "", argument, quoted ? "'" : "");
  }
  return text;
}

std::string MachineText() {
  std::ifstream file("/proc/cpuinfo");
  std::string processor = "an unknown processor";
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) != 0 || colon == std::string::npos) continue;
    processor = PrintableAscii(line.substr(colon + 2));
    break;
  }
  return absl::StrCat(ProcessorLimit(), " core(s) of ", processor);
}

std::function<void(const std::string& what)> ProgressLines(std::ostream& stream) {
  return [&stream, start = absl::Now()](const std::string& what) {
    stream << absl::StrFormat("%6.0f s  %s\n", absl::ToDoubleSeconds(absl::Now() - start), what) << std::flush;
  };
}

}  // namespace quicksave::server
