# One libFuzzer executable a file of tests/fuzz; the target `fuzzers` builds them all. They feed what reads bytes from
# outside, which the lower layers do: without the engines they are built in a sixth of the time.
set(fuzzed switchyard_base switchyard_layout switchyard_memory switchyard_bootstrap)
add_custom_target(fuzzers)
file(GLOB fuzz_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/fuzz/*.cpp)
foreach(file ${fuzz_sources})
  cmake_path(GET file STEM stem)
  add_executable(fuzz_${stem} ${file})
  switchyard_flags(fuzz_${stem})
  target_include_directories(fuzz_${stem} PRIVATE ${CMAKE_CURRENT_LIST_DIR})
  target_link_libraries(fuzz_${stem} PRIVATE ${fuzzed})
  target_link_options(fuzz_${stem} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers fuzz_${stem})
endforeach()
