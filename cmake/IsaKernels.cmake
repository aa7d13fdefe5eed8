# The CPU kernels that are compiled once per instruction set, each object with its own flags; which of them runs is
# chosen at run time.

# Adds the object library ort_roialign_isa_kernels.
function(ort_roialign_add_isa_kernels)
  set(baseline ${PROJECT_SOURCE_DIR}/src/cpu/isa/baseline.cpp)
  set(avx2 ${PROJECT_SOURCE_DIR}/src/cpu/isa/avx2.cpp)
  set(avx512 ${PROJECT_SOURCE_DIR}/src/cpu/isa/avx512.cpp)
  add_library(ort_roialign_isa_kernels OBJECT ${baseline})
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    target_sources(ort_roialign_isa_kernels PRIVATE ${avx2} ${avx512})
    set(flags -mavx2 -mfma -mf16c)
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      # GCC's own headers of both sets set them off (GCC bug 105593); the baseline is checked with both.
      list(APPEND flags -Wno-maybe-uninitialized -Wno-uninitialized)
    endif()
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "${flags}")
    list(APPEND flags -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS "${flags}")
    target_compile_definitions(ort_roialign_isa_kernels INTERFACE ORT_ROIALIGN_X86_KERNELS)
  endif()
  ort_roialign_set_compile_options(ort_roialign_isa_kernels)
endfunction()
