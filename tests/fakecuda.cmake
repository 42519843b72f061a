# segprior_tests_fake and segprior_tests_race: the library with its .cu files compiled by g++ over the fake CUDA
# runtime of fakecuda/, which brings its own tests (fakecuda_tests, fakecuda_race_tests).
add_subdirectory(fakecuda)

# What has to be instrumented is the library. The tests themselves, compiled once without sanitizers, serve both
# programs; only the file that replaces malloc looks at the sanitizer.
set(allocation_counter ${CMAKE_CURRENT_SOURCE_DIR}/support/alloc_count.cpp)
set(shared_sources ${test_sources})
list(REMOVE_ITEM shared_sources ${allocation_counter})
add_library(tests_over_fake OBJECT ${shared_sources})
# ThreadSanitizer looks for races between CUDA threads. It does not know OpenMP's barriers, so there the CPU
# backend is not instrumented and runs in one thread (the sanitizer still sees its calls of memmove).
set(cpu_backend ${SEGPRIOR_CPU_SOURCES})
list(FILTER cpu_backend INCLUDE REGEX "/kernels/")
set(capi_sources ${SEGPRIOR_CPU_SOURCES})
list(FILTER capi_sources EXCLUDE REGEX "/kernels/")
add_library(cpu_backend_plain OBJECT ${cpu_backend})

# After the build type's -O3: compiles much faster and runs, sanitized, about as fast.
function(fake_options target)
  segprior_test_options(${target})
  target_compile_definitions(${target} PRIVATE SEGPRIOR_WITH_CUDA SEGPRIOR_BUILDING)
  target_compile_options(${target} PRIVATE -O1)
  target_link_libraries(${target} PRIVATE fakecuda)
endfunction()
fake_options(tests_over_fake)
fake_options(cpu_backend_plain)

# fake_program(name flavour label filter sources...): `filter` is doctest's for the test run
function(fake_program name flavour label filter)
  add_executable(${name} ${capi_sources} ${allocation_counter} ${ARGN} $<TARGET_OBJECTS:tests_over_fake>)
  segprior_fake_sources(${name} ${SEGPRIOR_CUDA_SOURCES})
  segprior_fake_flavour(${name} ${flavour})
  fake_options(${name})
  add_test(NAME ${name} COMMAND ${SEGPRIOR_FAKE_LAUNCHER} $<TARGET_FILE:${name}> --test-case=${filter})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 1200)
endfunction()

fake_program(segprior_tests_fake asan fake "*[small]*" ${cpu_backend})
fake_program(segprior_tests_race tsan race "*[race]*" $<TARGET_OBJECTS:cpu_backend_plain>)
set_tests_properties(segprior_tests_race PROPERTIES ENVIRONMENT OMP_NUM_THREADS=1)
