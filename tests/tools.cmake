# The tools that guard the source tree are tests too.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  add_test(NAME tools.layers COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_layers.py
                                     ${PROJECT_SOURCE_DIR})
  add_test(NAME tools.layers_self_test COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_layers_test.py)
  set_tests_properties(tools.layers tools.layers_self_test PROPERTIES TIMEOUT 60 LABELS tools)
endif()
