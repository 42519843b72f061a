# Finds the headers of XLA's foreign function interface, which jaxlib brings, and adds the library of handlers behind
# segprior.jax (bindings/jax). Headers only: neither JAX nor Python is linked.

set(default OFF) # inside another project only on request
if(PROJECT_IS_TOP_LEVEL)
  set(default AUTO)
endif()
set(SEGPRIOR_JAX ${default} CACHE STRING "Handlers for JAX: AUTO (if jaxlib's headers are found), ON or OFF")
set_property(CACHE SEGPRIOR_JAX PROPERTY STRINGS AUTO ON OFF)
set(SEGPRIOR_PYTHON "" CACHE FILEPATH "Python interpreter that is asked for jaxlib; empty: CMake's, else python3")
set(SEGPRIOR_XLA_INCLUDE_DIR "" CACHE PATH "Folder that holds xla/ffi/api/ffi.h; empty: jaxlib's is looked for")

# The include folder of the jaxlib that an interpreter would import, "" if there is none. jaxlib itself is not
# imported: in the isolated environment of a wheel's build it may lack what it needs at run time.
function(segprior_find_jaxlib_headers python result)
  set(code "import importlib.util as u; s = u.find_spec('jaxlib'); print(s.submodule_search_locations[0] + '/include' if s else '')")
  execute_process(COMMAND ${python} -c "${code}" OUTPUT_VARIABLE found ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

if(SEGPRIOR_JAX AND NOT SEGPRIOR_SANITIZE)
  # Looked for again at each configuration, because the environment that had it may be gone.
  if(NOT SEGPRIOR_XLA_INCLUDE_DIR)
    if(SEGPRIOR_PYTHON)
      set(jax_python ${SEGPRIOR_PYTHON})
    elseif(Python3_EXECUTABLE)
      set(jax_python ${Python3_EXECUTABLE})
    else()
      find_program(jax_python python3 NO_CACHE)
    endif()
    segprior_find_jaxlib_headers("${jax_python}" SEGPRIOR_XLA_INCLUDE_DIR)
  endif()
  if(EXISTS "${SEGPRIOR_XLA_INCLUDE_DIR}/xla/ffi/api/ffi.h")
    message(STATUS "JAX handlers: with the headers in ${SEGPRIOR_XLA_INCLUDE_DIR}")
    add_subdirectory(bindings/jax)
  elseif(SEGPRIOR_JAX STREQUAL "AUTO")
    message(STATUS "jaxlib's headers not found: without the handlers for JAX")
  else()
    message(FATAL_ERROR "SEGPRIOR_JAX=ON, but xla/ffi/api/ffi.h was not found: set SEGPRIOR_PYTHON to an "
                        "interpreter that has jaxlib, or SEGPRIOR_XLA_INCLUDE_DIR to the headers' folder")
  endif()
endif()
