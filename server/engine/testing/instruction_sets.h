#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_INSTRUCTION_SETS_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_INSTRUCTION_SETS_H_

// Running the kernels on each of the instruction sets that they were compiled for.

#include <cstdint>
#include <string>
#include <vector>

namespace quicksave::engine {

// Highway's targets that this CPU has and the kernels were compiled for, the best first: AVX-512 (two kinds) and AVX2.
std::vector<int64_t> KernelTargets();
std::string TargetName(int64_t target);

// The kernels run on this target while it lives. No kernel may run in another thread when it comes or goes.
class ScopedTarget {
 public:
  explicit ScopedTarget(int64_t target);
  ~ScopedTarget();
  ScopedTarget(const ScopedTarget&) = delete;
  ScopedTarget& operator=(const ScopedTarget&) = delete;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_INSTRUCTION_SETS_H_
