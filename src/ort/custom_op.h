// One operator of one provider and one choice of types as ONNX Runtime's OrtCustomOp: types and attributes are checked
// and the kernel is chosen when a session is created, shapes are checked once a call.
#pragma once

#include <memory>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "ort/api.h"

namespace ort_roialign {

// Arrays, not pointers: providers are compared by address, which a string literal has one of in each source file.
inline constexpr char kCpuProvider[] = "CPUExecutionProvider";
inline constexpr char kCudaProvider[] = "CUDAExecutionProvider";

// ONNX Runtime picks the custom operator whose types the node has; those that do not go together have one too, whose
// node fails with an error that says which do.
struct CustomOp : OrtCustomOp {
  CustomOp(const NegotiatedApi& runtime, const OperatorEntry& entry, const char* provider, const KernelTable& kernels,
           TypeChoice types);

  const OrtApi* api;
  const OperatorEntry* entry;
  const char* provider;
  const KernelRow* kernels;
  TypeChoice types;
};

// Called by ONNX Runtime while it resolves a graph; defined in shape_inference.cpp.
OrtStatus* ORT_API_CALL infer_output_shapes(const OrtCustomOp* op, OrtShapeInferContext* context);

}  // namespace ort_roialign
