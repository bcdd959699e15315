# SPDX-License-Identifier: Apache-2.0
# Writes the header OUT with the commit that SOURCE stands at, when it has changed. Every build runs it:
#   cmake -DSOURCE=... -DOUT=... -P commit.cmake
# Without a repository it is LACUNA_COMMIT's value of the environment, or "".
set(commit "$ENV{LACUNA_COMMIT}")
if(NOT commit AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --exclude=*
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT commit MATCHES "^[A-Za-z0-9._-]*$")
  set(commit "")
endif()
set(text "#define LACUNA_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS ${OUT})
  file(READ ${OUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
