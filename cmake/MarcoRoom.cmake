# marco_room(NAME name SOURCES ... USES room ... LIBRARIES target ...)
#
# A room is a static library, marco_<name>, that may use the rooms named. Each room's tests link to
# that library alone, so code that reaches for a room above its own does not link.
set(MARCO_ROOMS "" CACHE INTERNAL "")
function(marco_room)
  cmake_parse_arguments(R "" "NAME" "SOURCES;USES;LIBRARIES" ${ARGN})
  add_library(marco_${R_NAME} STATIC ${R_SOURCES})
  target_include_directories(marco_${R_NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src
                                                    ${CMAKE_SOURCE_DIR}/include)
  foreach(room ${R_USES})
    target_link_libraries(marco_${R_NAME} PUBLIC marco_${room})
  endforeach()
  target_link_libraries(marco_${R_NAME} PUBLIC ${R_LIBRARIES})
  set(MARCO_ROOMS ${MARCO_ROOMS} marco_${R_NAME} CACHE INTERNAL "")
endfunction()
