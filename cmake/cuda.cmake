# Finds nvcc, decides whether the CUDA backend is built and for which devices, and says so.
#
# Default architectures: machine code for every generation from Turing to Hopper that this nvcc knows, and PTX
# of the newest one, which the driver compiles on later devices. sm_90a instead of sm_90: it runs on the same
# chips and may use Hopper's own instructions; its PTX would run nowhere else, so PTX is compute_90's.
# While developing, one architecture compiles several times faster: -DSEGPRIOR_CUDA_ARCHITECTURES=90-real
# (preset `dev`), `native` for the devices of this machine, or CMake's own environment variable CUDAARCHS.

set(SEGPRIOR_CUDA_ARCHITECTURES "" CACHE STRING
    "CUDA architectures in CMake's spelling (80-real;90-virtual;native); empty: all that are supported")
set(SEGPRIOR_HAS_CUDA OFF)

# The architectures out of 75 80 86 89 90a that `nvcc` can compile for, plus PTX of the newest.
function(segprior_default_architectures nvcc result)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(list "")
  foreach(arch 75 80 86 89 90)
    if(known MATCHES "compute_${arch}\n")
      set(newest ${arch})
      list(APPEND list ${arch}-real)
    endif()
  endforeach()
  list(TRANSFORM list REPLACE "^90-real$" "90a-real")
  set(${result} "${list};${newest}-virtual" PARENT_SCOPE)
endfunction()

if(SEGPRIOR_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(nvcc_program nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
                 PATH_SUFFIXES bin NO_CACHE)
    if(nvcc_program AND NOT DEFINED ENV{CUDACXX})
      set(ENV{CUDACXX} ${nvcc_program})
    endif()
  else()
    set(nvcc_program ${CMAKE_CUDA_COMPILER})
  endif()
  if(nvcc_program)
    if(SEGPRIOR_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES ${SEGPRIOR_CUDA_ARCHITECTURES})
    elseif(DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})
    else()
      segprior_default_architectures(${nvcc_program} CMAKE_CUDA_ARCHITECTURES)
    endif()
    include(CheckLanguage)
    check_language(CUDA)  # also false if nvcc does not accept this host compiler
  endif()

  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(SEGPRIOR_HAS_CUDA ON)
    string(REGEX REPLACE "([0-9]+a?)-real" "sm_\\1" names "${CMAKE_CUDA_ARCHITECTURES}")
    string(REGEX REPLACE "([0-9]+a?)-virtual" "PTX compute_\\1" names "${names}")
    string(REGEX REPLACE "(^|;)([0-9]+a?)(;|$)" "\\1sm_\\2 with PTX\\3" names "${names}")
    string(REPLACE ";" ", " names "${names}")
    message(STATUS "CUDA backend: built for ${names} (nvcc ${CMAKE_CUDA_COMPILER_VERSION})")
  elseif(SEGPRIOR_CUDA STREQUAL "AUTO")
    if(nvcc_program)
      message(STATUS "${nvcc_program} does not work with this host compiler: CPU backend only")
    else()
      message(STATUS "nvcc not found: CPU backend only")
    endif()
  else()
    message(FATAL_ERROR "SEGPRIOR_CUDA=ON, but no working nvcc was found (set CUDACXX to its path)")
  endif()
else()
  message(STATUS "SEGPRIOR_CUDA=OFF: CPU backend only")
endif()
