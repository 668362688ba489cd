# SWITCHYARD_FABRIC: the transport over libfabric where its headers are (AUTO), or always or never. The library itself is
# loaded when it is first needed, so that one build serves machines with and without it, and takes a cluster's own.
# Sets SWITCHYARD_HAS_FABRIC.
set(SWITCHYARD_FABRIC AUTO CACHE STRING "build the transport over libfabric: AUTO (where its headers are), ON or OFF")
set_property(CACHE SWITCHYARD_FABRIC PROPERTY STRINGS AUTO ON OFF)

set(SWITCHYARD_HAS_FABRIC OFF)
find_path(SWITCHYARD_FABRIC_HEADERS rdma/fabric.h)
mark_as_advanced(SWITCHYARD_FABRIC_HEADERS)
if(SWITCHYARD_FABRIC STREQUAL "OFF")
  message(STATUS "libfabric transport: left out, SWITCHYARD_FABRIC=OFF")
elseif(SWITCHYARD_FABRIC_HEADERS)
  set(SWITCHYARD_HAS_FABRIC ON)
  message(STATUS "libfabric transport: built, with the headers in ${SWITCHYARD_FABRIC_HEADERS}")
elseif(SWITCHYARD_FABRIC STREQUAL "ON")
  message(FATAL_ERROR "SWITCHYARD_FABRIC=ON: rdma/fabric.h not found; install libfabric-dev, or say where libfabric is "
                      "with CMAKE_PREFIX_PATH")
else()
  message(STATUS "libfabric transport: left out, no rdma/fabric.h found (Debian: libfabric-dev)")
endif()
