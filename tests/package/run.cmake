# cmake -D BUILD= -D SOURCE= -D WORK= -D COMPILER= -D GENERATOR= [-D BUNDLE=] -P run.cmake
# BUNDLE is tools/bundle_libraries, where this machine has what it needs.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "failed (${result}): ${ARGN}")
  endif()
endfunction()

# try_consumer(PREFIX NAME): builds and runs a program against what is installed in PREFIX.
function(try_consumer prefix name)
  run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/${name} -G ${GENERATOR} -D CMAKE_BUILD_TYPE=Release
      -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_PREFIX_PATH=${prefix})
  run(${CMAKE_COMMAND} --build ${WORK}/${name})
  run(${WORK}/${name}/consumer)
endfunction()

# comes_with_tree(PROGRAM TREE LIBRARY...): PROGRAM is loaded with these libraries of TREE.
function(comes_with_tree program tree)
  execute_process(COMMAND ldd ${program} OUTPUT_VARIABLE loaded)
  string(REPLACE "${tree}/bin/../" "TREE/" loaded "${loaded}")
  string(REPLACE "${tree}/" "TREE/" loaded "${loaded}")
  foreach(library ${ARGN})
    if(NOT loaded MATCHES "lib${library}\\.so[.0-9]* => TREE/")
      message(FATAL_ERROR "expected ${program} to load lib${library} of ${tree}, seen ${loaded}")
    endif()
  endforeach()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
# Moved after installation: the package must not hold absolute paths.
file(RENAME ${WORK}/first ${WORK}/prefix)
try_consumer(${WORK}/prefix build)

file(STRINGS ${BUILD}/CMakeCache.txt home REGEX "^CMAKE_HOME_DIRECTORY:")
string(REGEX REPLACE "^[^=]*=" "" home "${home}")
file(GLOB_RECURSE texts ${WORK}/prefix/*.cmake ${WORK}/prefix/*.hpp)
foreach(text ${texts})
  file(STRINGS ${text} lines REGEX "${home}")
  if(lines)
    message(FATAL_ERROR "${text} holds a path of the build machine: ${lines}")
  endif()
endforeach()

if(BUNDLE)
  run(${BUNDLE} ${WORK}/prefix)
  set(tree "${WORK}/moved tree")
  file(RENAME ${WORK}/prefix "${tree}")
  run("${tree}/bin/switchyard" --version)
  comes_with_tree("${tree}/bin/switchyard" "${tree}" fmt spdlog hwloc hwy sodium udev stdc\\+\\+)
  try_consumer("${tree}" build-bundled)
  comes_with_tree(${WORK}/build-bundled/consumer "${tree}" fmt spdlog hwloc hwy sodium udev)
endif()
