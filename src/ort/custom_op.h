// One operator of one provider as ONNX Runtime's OrtCustomOp: types are checked and kernels chosen when a session is
// created, shapes are checked once a call.
#pragma once

#include <memory>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "ort/api.h"

namespace ort_roialign {

constexpr const char* kCpuProvider = "CPUExecutionProvider";
constexpr const char* kCudaProvider = "CUDAExecutionProvider";

struct CustomOp : OrtCustomOp {
  CustomOp(const NegotiatedApi& runtime, const OperatorEntry& entry, const char* provider, const KernelTable& kernels);

  const OrtApi* api;
  const OperatorEntry* entry;
  const char* provider;
  const KernelRow* kernels;
};

// Called by ONNX Runtime while it resolves a graph; defined in shape_inference.cpp.
OrtStatus* ORT_API_CALL infer_output_shapes(const OrtCustomOp* op, OrtShapeInferContext* context);

ElementType to_element_type(ONNXTensorElementDataType type);

}  // namespace ort_roialign
