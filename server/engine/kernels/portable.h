#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_PORTABLE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_PORTABLE_H_

// Marks a function that is compiled for the host and, in files for nvcc, for the GPU, too.
#if defined(__CUDACC__)
#define QUICKSAVE_PORTABLE __host__ __device__
#else
#define QUICKSAVE_PORTABLE
#endif

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_PORTABLE_H_
