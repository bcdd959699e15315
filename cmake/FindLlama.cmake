# Finds llama.cpp with shared libraries and its headers. Absent is not an error.
#
# Looked for in this order: LLAMA_DIR (variable, then environment: the Makefile gives the answer of
# tools/get_llama.sh, so that all agree); the copy tools/get_llama.sh keeps in the cache (the newest); a
# package of the system (find_package(llama CONFIG)).
#
#   Llama_FOUND              libraries and headers are there
#   Llama_BIN_DIR            the folder of llama-bench and friends; empty when only a library is there
#   Llama_VERSION            text for people, such as "0.5.0-dev (ggml 0.25.3)"; may be empty
#   llama::llama llama::ggml llama::ggml-base     imported targets

# One hint folder, or none: the first place that is given at all.
set(_llama_hint "")
if(LLAMA_DIR)
  set(_llama_hint "${LLAMA_DIR}")
elseif(DEFINED ENV{LLAMA_DIR} AND NOT "$ENV{LLAMA_DIR}" STREQUAL "")
  set(_llama_hint "$ENV{LLAMA_DIR}")
else()
  if(DEFINED ENV{LACUNA_CACHE} AND NOT "$ENV{LACUNA_CACHE}" STREQUAL "")
    set(_llama_cache "$ENV{LACUNA_CACHE}")
  elseif(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(_llama_cache "$ENV{XDG_CACHE_HOME}/lacuna")
  else()
    set(_llama_cache "$ENV{HOME}/.cache/lacuna")
  endif()
  file(GLOB _llama_copies "${_llama_cache}/llama-*/STAMP")  # the stamp marks a finished copy
  if(_llama_copies)
    list(SORT _llama_copies COMPARE NATURAL ORDER DESCENDING)
    list(GET _llama_copies 0 _llama_hint)
    cmake_path(GET _llama_hint PARENT_PATH _llama_hint)
  endif()
endif()

# Searched anew on every run (NO_CACHE): a stale path in the build folder helps nobody.
set(Llama_VERSION "")
set(_llama_lib "")
if(_llama_hint)
  set(_llama_where PATHS "${_llama_hint}" NO_DEFAULT_PATH NO_CACHE)
  find_path(_llama_include NAMES llama.h PATH_SUFFIXES include ${_llama_where})
  foreach(_part IN ITEMS llama ggml ggml-base)
    string(MAKE_C_IDENTIFIER "_llama_lib_${_part}" _var)
    find_library(${_var} NAMES ${_part}
                 PATH_SUFFIXES bin lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE} . ${_llama_where})
  endforeach()
  find_path(_llama_bin NAMES llama-bench llama-server PATH_SUFFIXES bin . ${_llama_where})
  set(_llama_lib "${_llama_lib_llama}")
  if(EXISTS "${_llama_hint}/VERSION")
    file(STRINGS "${_llama_hint}/VERSION" Llama_VERSION LIMIT_COUNT 1)
  endif()
  if(_llama_include AND _llama_lib_llama AND _llama_lib_ggml AND _llama_lib_ggml_base)
    foreach(_part IN ITEMS ggml-base ggml llama)
      string(MAKE_C_IDENTIFIER "_llama_lib_${_part}" _var)
      if(NOT TARGET llama::${_part})
        add_library(llama::${_part} SHARED IMPORTED)
        set_target_properties(llama::${_part} PROPERTIES
          IMPORTED_LOCATION "${${_var}}"
          INTERFACE_INCLUDE_DIRECTORIES "${_llama_include}")
      endif()
    endforeach()
    set_property(TARGET llama::ggml PROPERTY INTERFACE_LINK_LIBRARIES llama::ggml-base)
    set_property(TARGET llama::llama PROPERTY INTERFACE_LINK_LIBRARIES llama::ggml)
  endif()
elseif(NOT CMAKE_DISABLE_FIND_PACKAGE_llama)
  find_package(llama CONFIG QUIET)
  if(llama_FOUND)
    set(_llama_lib "${llama_LIBRARY}")
    set(_llama_include "${LLAMA_INCLUDE_DIR}")
    set(Llama_VERSION "${LLAMA_VERSION}")
    find_path(_llama_bin NAMES llama-bench llama-server PATHS "${LLAMA_BIN_DIR}" NO_CACHE)
    foreach(_pair IN ITEMS llama=llama ggml=ggml::ggml ggml-base=ggml::ggml-base)
      string(REPLACE "=" ";" _pair "${_pair}")
      list(GET _pair 0 _part)
      list(GET _pair 1 _theirs)
      if(NOT TARGET llama::${_part})
        add_library(llama::${_part} INTERFACE IMPORTED)
        target_link_libraries(llama::${_part} INTERFACE ${_theirs})
      endif()
    endforeach()
  endif()
endif()

set(Llama_BIN_DIR "")
if(_llama_bin)
  string(REGEX REPLACE "/$" "" Llama_BIN_DIR "${_llama_bin}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Llama
  REQUIRED_VARS _llama_lib _llama_include
  REASON_FAILURE_MESSAGE "run 'make llama', or set LLAMA_DIR")

# The libraries carry ggml's version in their file names; the plug-in refuses any but this line.
if(_llama_lib_ggml_base)
  file(REAL_PATH "${_llama_lib_ggml_base}" _llama_real)
  if(_llama_real MATCHES "\\.so\\.([0-9]+\\.[0-9]+)" AND NOT CMAKE_MATCH_1 STREQUAL "0.25")
    message(WARNING "${_llama_real}: ggml ${CMAKE_MATCH_1}, but the plug-in takes 0.25.x; run 'make llama', or set LLAMA_DIR")
  endif()
endif()

foreach(_var IN ITEMS hint cache copies real lib include lib_llama lib_ggml lib_ggml_base bin where)
  unset(_llama_${_var})
endforeach()
