# The two libraries, made of every room's objects, and what a program needs to find them: headers,
# a pkg-config file and a CMake package.
include(CMakePackageConfigHelpers)

set(MARCO_LIBRARIES PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC Threads::Threads m)
# Libraries that are themselves shared where ours is static: as Requires.private they would have
# pkg-config --static name all that they are made of, development files of which need not be there.
set(MARCO_PC_LIBS "")
if(MARCO_SERVE)
  list(APPEND MARCO_LIBRARIES PkgConfig::MICROHTTPD)
  string(APPEND MARCO_PC_LIBS "-lmicrohttpd ")
endif()
if(MARCO_HUB)
  list(APPEND MARCO_LIBRARIES PkgConfig::CURL)
  string(APPEND MARCO_PC_LIBS "-lcurl ")
endif()
if(MARCO_SERVE OR MARCO_HUB)
  list(APPEND MARCO_LIBRARIES PkgConfig::GNUTLS)
  string(APPEND MARCO_PC_LIBS "-lgnutls ")
endif()
if(MARCO_HAS_MPI)
  list(APPEND MARCO_LIBRARIES MPI::MPI_C)
  list(JOIN MPI_C_LIBRARIES " " files)
  string(APPEND MARCO_PC_LIBS "${files} ")
endif()

# A room's own objects, and those it takes from object libraries (one per instruction level).
set(objects)
foreach(room ${MARCO_ROOMS})
  get_target_property(sources ${room} SOURCES)
  list(FILTER sources INCLUDE REGEX "TARGET_OBJECTS")
  list(APPEND objects $<TARGET_OBJECTS:${room}> ${sources})
endforeach()

foreach(kind SHARED STATIC)
  string(TOLOWER ${kind} lower)
  set(target marco_${lower}_library)
  add_library(${target} ${kind} ${objects})
  # The object files carry no language of their own.
  set_target_properties(${target} PROPERTIES OUTPUT_NAME marco LINKER_LANGUAGE C)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PRIVATE ${MARCO_LIBRARIES})
endforeach()
if(NOT MARCO_SANITIZE)
  target_link_options(marco_shared_library PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(marco_shared_library PROPERTIES
  EXPORT_NAME marco VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
set_target_properties(marco_static_library PROPERTIES EXPORT_NAME marco_static)

set(MARCO_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/marco)
# Relative to the file, so that an installed tree can be moved.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(MARCO_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" MARCO_PC_PREFIX "\${pcfiledir}/${up}")
endif()
configure_file(cmake/marco.pc.in marco.pc @ONLY)
configure_package_config_file(cmake/marcoConfig.cmake.in marcoConfig.cmake
                              INSTALL_DESTINATION ${MARCO_CMAKE_DIR})
write_basic_package_version_file(marcoConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(DIRECTORY include/marco DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/marco.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_BINARY_DIR}/marcoConfig.cmake ${CMAKE_BINARY_DIR}/marcoConfigVersion.cmake
        DESTINATION ${MARCO_CMAKE_DIR})
# Two export sets: the static library needs its dependencies' development files, the shared doesn't.
foreach(kind shared static)
  install(TARGETS marco_${kind}_library EXPORT marco_${kind})
  install(EXPORT marco_${kind} DESTINATION ${MARCO_CMAKE_DIR} NAMESPACE marco::
          FILE marco-${kind}.cmake)
endforeach()
