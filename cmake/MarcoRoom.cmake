# marco_room(NAME name SOURCES ... USES room ... LIBRARIES target ...)
#
# A room is a static library, marco_<name>, that may use the rooms named. Each room's tests link to
# that library alone, so code that reaches for a room above its own does not link.
#
# marco_level(ROOM name NAME level SOURCES ... OPTIONS ...)
#
# Sources of a room for one instruction level, compiled with options of their own ("-mavx2"). The
# rest of the room stays at the baseline, so one binary runs everywhere.
#
# MARCO_OBJECTS collects every room's object files, for the libraries to be made of.
set(MARCO_OBJECTS "" CACHE INTERNAL "")

function(marco_room)
  cmake_parse_arguments(R "" "NAME" "SOURCES;USES;LIBRARIES" ${ARGN})
  add_library(marco_${R_NAME} STATIC ${R_SOURCES})
  target_include_directories(marco_${R_NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src
                                                    ${CMAKE_SOURCE_DIR}/include)
  foreach(room ${R_USES})
    target_link_libraries(marco_${R_NAME} PUBLIC marco_${room})
  endforeach()
  target_link_libraries(marco_${R_NAME} PUBLIC ${R_LIBRARIES})
  set(MARCO_OBJECTS ${MARCO_OBJECTS} $<TARGET_OBJECTS:marco_${R_NAME}> CACHE INTERNAL "")
endfunction()

function(marco_level)
  cmake_parse_arguments(L "" "ROOM;NAME" "SOURCES;OPTIONS" ${ARGN})
  set(target marco_${L_ROOM}_${L_NAME})
  add_library(${target} OBJECT ${L_SOURCES})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  target_compile_options(${target} PRIVATE ${L_OPTIONS})
  target_sources(marco_${L_ROOM} PRIVATE $<TARGET_OBJECTS:${target}>)
  set(MARCO_OBJECTS ${MARCO_OBJECTS} $<TARGET_OBJECTS:${target}> CACHE INTERNAL "")
endfunction()
