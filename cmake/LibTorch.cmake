# Imported targets for the CPU half of LibTorch, from an unpacked PyPI wheel.
#
# QUICKSAVE_LIBTORCH is a directory made by scripts/setup.sh that holds `torch/` and `nvidia/cu13/` side by side.
# find_package(Torch) of this wheel fails without a CUDA toolkit, so the two libraries are imported here.
# The wheel's include directory carries its own google/protobuf and fmt, which would shadow Debian's; only the folders
# that belong to Torch are made visible, through a view of symlinks in the build tree.

if(NOT EXISTS "${QUICKSAVE_LIBTORCH}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No LibTorch in '${QUICKSAVE_LIBTORCH}'. Run scripts/setup.sh, or set QUICKSAVE_LIBTORCH.")
endif()

set(_torch_view ${CMAKE_BINARY_DIR}/libtorch_view)
file(MAKE_DIRECTORY ${_torch_view})
foreach(folder ATen c10 torch caffe2)
  file(CREATE_LINK ${QUICKSAVE_LIBTORCH}/torch/include/${folder} ${_torch_view}/${folder} SYMBOLIC)
endforeach()

set(_torch_lib ${QUICKSAVE_LIBTORCH}/torch/lib)
set(_cuda_lib ${QUICKSAVE_LIBTORCH}/nvidia/cu13/lib)
set(_cupti_lib ${QUICKSAVE_LIBTORCH}/nvidia/cuda_cupti/lib)
foreach(library c10 torch_cpu)
  add_library(Torch::${library} SHARED IMPORTED)
  set_target_properties(Torch::${library} PROPERTIES
    IMPORTED_LOCATION ${_torch_lib}/lib${library}.so
    IMPORTED_NO_SONAME TRUE
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${_torch_view}
    INTERFACE_COMPILE_DEFINITIONS _GLIBCXX_USE_CXX11_ABI=1)
endforeach()
add_library(Torch::Torch INTERFACE IMPORTED)
target_link_libraries(Torch::Torch INTERFACE Torch::torch_cpu Torch::c10)
target_link_options(Torch::Torch INTERFACE -Wl,-rpath-link,${_torch_lib} -Wl,-rpath-link,${_cuda_lib})
