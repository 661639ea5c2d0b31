# Component `client`: headers, the static library with the archives of generated code that it needs, and the CMake
# package, so that find_package(quicksave) and quicksave::client work from an installed tree.

include(CMakePackageConfigHelpers)
set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quicksave)

install(TARGETS quicksave_client EXPORT quicksaveTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/quicksave
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT client FILES_MATCHING PATTERN "*.h")
install(EXPORT quicksaveTargets NAMESPACE quicksave:: DESTINATION ${_package_dir} COMPONENT client)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/quicksaveConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/quicksaveConfig.cmake INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/quicksaveConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quicksaveConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/quicksaveConfigVersion.cmake
  DESTINATION ${_package_dir} COMPONENT client)
