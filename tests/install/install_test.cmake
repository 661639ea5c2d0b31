# Run by ctest with cmake -P; fails with the output of the step that failed.

function(run name)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message(STATUS "${name}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${name} failed (${result}): ${ARGN}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
set(prefix ${WORK_DIR}/prefix)
run("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --component client --prefix ${prefix})

# A public header must not need, or even name, what the library is made of.
file(GLOB headers ${prefix}/include/quicksave/*.h)
if(NOT headers)
  message(FATAL_ERROR "no headers in ${prefix}/include/quicksave")
endif()
foreach(header ${headers})
  file(STRINGS ${header} includes REGEX "#include.*(grpc|google|\\.pb\\.h|client/)")
  if(includes)
    message(FATAL_ERROR "${header} includes what is not public: ${includes}")
  endif()
endforeach()

run("configure" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${PROJECT_DIR} -B ${WORK_DIR}/build -DCMAKE_PREFIX_PATH=${prefix}
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DSANITIZER=${SANITIZER})
run("build" ${CMAKE_COMMAND} --build ${WORK_DIR}/build)
run("run" ${WORK_DIR}/build/app)
message(STATUS "output of the app:\n${output}")
foreach(expected "quicksave ${VERSION}" "UNAVAILABLE: no answer from 127.0.0.1:1")
  string(FIND "${output}" "${expected}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "the app did not print '${expected}'")
  endif()
endforeach()
