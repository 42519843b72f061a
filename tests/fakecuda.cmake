# Test programs over the fake CUDA runtime: the unmodified .cu files compiled by g++. The scheduler, which
# switches stacks, is compiled without sanitizers.
set(fake_dir ${CMAKE_CURRENT_SOURCE_DIR}/fakecuda)
file(GLOB fake_runtime CONFIGURE_DEPENDS ${fake_dir}/*.cpp ${fake_dir}/*.S)
file(GLOB fake_tests CONFIGURE_DEPENDS ${fake_dir}/tests/*.cpp ${fake_dir}/tests/*.cu)
list(FILTER fake_runtime EXCLUDE REGEX "scheduler")
file(GLOB fake_scheduler CONFIGURE_DEPENDS ${fake_dir}/*scheduler*.cpp ${fake_dir}/*scheduler*.S)

file(GLOB fake_cu CONFIGURE_DEPENDS ${SEGPRIOR_CUDA_SOURCES} ${fake_dir}/tests/*.cu)
set_source_files_properties(${SEGPRIOR_CUDA_SOURCES} ${fake_cu} PROPERTIES LANGUAGE CXX)

# fake_program(name sanitizers sources...)
function(fake_program name sanitizers)
  add_library(${name}_scheduler OBJECT ${fake_scheduler})
  target_include_directories(${name}_scheduler PRIVATE ${fake_dir}/include ${PROJECT_SOURCE_DIR})
  add_executable(${name} ${ARGN} ${fake_runtime} $<TARGET_OBJECTS:${name}_scheduler>)
  segprior_test_options(${name})
  segprior_sanitize(${name} ${sanitizers})
  target_include_directories(${name} BEFORE PRIVATE ${fake_dir}/include)
  target_compile_definitions(${name} PRIVATE SEGPRIOR_WITH_CUDA SEGPRIOR_BUILDING)
  target_compile_options(${name} PRIVATE -O1)
endfunction()
