#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_PTX_KERNELS_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_PTX_KERNELS_H_

// The kernels of cuda_device.cu as nvcc compiled them, translated from PTX for the CPU by ptx_to_cpp.py.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quicksave::engine {

struct PtxKernel {
  // Where a parameter stands among all of them, in bytes.
  struct Parameter {
    size_t offset;
    size_t size;
  };
  // One thread of one block.
  using Function = void (*)(const std::byte* parameters, uint32_t block, uint32_t blocks, uint32_t thread,
                            uint32_t threads);

  const char* name;  // mangled
  std::vector<Parameter> parameters;
  Function run;
};

const std::vector<PtxKernel>& PtxKernels();

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_PTX_KERNELS_H_
