# marco_embed(target output file...)
#
# Gives the target's sources a file to include: for each file `static const unsigned char
# embedded_<name>[]`, its bytes, where <name> has _ for what C has no room for in a name. It is made
# again when a file changes. Run as a script (-D OUTPUT= -D FILES= -P) this does the work.
function(marco_embed target output)
  set(made ${CMAKE_CURRENT_BINARY_DIR}/embedded/${output})
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(JOIN ARGN "|" files)
  set(script ${CMAKE_SOURCE_DIR}/cmake/MarcoEmbed.cmake)
  add_custom_command(
    OUTPUT ${made}
    COMMAND ${CMAKE_COMMAND} -D OUTPUT=${made} -D "FILES=${files}" -P ${script}
    DEPENDS ${ARGN} ${script}
    VERBATIM)
  target_sources(${target} PRIVATE ${made})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/embedded)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  string(REPLACE "|" ";" FILES "${FILES}")
  set(text "/* Made by cmake/MarcoEmbed.cmake. */\n")
  string(REPEAT "0x..," 16 line)
  foreach(file ${FILES})
    get_filename_component(name ${file} NAME)
    string(MAKE_C_IDENTIFIER ${name} name)
    file(READ ${file} bytes HEX)
    if(bytes STREQUAL "")
      message(FATAL_ERROR "${file} is empty: there is nothing to embed")
    endif()
    string(REGEX REPLACE "(..)" "0x\\1," bytes ${bytes})
    string(REGEX REPLACE "(${line})" "\\1\n" bytes ${bytes})
    string(APPEND text "static const unsigned char embedded_${name}[] = {\n${bytes}};\n")
  endforeach()
  file(WRITE ${OUTPUT} "${text}")
endif()
