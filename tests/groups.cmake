# What a build with sanitizers uses in place of gtest_discover_tests. There a process takes up to a quarter of a second to
# start, longer than most cases run: a test of ctest is then a group of cases of one suite, one after the other in one
# process. GoogleTest names each case before it starts, so that a crash has a name; the other builds have a process a
# case. ctest reads this file with `program`, `prefix`, `filter`, `group`, `results` and `properties` set.
execute_process(COMMAND ${program} --gtest_list_tests --gtest_filter=${filter} OUTPUT_VARIABLE listing
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE " +#[^\n]*" "" listing "${listing}")  # the values of parameters
string(REGEX MATCHALL "[^\n]+" lines "${listing}")

# add_group(NAME CASE...)
function(add_group name)
  list(JOIN ARGN ":" cases)
  string(MAKE_C_IDENTIFIER ${name} file)
  add_test(${name} ${program} --gtest_filter=${cases} --gtest_output=xml:${results}/${file}.xml)
  set_tests_properties(${name} PROPERTIES ${properties})
endfunction()

# add_suite(NAME CASE...): evenly in groups.
function(add_suite name)
  list(LENGTH ARGN count)
  if(count LESS_EQUAL group)
    add_group(${prefix}${name} ${ARGN})
    return()
  endif()
  math(EXPR groups "(${count} + ${group} - 1) / ${group}")
  foreach(number RANGE 1 ${groups})
    math(EXPR begin "${count} * (${number} - 1) / ${groups}")
    math(EXPR length "${count} * ${number} / ${groups} - ${begin}")
    list(SUBLIST ARGN ${begin} ${length} cases)
    add_group(${prefix}${name}.${number}_of_${groups} ${cases})
  endforeach()
endfunction()

set(suite "")
set(cases "")
foreach(line ${lines})
  if(line MATCHES "^  ([^ ]+)$")
    list(APPEND cases ${suite}.${CMAKE_MATCH_1})
  elseif(line MATCHES "^([^ ]+)\\.$")
    if(cases)
      add_suite(${suite} ${cases})
    endif()
    set(suite ${CMAKE_MATCH_1})
    set(cases "")
  endif()
endforeach()
if(cases)
  add_suite(${suite} ${cases})
endif()
