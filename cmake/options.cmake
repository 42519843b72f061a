# Warnings, errors, sanitizers and optional headers, the same for the library and its tests. No fast-math anywhere: results are
# reproducible and NaN marks failed images.

function(segprior_compile_options target)
  set(warnings -Wall -Wextra)
  if(SEGPRIOR_WERROR)
    list(APPEND warnings -Werror)
  endif()
  string(REPLACE ";" "," host_warnings "${warnings}")
  set(cuda -Xcompiler=${host_warnings})
  if(SEGPRIOR_WERROR)
    list(APPEND cuda -Werror=all-warnings)
  endif()
  if(SEGPRIOR_PTXAS_REPORT)
    list(APPEND cuda -Xptxas=-v)
  endif()
  list(APPEND cuda -lineinfo --threads=0)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:C,CXX>:${warnings}>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda}>")
  if(TARGET Eigen3::Eigen)
    target_link_libraries(${target} PRIVATE Eigen3::Eigen)
    target_compile_definitions(${target} PRIVATE SEGPRIOR_WITH_EIGEN EIGEN_MPL2_ONLY)
  endif()
  if(SEGPRIOR_SANITIZE)
    segprior_sanitize(${target} ${SEGPRIOR_SANITIZE})
  endif()
endfunction()

# segprior_sanitize(target address,undefined): a finding ends the program, with a usable stack.
function(segprior_sanitize target kinds)
  set(flags -fsanitize=${kinds} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C,CXX>:${flags}>")
  target_link_options(${target} PRIVATE -fsanitize=${kinds})
endfunction()
