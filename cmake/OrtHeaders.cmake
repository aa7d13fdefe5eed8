# Finds the header of ONNX Runtime's C API, which no Python package carries. In this order:
#   1. ORT_ROIALIGN_ORT_INCLUDE_DIR, as a CMake variable or in the environment;
#   2. the compiler's and CMake's search paths;
#   3. Debian's package libonnxruntime-dev, from the machine's own Debian mirror, into the build directory;
#   4. the header of an official release, by download.
# Sets ORT_ROIALIGN_ORT_INCLUDE_DIR.

set(ORT_ROIALIGN_ORT_INCLUDE_DIR "$ENV{ORT_ROIALIGN_ORT_INCLUDE_DIR}" CACHE PATH
    "Directory of onnxruntime_c_api.h, of ONNX Runtime 1.18 or newer")

set(ort_roialign_release 1.21.0)
set(ort_roialign_header_url
    "https://raw.githubusercontent.com/microsoft/onnxruntime/v${ort_roialign_release}/include/onnxruntime/core/session/onnxruntime_c_api.h")
set(ort_roialign_header_sha256 7783e9664bdb0b1b36145b5c8587dd1bc9a399aa000edf2e3dd03003cafc6882)

function(ort_roialign_find_ort_headers)
  if(ORT_ROIALIGN_ORT_INCLUDE_DIR)
    if(NOT EXISTS "${ORT_ROIALIGN_ORT_INCLUDE_DIR}/onnxruntime_c_api.h")
      message(FATAL_ERROR "ort_roialign: ORT_ROIALIGN_ORT_INCLUDE_DIR must be a directory that holds "
                          "onnxruntime_c_api.h; got ${ORT_ROIALIGN_ORT_INCLUDE_DIR}")
    endif()
    set(found "${ORT_ROIALIGN_ORT_INCLUDE_DIR}")
  endif()
  if(NOT found)
    ort_roialign_find_installed_headers(found)
  endif()
  if(NOT found)
    ort_roialign_unpack_debian_headers(found)
  endif()
  if(NOT found)
    ort_roialign_download_header(found)
  endif()
  if(NOT found)
    message(FATAL_ERROR
      "ort_roialign: onnxruntime_c_api.h (ONNX Runtime 1.18 or newer) was not found. Ways out, any one will do:\n"
      "  1. unpack a release archive of ONNX Runtime and set the environment variable ORT_ROIALIGN_ORT_INCLUDE_DIR to "
      "its include directory;\n"
      "  2. install the header where the compiler finds it (Debian trixie and newer: apt-get install libonnxruntime-dev);\n"
      "  3. on another Debian release, let apt-get reach a Debian mirror: the build then fetches that package itself.")
  endif()
  ort_roialign_check_api_version("${found}")
  message(STATUS "ort_roialign: ONNX Runtime's header in ${found}")
  set(ORT_ROIALIGN_ORT_INCLUDE_DIR "${found}" CACHE PATH
      "Directory of onnxruntime_c_api.h, of ONNX Runtime 1.18 or newer" FORCE)
endfunction()

function(ort_roialign_read_api_version directory result)
  file(STRINGS "${directory}/onnxruntime_c_api.h" line REGEX "^#define ORT_API_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+$" version "${line}")
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

function(ort_roialign_check_api_version directory)
  ort_roialign_read_api_version("${directory}" version)
  if(NOT version OR version LESS 18)
    message(FATAL_ERROR
      "ort_roialign: the header of ONNX Runtime 1.18 or newer is required; ${directory} holds that of 1.${version}. "
      "Set ORT_ROIALIGN_ORT_INCLUDE_DIR to a newer one.")
  endif()
endfunction()

# A header that is too old is passed over, so that the next way is tried.
function(ort_roialign_find_installed_headers result)
  find_path(ort_roialign_installed_headers onnxruntime_c_api.h
            PATH_SUFFIXES onnxruntime onnxruntime/core/session NO_CACHE)
  if(ort_roialign_installed_headers)
    ort_roialign_read_api_version("${ort_roialign_installed_headers}" version)
    if(version GREATER_EQUAL 18)
      set(${result} "${ort_roialign_installed_headers}" PARENT_SCOPE)
    endif()
  endif()
endfunction()

# The package is in Debian trixie and sid, not in bookworm. It is downloaded with a private apt state and unpacked into
# the build directory: the machine's own apt, its lists and its packages stay as they are.
function(ort_roialign_unpack_debian_headers result)
  find_program(apt_get apt-get NO_CACHE)
  find_program(dpkg_deb dpkg-deb NO_CACHE)
  if(NOT apt_get OR NOT dpkg_deb)
    return()
  endif()
  execute_process(
    COMMAND ${apt_get} indextargets --format "$(REPO_URI) $(COMPONENT)" "Created-By: Packages"
    OUTPUT_VARIABLE targets ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX MATCHALL "[^\n ]+/debian/? main" mirrors "${targets}")
  list(TRANSFORM mirrors REPLACE " main$" "")
  list(REMOVE_DUPLICATES mirrors)

  set(root "${PROJECT_BINARY_DIR}/debian")
  set(keyring /usr/share/keyrings/debian-archive-keyring.gpg)
  set(signed "")
  if(EXISTS ${keyring})
    set(signed "[signed-by=${keyring}]")
  endif()
  foreach(mirror IN LISTS mirrors)
    foreach(suite trixie sid)
      file(REMOVE_RECURSE "${root}")
      file(MAKE_DIRECTORY "${root}/state/lists/partial" "${root}/cache/archives/partial")
      file(WRITE "${root}/sources.list" "deb ${signed} ${mirror} ${suite} main\n")
      set(private_apt ${apt_get} -qq
        -o "Dir::State=${root}/state" -o "Dir::Cache=${root}/cache" -o "Dir::Etc::SourceList=${root}/sources.list"
        -o Dir::Etc::SourceParts=- -o APT::Sandbox::User= -o Acquire::Languages=none
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
      execute_process(COMMAND ${private_apt} update
                      WORKING_DIRECTORY "${root}" RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET TIMEOUT 120)
      if(NOT failed)
        execute_process(COMMAND ${private_apt} download libonnxruntime-dev
                        WORKING_DIRECTORY "${root}" RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET TIMEOUT 120)
      endif()
      file(GLOB package "${root}/libonnxruntime-dev_*.deb")
      if(NOT failed AND package)
        execute_process(COMMAND ${dpkg_deb} -x ${package} "${root}/package" RESULT_VARIABLE failed)
        file(REMOVE_RECURSE "${root}/state" "${root}/cache")
        set(directory "${root}/package/usr/include/onnxruntime")
        if(NOT failed AND EXISTS "${directory}/onnxruntime_c_api.h")
          message(STATUS "ort_roialign: unpacked Debian ${suite}'s libonnxruntime-dev into the build directory")
          set(${result} "${directory}" PARENT_SCOPE)
          return()
        endif()
      endif()
    endforeach()
  endforeach()
endfunction()

# The header of that release includes nothing of ONNX Runtime's but itself.
function(ort_roialign_download_header result)
  set(directory "${PROJECT_BINARY_DIR}/onnxruntime-${ort_roialign_release}")
  set(header "${directory}/onnxruntime_c_api.h")
  file(DOWNLOAD "${ort_roialign_header_url}" "${header}" STATUS status TIMEOUT 30)
  list(GET status 0 failed)
  if(NOT failed)
    file(SHA256 "${header}" sha256)
    if(sha256 STREQUAL ort_roialign_header_sha256)
      set(${result} "${directory}" PARENT_SCOPE)
      return()
    endif()
    message(STATUS "ort_roialign: ${ort_roialign_header_url} has SHA-256 ${sha256}, not the expected one; not used")
  endif()
  file(REMOVE "${header}")
endfunction()
