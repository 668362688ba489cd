# Every public header must compile on its own: one source file a header, with nothing else in the include path.
file(GLOB_RECURSE public_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include
     ${PROJECT_SOURCE_DIR}/include/*.hpp)
foreach(header ${public_headers})
  string(MAKE_C_IDENTIFIER ${header} stem)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${stem}.cpp)
  # Twice: include guards are part of the bargain.
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  list(APPEND header_sources ${source})
endforeach()
add_library(switchyard_headers OBJECT ${header_sources})
switchyard_flags(switchyard_headers)
set_target_properties(switchyard_headers PROPERTIES UNITY_BUILD OFF)
target_include_directories(switchyard_headers PRIVATE ${PROJECT_SOURCE_DIR}/include)
