# marco_unit_test(name room... [THREADED])
#
# tests/unit/test_<name>.c, linked to the rooms named (and those they use), and to nothing else of
# ours: a call to a room above them does not link. THREADED tests also run under ThreadSanitizer.
#
# marco_fuzz_target(name room...)
#
# tests/fuzz/fuzz_<name>.c, run for MARCO_FUZZ_SECONDS on tests/fuzz/corpus/<name>.
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)

set(MARCO_FUZZ_SECONDS 20 CACHE STRING "Seconds that the tests run each fuzz target for")

function(marco_unit_test name)
  cmake_parse_arguments(T "THREADED" "" "" ${ARGN})
  if(NOT CMOCKA_FOUND)
    message(FATAL_ERROR "The unit tests need cmocka (Debian, Ubuntu: libcmocka-dev).")
  endif()
  list(TRANSFORM T_UNPARSED_ARGUMENTS PREPEND marco_)
  add_executable(test_${name} test_${name}.c)
  target_link_libraries(test_${name} PRIVATE ${T_UNPARSED_ARGUMENTS} PkgConfig::CMOCKA)
  add_test(NAME unit_${name} COMMAND test_${name})
  set(labels unit)
  if(T_THREADED)
    list(APPEND labels threaded)
  endif()
  set_tests_properties(unit_${name} PROPERTIES
    LABELS "${labels}" ENVIRONMENT "MARCO_TEST_VECTORS=${CMAKE_SOURCE_DIR}/tests/vectors")
endfunction()

function(marco_fuzz_target name)
  list(TRANSFORM ARGN PREPEND marco_)
  add_executable(fuzz_${name} fuzz_${name}.c)
  target_link_libraries(fuzz_${name} PRIVATE ${ARGN})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  # What a run finds goes to the first folder; the committed corpus is only read.
  set(found ${CMAKE_BINARY_DIR}/fuzz/${name})
  file(MAKE_DIRECTORY ${found})
  add_test(NAME fuzz_${name}
           COMMAND fuzz_${name} -max_total_time=${MARCO_FUZZ_SECONDS} -timeout=20
                   -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
                   -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/crash-${name}-
                   ${found} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz)
endfunction()
