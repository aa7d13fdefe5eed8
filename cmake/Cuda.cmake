# Whether and how the CUDA kernels are built.

set(ORT_ROIALIGN_CUDA_ARCHS "" CACHE STRING
    "CUDA architectures as CMake writes them, such as 80-real;90; empty: every one that nvcc supports of Turing to Blackwell")

# Sets ORT_ROIALIGN_HAS_CUDA, ORT_ROIALIGN_CUDA_VERSION and ORT_ROIALIGN_CUDA_ARCHS_TEXT (separated by ';').
macro(ort_roialign_enable_cuda)
  set(ORT_ROIALIGN_HAS_CUDA OFF)
  set(ORT_ROIALIGN_CUDA_VERSION "")
  set(ORT_ROIALIGN_CUDA_ARCHS_TEXT "")
  # Set before the language is enabled, or CMake asks a GPU that may be absent; ORT_ROIALIGN_CUDA_ARCHS takes its place.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)

  string(TOUPPER "${ORT_ROIALIGN_CUDA}" wanted)
  if(NOT wanted MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "ort_roialign: ORT_ROIALIGN_CUDA must be AUTO, ON or OFF; got ${ORT_ROIALIGN_CUDA}")
  endif()
  if(NOT wanted STREQUAL "OFF")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      enable_language(CUDA)
      set(ORT_ROIALIGN_HAS_CUDA ON)
      set(ORT_ROIALIGN_CUDA_VERSION ${CMAKE_CUDA_COMPILER_VERSION})
      ort_roialign_choose_cuda_archs()
      message(STATUS "ort_roialign: CPU and CUDA kernels; nvcc ${CMAKE_CUDA_COMPILER_VERSION}, "
                     "architectures ${ORT_ROIALIGN_CUDA_ARCHS_TEXT}")
    elseif(wanted STREQUAL "ON")
      message(FATAL_ERROR
        "ort_roialign: ORT_ROIALIGN_CUDA=ON, but no nvcc works here. Put nvcc on PATH, or set CUDACXX to it, "
        "or build for the CPU alone with -DORT_ROIALIGN_CUDA=OFF.")
    endif()
  endif()
  if(NOT ORT_ROIALIGN_HAS_CUDA)
    message(STATUS "ort_roialign: CPU kernels only; for CUDA kernels put nvcc on PATH, or set CUDACXX to it")
  endif()
endmacro()

# Turing to Blackwell, as far as nvcc knows them, with the newest also as PTX for GPUs to come.
macro(ort_roialign_choose_cuda_archs)
  if(ORT_ROIALIGN_CUDA_ARCHS)
    set(ORT_ROIALIGN_CUDA_ARCHS_TEXT "${ORT_ROIALIGN_CUDA_ARCHS}")
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(ORT_ROIALIGN_CUDA_ARCHS_TEXT "75-real;80-real;86-real;89-real;90-real;100-real;120")
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)
    set(ORT_ROIALIGN_CUDA_ARCHS_TEXT "75-real;80-real;86-real;89-real;90")
  else()
    set(ORT_ROIALIGN_CUDA_ARCHS_TEXT "75-real;80")
  endif()
endmacro()

# Adds the CUDA kernels to a plugin, or what stands for their absence.
function(ort_roialign_add_cuda_kernels name)
  if(NOT ORT_ROIALIGN_HAS_CUDA)
    target_sources(${name} PRIVATE src/cuda/no_kernels.cpp)
    return()
  endif()
  target_sources(${name} PRIVATE src/cuda/kernels.cu)
  target_compile_features(${name} PRIVATE cuda_std_17)
  set_target_properties(${name} PROPERTIES
    CUDA_ARCHITECTURES "${ORT_ROIALIGN_CUDA_ARCHS_TEXT}"
    CUDA_VISIBILITY_PRESET hidden)
  # No contraction to fused multiply-add, as on the CPU; the architectures are compiled side by side.
  set(flags --threads=0 --fmad=false -Xcompiler=-ffp-contract=off,-Wall,-Wextra)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
    list(APPEND flags --compress-mode=size)
  endif()
  if(ORT_ROIALIGN_WERROR)
    list(APPEND flags -Werror=all-warnings)
  endif()
  target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${flags}>")
endfunction()
