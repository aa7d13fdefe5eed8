// The callbacks behind CustomOp, and the node that one operator of a session is.
#include "ort/custom_op.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <limits>
#include <mutex>

#include "cpu/settings.h"
#include "ort/attributes.h"

namespace ort_roialign {
namespace {

const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

ONNXTensorElementDataType onnx_type(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case ElementType::kFloat64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
    case ElementType::kFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case ElementType::kBFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case ElementType::kUint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case ElementType::kInt64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

// Scratch memory from the allocator of the session's CPU provider; the first few kilobytes of a call are the call's
// own, because a call on a single RoI takes less time than a handful of allocations.
class SessionScratch : public ScratchMemory {
 public:
  SessionScratch(const OrtApi& api, const OrtKernelContext* context) : api_(api), context_(context) {}

  void* allocate(size_t bytes) override {
    const size_t taken =
        (bytes + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) * alignof(std::max_align_t);
    if (taken <= sizeof(own_) - used_) {
      void* memory = own_ + used_;
      used_ += taken;
      return memory;
    }
    if (allocator_ == nullptr) allocator_ = session_allocator();
    void* memory = nullptr;
    check(api_.AllocatorAlloc(allocator_.get(), bytes, &memory));
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }

  void release(void* memory) override {
    if (memory >= own_ && memory < own_ + sizeof(own_)) return;  // goes with the call
    if (OrtStatus* status = api_.AllocatorFree(allocator_.get(), memory)) api_.ReleaseStatus(status);
  }

 private:
  Owned<OrtAllocator> session_allocator() const {
    OrtMemoryInfo* info = nullptr;
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info));
    const Owned<OrtMemoryInfo> owner(info, api_.ReleaseMemoryInfo);
    OrtAllocator* allocator = nullptr;
    check(api_.KernelContext_GetAllocator(context_, info, &allocator));
    return Owned<OrtAllocator>(allocator, api_.ReleaseAllocator);
  }

  const OrtApi& api_;
  const OrtKernelContext* context_;
  Owned<OrtAllocator> allocator_{nullptr, nullptr};
  size_t used_ = 0;
  alignas(std::max_align_t) char own_[16384];
};

// A node of a session: what is known before the first call.
class Node {
 public:
  Node(const CustomOp& op, const OrtKernelInfo* info)
      : op_(op), params_(op.entry->read_params(NodeAttributes(*op.api, info, op.entry->name), op.entry->name)) {
    check_types(*op.entry, op.types);
    if (op.entry->gives_bytes != nullptr &&
        op.entry->gives_bytes(NodeAttributes(*op.api, info, op.entry->name)) != op.types.bytes) {
      throw InvalidArgument(text(op.entry->name, ": ", op.entry->schema.outputs[0].name,
                                 " must be of type uint8 with attribute threshold, else of the type of ",
                                 op.entry->schema.inputs[0].name, "; got the other one"));
    }
    output_shapes_ = op.entry->output_shapes(params_.get());
    const size_t type = std::find(kMapTypes.begin(), kMapTypes.end(), op.types.map) - kMapTypes.begin();
    if (op.provider == kCpuProvider) cpu_settings_ = cpu::read_settings();
    kernel_ = (*op.kernels)[static_cast<size_t>(op.entry->direction)][type];
  }

  const OrtApi& api() const { return *op_.api; }

  void compute(OrtKernelContext* context) const {
    KernelCall call;
    call.operator_name = op_.entry->name;
    call.params = params_.get();
    size_t num_inputs = 0;
    check(op_.api->KernelContext_GetInputCount(context, &num_inputs));
    num_inputs = std::max(num_inputs, op_.entry->schema.inputs.size());  // optional ones may be left out
    call.inputs.reserve(num_inputs);
    std::vector<Shape> shapes;
    shapes.reserve(num_inputs);
    for (size_t index = 0; index < num_inputs; ++index) {
      call.inputs.push_back(input(context, index));
      shapes.push_back(call.inputs.back().shape);
    }
    op_.entry->check_shapes(op_.entry->name, params_.get(), shapes);
    if (op_.entry->check_values != nullptr) op_.entry->check_values(op_.entry->name, call.inputs);
    size_t num_outputs = 0;
    check(op_.api->KernelContext_GetOutputCount(context, &num_outputs));
    check_number_of_outputs(op_.entry->name, op_.entry->schema, num_inputs, num_outputs);
    call.outputs.resize(most_outputs(op_.entry->schema, num_inputs));
    for (size_t index = 0; index < num_outputs; ++index) {
      call.outputs[index] = output(context, index, output_shape(rule_of(output_shapes_, index), call.inputs));
    }
    if (op_.entry->left_out_input >= 0) {
      call.inputs.insert(call.inputs.begin() + op_.entry->left_out_input,
                         {nullptr, ElementType::kInt64, absent_shape()});
    }
    if (op_.provider == kCudaProvider) {
      check(op_.api->KernelContext_GetGPUComputeStream(context, &call.cuda_stream));
      kernel_(call);
    } else {
      SessionScratch scratch(*op_.api, context);
      call.parallel_for = session_threads(context);
      call.scratch = &scratch;
      call.cpu_settings = &cpu_settings_;
      kernel_(call);
    }
  }

 private:
  InputTensor input(const OrtKernelContext* context, size_t index) const {
    const OrtApi& api = *op_.api;
    size_t count = 0;
    check(api.KernelContext_GetInputCount(context, &count));
    const OrtValue* value = nullptr;
    if (index < count) check(api.KernelContext_GetInput(context, index, &value));
    if (value == nullptr) return {nullptr, op_.types.map, absent_shape()};
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api.GetTensorTypeAndShape(value, &info));
    const Owned<OrtTensorTypeAndShapeInfo> owner(info, api.ReleaseTensorTypeAndShapeInfo);
    size_t rank = 0;
    check(api.GetDimensionsCount(info, &rank));
    const InputSpec& spec = spec_of(op_.entry->schema.inputs, index);
    InputTensor tensor;
    tensor.type = type_by_rule(spec.type, op_.types);
    tensor.shape.resize(rank);
    check(api.GetDimensions(info, tensor.shape.data(), rank));
    const bool is_empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
    if (is_empty && spec.presence == Presence::kOptional && op_.entry->empty_is_absent) {
      return {nullptr, tensor.type, absent_shape()};
    }
    void* data = nullptr;
    check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));  // the call that every version has
    tensor.data = data;
    return tensor;
  }

  OutputTensor output(OrtKernelContext* context, size_t index, const Shape& shape) const {
    OrtValue* value = nullptr;
    check(op_.api->KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
    OutputTensor tensor;
    tensor.shape = shape;
    if (value != nullptr) check(op_.api->GetTensorMutableData(value, &tensor.data));
    return tensor;
  }

  // One parallel loop on the session's own threads. A task's exception must not pass through ONNX Runtime.
  ParallelFor session_threads(OrtKernelContext* context) const {
    return [api = op_.api, context](int64_t count, const std::function<void(int64_t)>& task) {
      if (count == 1) return task(0);
      struct Loop {
        const std::function<void(int64_t)>& task;
        std::mutex mutex;
        std::exception_ptr error;
        std::atomic<bool> failed{false};
      } loop{task, {}, {}};
      const auto run = [](void* data, size_t index) {
        Loop& shared = *static_cast<Loop*>(data);
        if (shared.failed) return;
        try {
          shared.task(static_cast<int64_t>(index));
        } catch (...) {
          const std::lock_guard<std::mutex> lock(shared.mutex);
          shared.error = std::current_exception();
          shared.failed = true;
        }
      };
      // More batches than threads even out tasks of different cost.
      constexpr size_t kMostBatches = 1024;
      const size_t total = static_cast<size_t>(count);
      if (total > 0) check(api->KernelContext_ParallelFor(context, run, total, std::min(total, kMostBatches), &loop));
      if (loop.error) std::rethrow_exception(loop.error);
    };
  }

  const CustomOp& op_;
  std::shared_ptr<const void> params_;
  std::vector<ShapeRule> output_shapes_;
  Kernel kernel_ = nullptr;
  cpu::Settings cpu_settings_{};
};

OrtStatus* ORT_API_CALL create_node(const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** node) {
  return guarded(*self(op).api, [&] { *node = new Node(self(op), info); });
}

OrtStatus* ORT_API_CALL compute_node(void* node, OrtKernelContext* context) {
  const Node& computed = *static_cast<const Node*>(node);
  return guarded(computed.api(), [&] { computed.compute(context); });
}

void ORT_API_CALL destroy_node(void* node) { delete static_cast<Node*>(node); }

const char* ORT_API_CALL get_name(const OrtCustomOp* op) { return self(op).entry->name.c_str(); }

const char* ORT_API_CALL get_provider(const OrtCustomOp* op) { return self(op).provider; }

size_t ORT_API_CALL count_inputs(const OrtCustomOp* op) { return self(op).entry->schema.inputs.size(); }

size_t ORT_API_CALL count_outputs(const OrtCustomOp* op) { return self(op).entry->schema.outputs.size(); }

ONNXTensorElementDataType ORT_API_CALL input_type(const OrtCustomOp* op, size_t index) {
  return onnx_type(type_by_rule(self(op).entry->schema.inputs[index].type, self(op).types));
}

ONNXTensorElementDataType ORT_API_CALL output_type(const OrtCustomOp* op, size_t index) {
  return onnx_type(type_by_rule(self(op).entry->schema.outputs[index].type, self(op).types));
}

OrtCustomOpInputOutputCharacteristic characteristic(Presence presence) {
  switch (presence) {
    case Presence::kRequired:
      break;
    case Presence::kOptional:
      return INPUT_OUTPUT_OPTIONAL;
    case Presence::kVariadic:
      return INPUT_OUTPUT_VARIADIC;
  }
  return INPUT_OUTPUT_REQUIRED;
}

OrtCustomOpInputOutputCharacteristic ORT_API_CALL input_characteristic(const OrtCustomOp* op, size_t index) {
  return characteristic(self(op).entry->schema.inputs[index].presence);
}

OrtCustomOpInputOutputCharacteristic ORT_API_CALL output_characteristic(const OrtCustomOp* op, size_t index) {
  return characteristic(self(op).entry->schema.outputs[index].presence);
}

OrtMemType ORT_API_CALL input_memory(const OrtCustomOp* op, size_t index) {
  const InputSpec& spec = spec_of(self(op).entry->schema.inputs, index);
  return spec.type == TypeRule::kHostInt64 ? OrtMemTypeCPUInput : OrtMemTypeDefault;
}

// Of a variadic input or output: at least one, all of one type.
int ORT_API_CALL least_variadic(const OrtCustomOp*) { return 1; }
int ORT_API_CALL variadic_is_homogeneous(const OrtCustomOp*) { return 1; }

int ORT_API_CALL first_version(const OrtCustomOp* op) { return self(op).entry->first_version; }

}  // namespace

CustomOp::CustomOp(const NegotiatedApi& runtime, const OperatorEntry& entry_, const char* provider_,
                   const KernelTable& table, TypeChoice types_)
    : OrtCustomOp{},
      api(runtime.api),
      entry(&entry_),
      provider(provider_),
      kernels(&table[entry_.index]),
      types(types_) {
  version = runtime.version;
  CreateKernelV2 = create_node;
  KernelComputeV2 = compute_node;
  KernelDestroy = destroy_node;
  GetName = get_name;
  GetExecutionProviderType = get_provider;
  GetInputTypeCount = count_inputs;
  GetInputType = input_type;
  GetInputCharacteristic = input_characteristic;
  GetInputMemoryType = input_memory;
  GetOutputTypeCount = count_outputs;
  GetOutputType = output_type;
  GetOutputCharacteristic = output_characteristic;
  GetVariadicInputMinArity = least_variadic;
  GetVariadicInputHomogeneity = variadic_is_homogeneous;
  GetVariadicOutputMinArity = least_variadic;
  GetVariadicOutputHomogeneity = variadic_is_homogeneous;
  GetStartVersion = first_version;
  // An earlier end would not keep models of later opsets away: ONNX Runtime gives every opset from the start version on
  // the schema of that version, and compares the end with that version only.
  GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  InferOutputShapeFn = infer_output_shapes;
}

}  // namespace ort_roialign
