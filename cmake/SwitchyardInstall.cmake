# install(), find_package(switchyard), and Debian packages. `./dev package` does all of it.
option(SWITCHYARD_DEB "install as Debian's packages are: their folders of documentation" OFF)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/switchyard)
set(BUNDLE_DIR ${CMAKE_INSTALL_LIBDIR}/switchyard)  # see tools/bundle_libraries

set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME development)
install(TARGETS switchyard EXPORT switchyardTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/switchyard DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN *.hpp)
install(EXPORT switchyardTargets NAMESPACE switchyard:: DESTINATION ${package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/switchyardConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/switchyardConfig.cmake INSTALL_DESTINATION ${package_dir}
                              PATH_VARS BUNDLE_DIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/switchyardConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/switchyardConfig.cmake ${PROJECT_BINARY_DIR}/switchyardConfigVersion.cmake
        DESTINATION ${package_dir})

if(TARGET switchyard-cli)
  install(TARGETS switchyard-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT command)
endif()
if(SWITCHYARD_DEB)
  include(SwitchyardDeb)
else()
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT command)
endif()
