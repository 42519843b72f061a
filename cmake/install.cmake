# What `cmake --install` writes: headers, library, a CMake package (segprior::segprior) and a pkg-config file.
# Both find the prefix from their own place, so an installed tree can be moved.
include(CMakePackageConfigHelpers)

install(TARGETS segprior EXPORT segprior-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/segprior DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h*")
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/segprior)
install(EXPORT segprior-targets NAMESPACE segprior:: FILE segprior-config.cmake DESTINATION ${package_dir})
# Below 1.0 a minor version may change the interface, so it has to match.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/segprior-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/segprior-config-version.cmake DESTINATION ${package_dir})

set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH pc_prefix /prefix/${pkgconfig_dir} /prefix)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/segprior.pc.in segprior.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/segprior.pc DESTINATION ${pkgconfig_dir})
