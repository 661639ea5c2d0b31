#include "server/machine_resources.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace quicksave::server {
namespace {

namespace fs = std::filesystem;

constexpr char kControlGroups[] = "/sys/fs/cgroup";

// The folders of this process's control group of a v1 controller ("" for v2), and of the groups around it.
std::vector<fs::path> ControlGroupFolders(const std::string& controller) {
  const fs::path root = controller.empty() ? fs::path(kControlGroups) : fs::path(kControlGroups) / controller;
  std::vector<fs::path> folders = {root};
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (std::find(controllers.begin(), controllers.end(), controller) == controllers.end()) continue;
    fs::path folder = root;
    for (const auto name : absl::StrSplit(parts[2], '/', absl::SkipEmpty())) {
      // ".." leads out of a namespaced hierarchy, whose root was looked at.
      if (name == "..") break;
      folder /= std::string(name);
      folders.push_back(folder);
    }
  }
  return folders;
}

// Numbers of a file's first line; "max" and everything that is no number count as none.
std::vector<double> ReadNumbers(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  std::vector<double> numbers;
  for (const auto word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
    double number;
    if (!absl::SimpleAtod(word, &number)) return {};
    numbers.push_back(number);
  }
  return numbers;
}

double SmallestMemoryLimit() {
  double limit = std::numeric_limits<double>::infinity();
  for (const auto& [controller, name] : {std::pair("", "memory.max"), std::pair("memory", "memory.limit_in_bytes")}) {
    for (const fs::path& folder : ControlGroupFolders(controller)) {
      const std::vector<double> numbers = ReadNumbers(folder / name);
      if (!numbers.empty()) limit = std::min(limit, numbers[0]);
    }
  }
  return limit;
}

double SmallestProcessorQuota() {
  double quota = std::numeric_limits<double>::infinity();
  for (const fs::path& folder : ControlGroupFolders("")) {
    const std::vector<double> numbers = ReadNumbers(folder / "cpu.max");
    if (numbers.size() == 2 && numbers[1] > 0) quota = std::min(quota, numbers[0] / numbers[1]);
  }
  for (const fs::path& folder : ControlGroupFolders("cpu")) {
    const std::vector<double> time = ReadNumbers(folder / "cpu.cfs_quota_us");
    const std::vector<double> period = ReadNumbers(folder / "cpu.cfs_period_us");
    if (!time.empty() && time[0] > 0 && !period.empty() && period[0] > 0) quota = std::min(quota, time[0] / period[0]);
  }
  return quota;
}

}  // namespace

uint64_t MemoryLimit() {
  const double machine = double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE));
  return static_cast<uint64_t>(std::min(machine, SmallestMemoryLimit()));
}

int ProcessorLimit() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  const int available =
      sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : int(sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, static_cast<int>(std::min<double>(available, std::ceil(SmallestProcessorQuota()))));
}

}  // namespace quicksave::server
