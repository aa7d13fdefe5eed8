// Shapes and types of outputs while ONNX Runtime resolves a graph, with the inputs' symbolic dimensions carried over.
#include <atomic>
#include <random>
#include <string>
#include <vector>

#include "ort/attributes.h"
#include "ort/custom_op.h"

namespace ort_roialign {
namespace {

// A tensor's type and shape as far as they are known.
struct PartialShape {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Shape sizes;                     // -1: unknown
  std::vector<std::string> names;  // of the unknown dimensions; may be empty
};

PartialShape input_shape(const OrtApi& api, const OrtShapeInferContext* context, size_t index) {
  OrtTensorTypeAndShapeInfo* info = nullptr;  // belongs to the context
  check(api.ShapeInferContext_GetInputTypeShape(context, index, &info));
  PartialShape shape;
  if (info == nullptr) return shape;  // an optional input that is left out
  check(api.GetTensorElementType(info, &shape.type));
  size_t rank = 0;
  check(api.GetDimensionsCount(info, &rank));
  shape.sizes.resize(rank);
  check(api.GetDimensions(info, shape.sizes.data(), rank));
  std::vector<const char*> names(rank, nullptr);
  check(api.GetSymbolicDimensions(info, names.data(), rank));
  for (const char* name : names) shape.names.emplace_back(name != nullptr ? name : "");
  return shape;
}

// ONNX Runtime takes dimensions of one name for equal, so an unknown dimension without a name gets a name of its own.
// Models saved by several processes may be merged later, so a name says which process gave it.
std::string fresh_name() {
  static const unsigned process = std::random_device{}();
  static std::atomic<uint64_t> count{0};
  return text("ort_roialign_dim_", process, "_", ++count);
}

PartialShape infer(const ShapeRule& rule, const std::vector<PartialShape>& inputs) {
  PartialShape output;
  for (const DimensionRule& dimension : rule) {
    int64_t size = dimension.constant;
    std::string name;
    if (dimension.input >= 0) {
      const PartialShape& from = inputs[dimension.input];
      const bool known_rank = !dimension.is_value && static_cast<size_t>(dimension.axis) < from.sizes.size();
      size = known_rank ? from.sizes[dimension.axis] : -1;
      if (size > 0) size /= dimension.divisor;
      if (size < 0 && known_rank && dimension.divisor == 1) name = from.names[dimension.axis];
    }
    if (size < 0 && name.empty()) name = fresh_name();
    output.sizes.push_back(size < 0 ? -1 : size);
    output.names.push_back(name);
  }
  return output;
}

// Attributes that every operator takes: the shapes' ranks do not depend on their values.
class DefaultAttributes : public AttributeReader {
 public:
  std::optional<int64_t> integer(const char*) const override { return std::nullopt; }
  std::optional<float> real(const char*) const override { return std::nullopt; }
  std::optional<std::string> string(const char*) const override { return std::nullopt; }
  std::optional<std::vector<float>> reals(const char*) const override { return std::vector<float>{1}; }
  std::optional<std::vector<int64_t>> integers(const char*) const override { return std::vector<int64_t>{1, 1}; }
};

std::vector<ShapeRule> shape_rules(const OperatorEntry& entry, const AttributeReader& attributes) {
  return entry.output_shapes(entry.read_params(attributes, entry.name).get());
}

// Bad attributes fail the creation of the node, with a clear error, but only if the outputs' types are inferred before.
std::vector<ShapeRule> shape_rules_or_unknown(const OperatorEntry& entry, const AttributeReader& attributes) {
  try {
    return shape_rules(entry, attributes);
  } catch (const InvalidArgument&) {
    std::vector<ShapeRule> rules = shape_rules(entry, DefaultAttributes());
    for (ShapeRule& rule : rules) {
      for (DimensionRule& dimension : rule) {
        if (dimension.input < 0) dimension.constant = -1;
        if (dimension.divisor != 1) dimension = exactly(-1);
      }
    }
    return rules;
  }
}

void set_output(const OrtApi& api, OrtShapeInferContext* context, size_t index, const PartialShape& shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api.CreateTensorTypeAndShapeInfo(&info));
  const Owned<OrtTensorTypeAndShapeInfo> owner(info, api.ReleaseTensorTypeAndShapeInfo);
  std::vector<const char*> names;
  for (const std::string& name : shape.names) names.push_back(name.c_str());
  check(api.SetTensorElementType(info, shape.type));
  check(api.SetDimensions(info, shape.sizes.data(), shape.sizes.size()));
  check(api.SetSymbolicDimensions(info, names.data(), names.size()));
  check(api.ShapeInferContext_SetOutputTypeShape(context, index, info));
}

}  // namespace

OrtStatus* ORT_API_CALL infer_output_shapes(const OrtCustomOp* op, OrtShapeInferContext* context) {
  const CustomOp& self = *static_cast<const CustomOp*>(op);
  const OrtApi& api = *self.api;
  OrtStatus* status = guarded(api, [&] {
    const Schema& schema = self.entry->schema;
    std::vector<PartialShape> inputs;
    ONNXTensorElementDataType map_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    ONNXTensorElementDataType rois_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t num_inputs = 0;
    check(api.ShapeInferContext_GetInputCount(context, &num_inputs));
    for (size_t index = 0; index < num_inputs; ++index) {
      inputs.push_back(input_shape(api, context, index));
      if (spec_of(schema.inputs, index).type == TypeRule::kMap) map_type = inputs.back().type;
      if (spec_of(schema.inputs, index).type == TypeRule::kMapOrFloat32) rois_type = inputs.back().type;
    }
    const InferenceAttributes attributes(api, context);
    const std::vector<ShapeRule> rules = shape_rules_or_unknown(*self.entry, attributes);
    const TypesByRule<ONNXTensorElementDataType> types{
        map_type, rois_type, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        self.entry->gives_bytes != nullptr && self.entry->gives_bytes(attributes) ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                                                                  : map_type};
    const size_t num_outputs = most_outputs(schema, num_inputs);
    for (size_t index = 0; index < num_outputs; ++index) {
      PartialShape output = infer(rule_of(rules, index), inputs);
      output.type = types.of(spec_of(schema.outputs, index).type);
      set_output(api, context, index, output);
    }
  });
  // ONNX Runtime would neither look at the status nor release it. What cannot be inferred here fails, with a text, when
  // the node is created; an optional output that the node leaves out cannot be set, and need not.
  if (status != nullptr) api.ReleaseStatus(status);
  return nullptr;
}

}  // namespace ort_roialign
