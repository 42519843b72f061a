# What goes into a Python wheel: libsegprior.so beside the package's modules, under its SONAME alone. A wheel has no
# symbolic links, so the usual chain of names would be so many copies.
set_target_properties(segprior PROPERTIES VERSION ${PROJECT_VERSION_MAJOR})
install(TARGETS segprior LIBRARY DESTINATION segprior NAMELINK_SKIP)
if(TARGET segprior_jax)
  set_target_properties(segprior_jax PROPERTIES INSTALL_RPATH "$ORIGIN")
  install(TARGETS segprior_jax LIBRARY DESTINATION segprior)
endif()
