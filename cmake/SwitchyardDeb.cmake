# Two Debian packages, as is usual there: `switchyard`, the command, and `libswitchyard-dev`, for programs that use it.
# There is no address of the project's; who gives packages to others gives theirs.
set(SWITCHYARD_MAINTAINER "The Switchyard developers <switchyard@example.invalid>"
    CACHE STRING "who the packages say maintains them: NAME <ADDRESS>")

# Debian's name for a licence's file, and a folder for each package.
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/switchyard RENAME copyright
        COMPONENT command)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libswitchyard-dev RENAME copyright
        COMPONENT development)

set(CPACK_GENERATOR DEB)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_PACKAGE_NAME switchyard)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT ${SWITCHYARD_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
                                                WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_ALL command development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME switchyard)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SECTION science)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SUGGESTS libfabric1)  # loaded where it is found, for what crosses between nodes
set(CPACK_COMPONENT_COMMAND_DESCRIPTION
    "Measures dispatches and combines between the ranks of one machine (bench),
tells what a machine offers for them (info), writes traces (trace), and
predicts what they cost on a cluster (plan).")

# What the static library links. The shared libraries that it was compiled for are those that the command needs: so it
# cannot be installed where others have taken their place.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libswitchyard-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "switchyard (= ${PROJECT_VERSION}), libfmt-dev, \
libspdlog-dev, libhwloc-dev, libhwy-dev, libsodium-dev, pkg-config")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
    "The static library, its headers, and CMake's find_package(switchyard).")
include(CPack)
