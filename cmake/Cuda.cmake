# quicksave_cuda_library(NAME SOURCE.cu DEPS...): a static library of one file, compiled by nvcc for the host and for GPUs.
#
# QUICKSAVE_CUDA_TOOLKIT is a directory made by scripts/setup.sh --only=cuda. nvcc is called directly, because CMake's own
# support for CUDA would look for a whole toolkit, and would link every program that has such a library in its own way.

if(NOT EXISTS "${QUICKSAVE_CUDA_TOOLKIT}/bin/nvcc")
  message(FATAL_ERROR "No CUDA compiler in '${QUICKSAVE_CUDA_TOOLKIT}'. Run scripts/build_cuda.sh, or set QUICKSAVE_CUDA_TOOLKIT.")
endif()

# The arithmetic is IEEE 754's, with denormals flushed as on the CPU (cpu::ScopedFlushDenormals), and no product and sum
# is fused that the source does not fuse: what makes the bits of a GPU those of the CPU.
set(_nvcc ${QUICKSAVE_CUDA_TOOLKIT}/bin/nvcc -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -O2 -I${PROJECT_SOURCE_DIR}
  -fmad=false -ftz=true -prec-div=true -prec-sqrt=true "-Xcompiler=-fPIC,-Wall,-Wextra,-Wno-unused-parameter")
if(QUICKSAVE_WARNINGS_AS_ERRORS)
  list(APPEND _nvcc -Werror=all-warnings)
endif()
# A100 and H100 without compiling at start; newer GPUs through PTX.
set(_nvcc_gpus -gencode=arch=compute_80,code=sm_80 "-gencode=arch=compute_90,code=[sm_90,compute_90]")

add_library(quicksave_cudart STATIC IMPORTED)
set_target_properties(quicksave_cudart PROPERTIES
  IMPORTED_LOCATION ${QUICKSAVE_CUDA_TOOLKIT}/lib/libcudart_static.a
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};rt")

# Besides, NAME.ptx in the build folder: all kernels in PTX, for the tests.
function(quicksave_cuda_library name source)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  set(input ${CMAKE_CURRENT_SOURCE_DIR}/${source})
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(ptx ${CMAKE_CURRENT_BINARY_DIR}/${name}.ptx)
  add_custom_command(OUTPUT ${object} DEPENDS ${input} DEPFILE ${object}.d VERBATIM
    COMMENT "Compiling ${source} for CPU and GPUs"
    COMMAND ${_nvcc} ${_nvcc_gpus} -MD -MF ${object}.d -c ${input} -o ${object})
  add_custom_command(OUTPUT ${ptx} DEPENDS ${input} ${object} VERBATIM
    COMMENT "Compiling ${source} to PTX"
    COMMAND ${_nvcc} -arch=compute_90 -ptx ${input} -o ${ptx})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  add_library(${name} STATIC ${object})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE quicksave_cudart)
endfunction()
