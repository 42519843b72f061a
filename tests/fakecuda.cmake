# segprior_tests_fake and segprior_tests_race: library, .cu files and tests compiled by g++ over the fake CUDA
# runtime of fakecuda/, which brings its own tests (fakecuda_tests*).
add_subdirectory(fakecuda)

# fake_program(name flavour label [arguments of the test run])
function(fake_program name flavour label)
  add_executable(${name} ${SEGPRIOR_CPU_SOURCES} ${test_sources})
  segprior_fake_sources(${name} ${SEGPRIOR_CUDA_SOURCES})
  segprior_fake_flavour(${name} ${flavour})
  segprior_test_options(${name})
  target_compile_definitions(${name} PRIVATE SEGPRIOR_WITH_CUDA SEGPRIOR_BUILDING)
  # After the build type's -O3: sanitized code compiles much faster and runs about as fast.
  target_compile_options(${name} PRIVATE -O1)
  add_test(NAME ${name} COMMAND ${SEGPRIOR_FAKE_LAUNCHER} $<TARGET_FILE:${name}> ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 1200)
endfunction()

fake_program(segprior_tests_fake asan fake "--test-case=*[small]*")
fake_program(segprior_tests_race tsan race "--test-case=*[race]*")
