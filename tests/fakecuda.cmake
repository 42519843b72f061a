# Test programs over the fake CUDA runtime: the unmodified .cu files compiled by g++. The runtime itself, which
# switches stacks, is compiled without sanitizers and serves every flavour.
set(fake_dir ${CMAKE_CURRENT_SOURCE_DIR}/fakecuda)
file(GLOB fake_runtime CONFIGURE_DEPENDS ${fake_dir}/src/*.cpp)
file(GLOB fake_tests CONFIGURE_DEPENDS ${fake_dir}/tests/*.cpp ${fake_dir}/tests/*.cu)
file(GLOB fake_test_cu CONFIGURE_DEPENDS ${fake_dir}/tests/*.cu)
set_source_files_properties(${SEGPRIOR_CUDA_SOURCES} ${fake_test_cu} PROPERTIES LANGUAGE CXX)

add_library(fakecuda OBJECT ${fake_runtime})
target_include_directories(fakecuda PRIVATE ${fake_dir}/include ${PROJECT_SOURCE_DIR})
target_compile_options(fakecuda PRIVATE -Wall -Wextra)

# fake_program(name sanitizers sources...)
function(fake_program name sanitizers)
  add_executable(${name} ${ARGN} $<TARGET_OBJECTS:fakecuda>)
  target_include_directories(${name} BEFORE PRIVATE ${fake_dir}/include)
  target_compile_definitions(${name} PRIVATE SEGPRIOR_WITH_CUDA SEGPRIOR_BUILDING)
  segprior_test_options(${name})
  segprior_sanitize(${name} ${sanitizers})
  # After the build type's -O3: sanitized code compiles three times faster and runs about as fast.
  target_compile_options(${name} PRIVATE -O1)
endfunction()

# ThreadSanitizer cannot map its shadow under some address-space randomisations.
find_program(setarch_program setarch)
if(setarch_program)
  set(without_randomisation ${setarch_program} -R)
endif()

# fake_test(name label command...)
function(fake_test name label)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 1200 ENVIRONMENT
    "ASAN_OPTIONS=detect_leaks=1;UBSAN_OPTIONS=print_stacktrace=1;TSAN_OPTIONS=halt_on_error=0")
endfunction()

fake_program(segprior_tests_fake address,undefined
             ${SEGPRIOR_CPU_SOURCES} ${SEGPRIOR_CUDA_SOURCES} ${test_sources})
fake_test(segprior_tests_fake fake segprior_tests_fake)
fake_program(segprior_tests_race thread ${SEGPRIOR_CPU_SOURCES} ${SEGPRIOR_CUDA_SOURCES} ${test_sources})
fake_test(segprior_tests_race race ${without_randomisation} $<TARGET_FILE:segprior_tests_race>)

if(fake_tests)
  fake_program(fakecuda_tests address,undefined ${fake_tests} support/main.cpp)
  fake_test(fakecuda_tests fake fakecuda_tests)
  fake_program(fakecuda_tests_race thread ${fake_tests} support/main.cpp)
  fake_test(fakecuda_tests_race race ${without_randomisation} $<TARGET_FILE:fakecuda_tests_race>)
endif()
