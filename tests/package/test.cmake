# Installs the build into a folder of its own and builds a project against that, as a user would; then once more, with the
# libraries bundled as `./dev package` does.
find_program(PATCHELF patchelf)
if(PATCHELF AND TARGET switchyard-cli)
  set(bundle -D BUNDLE=${PROJECT_SOURCE_DIR}/tools/bundle_libraries)
endif()
add_test(NAME package.consumer
         COMMAND ${CMAKE_COMMAND} -D BUILD=${PROJECT_BINARY_DIR} -D SOURCE=${CMAKE_CURRENT_LIST_DIR}/consumer
                 -D WORK=${CMAKE_CURRENT_BINARY_DIR}/package -D COMPILER=${CMAKE_CXX_COMPILER}
                 -D GENERATOR=${CMAKE_GENERATOR} ${bundle} -P ${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set_tests_properties(package.consumer PROPERTIES TIMEOUT 300 LABELS package)
