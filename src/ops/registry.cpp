// Makes the entries of registry.h out of the operators' own declarations.
#include "ops/registry.h"

namespace ort_roialign {
namespace {

template <typename Op>
struct Declaration {
  using Params = typename Op::Params;

  static const Params& params_of(const void* params) { return *static_cast<const Params*>(params); }

  static std::shared_ptr<const void> read_params(const AttributeReader& attributes, const std::string& op) {
    return std::make_shared<const Params>(Op::read_params(attributes, op));
  }

  static ShapeRule output_shape(const void* params) { return Op::output_shape(params_of(params)); }

  static void check_shapes(const std::string& op, const void*, const std::vector<Shape>& inputs) {
    Op::check_shapes(op, inputs);
  }

  static OperatorEntry forward(size_t index) {
    return {Op::kName, index, Direction::kForward, Op::schema(), read_params, output_shape, check_shapes};
  }
};

// A gradient operator has dY before the forward operator's inputs, and gives the gradient of the feature map.
template <typename Op>
struct GradientDeclaration : Declaration<Op> {
  using Base = Declaration<Op>;

  static ShapeRule output_shape(const void*) {
    constexpr int kMapInput = 1 + kMap;
    return {same_as(kMapInput, 0), same_as(kMapInput, 1), same_as(kMapInput, 2), same_as(kMapInput, 3)};
  }

  static void check_shapes(const std::string& op, const void* params, const std::vector<Shape>& inputs) {
    const std::vector<Shape> forward_inputs(inputs.begin() + 1, inputs.end());
    Op::check_shapes(op, forward_inputs);
    const Shape expected = evaluate(Base::output_shape(params), forward_inputs);
    if (inputs[0] != expected) {
      throw InvalidArgument(text(op, ": dY must have shape [num_rois, channels, output_height, output_width] = ",
                                 to_text(expected), "; got ", to_text(inputs[0])));
    }
  }

  static OperatorEntry backward(size_t index) {
    Schema schema = Op::schema();
    schema.inputs.insert(schema.inputs.begin(),
                         {"dY", TypeRule::kMap, "[num_rois, channels, output_height, output_width]"});
    schema.outputs = {{"dX", TypeRule::kMap, false}};
    return {text(Op::kName, "Grad"), index,        Direction::kBackward, schema,
            Base::read_params,       output_shape, check_shapes};
  }
};

template <typename... Ops>
std::vector<OperatorEntry> make_entries(TypeList<Ops...>) {
  std::vector<OperatorEntry> entries;
  size_t index = 0;
  ((entries.push_back(Declaration<Ops>::forward(index)), entries.push_back(GradientDeclaration<Ops>::backward(index)),
    ++index),
   ...);
  return entries;
}

}  // namespace

const std::vector<OperatorEntry>& operator_entries() {
  // Never destroyed: a session that outlives static objects at the process's end still points here.
  static const auto& entries = *new std::vector<OperatorEntry>(make_entries(OperatorList{}));
  return entries;
}

}  // namespace ort_roialign
