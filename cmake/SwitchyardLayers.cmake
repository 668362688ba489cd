# switchyard_layer(NAME layer [DEPENDS layer...] [LINK target...] [FOLDERS folder...] [EXCEPT file...]) builds the sources
# of the current folder, and of the folders in it that are named, as one object library, which the library `switchyard`
# then contains.
function(switchyard_flags target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE
                         $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion>
                         # What clang adds to what GCC means by these names.
                         $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-shadow;-Wno-sign-conversion>)
  if(SWITCHYARD_SANITIZE)
    target_compile_options(${target} PRIVATE
                           $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SWITCHYARD_SANITIZE};-fno-omit-frame-pointer>)
    # The check of vtable pointers probes memory through a pipe. A process without a free descriptor, which tests make on
    # purpose, cannot have one, and the check then reports every object.
    if(SWITCHYARD_SANITIZE MATCHES "undefined" AND NOT SWITCHYARD_BUILD_FUZZERS)
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=vptr>)
    endif()
    target_link_options(${target} PUBLIC -fsanitize=${SWITCHYARD_SANITIZE})
    # Each check of undefined behaviour has a record with pointers. Linked for a fixed place they need no relocations:
    # with two million of them each test, a process of its own, took twice as long to start.
    if(SWITCHYARD_SANITIZE MATCHES "undefined")
      target_link_options(${target} PRIVATE $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-no-pie>)
    endif()
  endif()
  if(SWITCHYARD_BUILD_FUZZERS)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

function(switchyard_layer)
  cmake_parse_arguments(LAYER "" "NAME" "DEPENDS;LINK;FOLDERS;EXCEPT" ${ARGN})
  list(TRANSFORM LAYER_FOLDERS APPEND /*.cpp)
  list(TRANSFORM LAYER_FOLDERS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp ${LAYER_FOLDERS})
  list(TRANSFORM LAYER_EXCEPT PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(REMOVE_ITEM sources ${LAYER_EXCEPT})
  set(target switchyard_${LAYER_NAME})
  if(sources)
    add_library(${target} OBJECT ${sources})
    set(scope PUBLIC)
    target_sources(switchyard PRIVATE $<TARGET_OBJECTS:${target}>)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
    switchyard_flags(${target})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM LAYER_DEPENDS PREPEND switchyard_)
  target_link_libraries(${target} ${scope} ${LAYER_DEPENDS} ${LAYER_LINK})
endfunction()
