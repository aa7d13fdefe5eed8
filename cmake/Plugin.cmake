# A shared library that ONNX Runtime loads: everything but the kernels, and how to compile and link it.

# How all C++ of the project is compiled.
function(ort_roialign_set_compile_options name)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_features(${name} PRIVATE cxx_std_17)
  set_target_properties(${name} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  # Contraction to fused multiply-add would move samples into other cells.
  set(flags -Wall -Wextra -ffp-contract=off -ffunction-sections -fdata-sections)
  if(ORT_ROIALIGN_WERROR)
    list(APPEND flags -Werror)
  endif()
  if(ORT_ROIALIGN_SANITIZE)
    # More optimisation takes twice the time to compile.
    list(APPEND flags -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1)
  endif()
  target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
endfunction()

function(ort_roialign_add_plugin name)
  add_library(${name} MODULE
    src/capi/build_info.cpp
    src/capi/kernels_api.cpp
    src/cpu/settings.cpp
    src/ops/foreign_operators.cpp
    src/ops/multi_scale.cpp
    src/ops/paste_masks.cpp
    src/ops/registry.cpp
    src/ops/roi_family.cpp
    src/ops/schemas.cpp
    src/ort/custom_op.cpp
    src/ort/register.cpp
    src/ort/shape_inference.cpp)
  ort_roialign_set_compile_options(${name})
  target_include_directories(${name} SYSTEM PRIVATE ${ORT_ROIALIGN_ORT_INCLUDE_DIR})
  target_link_libraries(${name} PRIVATE ort_roialign_isa_kernels)
  if(ORT_ROIALIGN_SANITIZE)
    target_link_options(${name} PRIVATE -fsanitize=address,undefined)
  else()
    target_link_options(${name} PRIVATE -Wl,-z,defs)  # the sanitizers' runtime is found only when it is loaded
  endif()

  # The version script leaves exactly the entry points visible; hidden visibility alone leaks the standard library's
  # weak symbols.
  set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  # Once loaded the library stays: ONNX Runtime unloads it with the last session that used it, but the operators that
  # it handed out live as long as the process.
  target_link_options(${name} PRIVATE -Wl,--gc-sections -Wl,-z,nodelete -Wl,--version-script=${exports})
  set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${exports})

  list(JOIN ORT_ROIALIGN_CUDA_ARCHS_TEXT "," cuda_architectures)
  target_compile_definitions(${name} PRIVATE
    ORT_ROIALIGN_VERSION="${PROJECT_VERSION}"
    ORT_ROIALIGN_CUDA_VERSION="${ORT_ROIALIGN_CUDA_VERSION}"
    ORT_ROIALIGN_CUDA_ARCHITECTURES="${cuda_architectures}")
endfunction()
