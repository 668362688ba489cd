# The tools that guard the source tree are tests too.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  add_test(NAME tools.layers COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_layers.py
                                     ${PROJECT_SOURCE_DIR})
  add_test(NAME tools.layers_self_test COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_layers_test.py)
  add_test(NAME tools.words_self_test COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_words_test.py)
  add_test(NAME tools.changed_self_test COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/changed_sources_test.py)
  add_test(NAME tools.compare_self_test COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/compare_test.py)
  set_tests_properties(tools.layers tools.layers_self_test tools.words_self_test tools.changed_self_test
                       tools.compare_self_test PROPERTIES TIMEOUT 60 LABELS tools)
endif()

# What plan says of the tables that projects have published; docs/plan.md has the rows that it misses.
if(TARGET switchyard-cli AND Python3_FOUND)
  add_test(NAME cli.plan_validation
           COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/plan_validation.py
                   --command $<TARGET_FILE:switchyard-cli> --least-held 0.75)
  set_tests_properties(cli.plan_validation PROPERTIES TIMEOUT 120 LABELS tools)
endif()

# The latency benchmark checks what it moves.
if(TARGET switchyard-cli)
  foreach(layout expert rank)
    add_test(NAME cli.latency_${layout}
             COMMAND switchyard-cli bench --mode latency --layout ${layout} --ranks 3 --tokens 1,9 --hidden 1000
                     --experts 13 --top-k 4 --dtype fp8-cast --cast ue8m0 --iterations 5 --json -)
    add_test(NAME cli.latency_coded_${layout}
             COMMAND switchyard-cli bench --mode latency --layout ${layout} --ranks 3 --tokens 9 --hidden 1000
                     --experts 13 --top-k 4 --dtype bf16 --coding logfmt10 --iterations 5 --json -)
    set_tests_properties(cli.latency_${layout} cli.latency_coded_${layout}
                         PROPERTIES TIMEOUT 120 PROCESSORS 2 ENVIRONMENT SWITCHYARD_ENGINE=cpu
                                    PASS_REGULAR_EXPRESSION "\"p99_9_us\"")
  endforeach()
endif()
