# The warnings that all of our own code is built with, as an interface target.
add_library(quicksave_warnings INTERFACE)
target_compile_options(quicksave_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  -Wno-unused-parameter -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(quicksave_warnings INTERFACE -Wthread-safety)
endif()
if(QUICKSAVE_WARNINGS_AS_ERRORS)
  target_compile_options(quicksave_warnings INTERFACE -Werror)
endif()
