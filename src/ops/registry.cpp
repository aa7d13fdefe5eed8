// Makes the entries of registry.h out of the operators' own declarations.
#include "ops/registry.h"

#include "ops/paste_masks.h"

namespace ort_roialign {
namespace {

template <typename Op>
struct Declaration {
  using Params = typename Op::Params;
  static constexpr InputPlaces kInputs = Op::kInputs;

  static const Params& params_of(const void* params) { return *static_cast<const Params*>(params); }

  static std::shared_ptr<const void> read_params(const AttributeReader& attributes, const std::string& op) {
    return std::make_shared<const Params>(Op::read_params(attributes, op));
  }

  static int64_t channel_divisor(const Params& params) {
    return Op::kChannelPerBin ? static_cast<int64_t>(params.output_height) * params.output_width : 1;
  }

  // [num_rois, channels, output_height, output_width], for every output.
  static std::vector<ShapeRule> output_shapes(const void* opaque) {
    const Params& params = params_of(opaque);
    const ShapeRule rule{same_as(kInputs.rois, 0), part_of(kInputs.map, 1, channel_divisor(params)),
                         exactly(params.output_height), exactly(params.output_width)};
    return std::vector<ShapeRule>(Op::schema().outputs.size(), rule);
  }

  static void check_shapes(const std::string& op, const void* opaque, const std::vector<Shape>& inputs) {
    const Params& params = params_of(opaque);
    const Shape& rois = inputs[kInputs.rois];
    check_rois(op, rois, Op::template RoiBox<float>::kColumns, inputs[kInputs.batch_indices]);
    const size_t num_maps = Op::kMostMaps == 1 ? 1 : inputs.size() - kInputs.map;
    Op::check_attributes(op, params, static_cast<int64_t>(num_maps));
    const Shape& first = inputs[kInputs.map];
    for (size_t number = 0; number < num_maps; ++number) {
      const Shape& map = inputs[kInputs.map + number];
      const std::string name = Op::kMostMaps == 1 ? "X" : text("X[", number, "]");
      check_map(op, name, map, rois[0], channel_divisor(params));
      if (map[0] != first[0] || map[1] != first[1]) {
        throw InvalidArgument(text(op, ": ", name, " must have as many images and channels as X[0], which has shape ",
                                   to_text(first), "; got ", to_text(map)));
      }
    }
    if constexpr (kInputs.offset >= 0) {
      const Shape expected{rois[0], 2, params.output_height, params.output_width};
      const Shape& offset = inputs[kInputs.offset];
      if (!is_absent(offset) && offset != expected) {
        throw InvalidArgument(text(op, ": offset must have shape [num_rois, 2, output_height, output_width] = ",
                                   to_text(expected), "; got ", to_text(offset)));
      }
    }
  }

  static OperatorEntry forward(size_t index) {
    return entry(Op::kName, index, Direction::kForward, Op::schema(), output_shapes, check_shapes);
  }

 protected:
  using OutputShapes = std::vector<ShapeRule> (*)(const void*);
  using CheckShapes = void (*)(const std::string&, const void*, const std::vector<Shape>&);

  static OperatorEntry entry(const std::string& name, size_t index, Direction direction, const Schema& schema,
                             OutputShapes shapes, CheckShapes check) {
    OperatorEntry made;
    made.name = name;
    made.index = index;
    made.direction = direction;
    made.schema = schema;
    made.read_params = read_params;
    made.output_shapes = shapes;
    made.check_shapes = check;
    return made;
  }
};

// A gradient operator has dY before the forward operator's inputs. It gives the gradient of what the output depends on
// smoothly: of the feature maps, and of the RoIs or the offset.
template <typename Op>
struct GradientDeclaration : Declaration<Op> {
  using Base = Declaration<Op>;
  static constexpr InputPlaces kInputs = Op::kInputs;
  static_assert(Op::kRoiSlopes == 0 || Op::kOffsetSlopes == 0, "engines write one gradient beside those of the maps");

  static std::vector<ShapeRule> output_shapes(const void* params) {
    std::vector<ShapeRule> rules{all_of(1 + kInputs.map, 4)};
    if constexpr (Op::kRoiSlopes > 0) rules.push_back(all_of(1 + kInputs.rois, 2));
    if constexpr (Op::kOffsetSlopes > 0) {
      const auto& sizes = Base::params_of(params);
      rules.push_back(
          {same_as(1 + kInputs.rois, 0), exactly(2), exactly(sizes.output_height), exactly(sizes.output_width)});
    }
    return rules;
  }

  static void check_shapes(const std::string& op, const void* params, const std::vector<Shape>& inputs) {
    const std::vector<Shape> forward_inputs(inputs.begin() + 1, inputs.end());
    Base::check_shapes(op, params, forward_inputs);
    const Shape expected = evaluate(Base::output_shapes(params)[0], forward_inputs, [](int, int) { return 0; });
    if (inputs[0] != expected) {
      throw InvalidArgument(text(op, ": dY must have shape [num_rois, channels, output_height, output_width] = ",
                                 to_text(expected), "; got ", to_text(inputs[0])));
    }
  }

  static OperatorEntry backward(size_t index) {
    Schema schema = Op::schema();
    schema.inputs.insert(schema.inputs.begin(),
                         {"dY", TypeRule::kMap, "[num_rois, channels, output_height, output_width]"});
    constexpr bool kOthers = Op::kRoiSlopes + Op::kOffsetSlopes > 0;  // which may be all that is wanted
    constexpr Presence kOfMap = kOthers ? Presence::kOptional : Presence::kRequired;
    schema.outputs = {{"dX", TypeRule::kMap, Op::kMostMaps > 1 ? Presence::kVariadic : kOfMap}};
    if constexpr (Op::kRoiSlopes > 0) schema.outputs.push_back({"drois", TypeRule::kMapOrFloat32, Presence::kOptional});
    if constexpr (Op::kOffsetSlopes > 0) schema.outputs.push_back({"doffset", TypeRule::kMap, Presence::kOptional});
    return Base::entry(text(Op::kName, "Grad"), index, Direction::kBackward, schema, output_shapes, check_shapes);
  }

 private:
  static ShapeRule all_of(int input, int rank) {
    ShapeRule rule;
    for (int axis = 0; axis < rank; ++axis) rule.push_back(same_as(input, axis));
    return rule;
  }
};

template <typename... Ops>
std::vector<OperatorEntry> make_entries(TypeList<Ops...>) {
  std::vector<OperatorEntry> entries;
  size_t index = 0;
  ((entries.push_back(Declaration<Ops>::forward(index)), entries.push_back(GradientDeclaration<Ops>::backward(index)),
    ++index),
   ...);
  entries.push_back(paste_masks_entry(kPasteMasks));
  return entries;
}

}  // namespace

void check_types(const OperatorEntry& entry, TypeChoice types) {
  const bool half = types.map == ElementType::kFloat16 || types.map == ElementType::kBFloat16;
  if (types.rois == types.map || (half && types.rois == ElementType::kFloat32)) return;
  const auto first_name = [&](size_t begin, TypeRule rule) {
    for (size_t index = begin; index < entry.schema.inputs.size(); ++index) {
      if (entry.schema.inputs[index].type == rule) return entry.schema.inputs[index].name;
    }
    return "";
  };
  const char* const map = first_name(entry.direction == Direction::kBackward ? 1 : 0, TypeRule::kMap);  // not dY
  throw InvalidArgument(text(entry.name, ": ", first_name(0, TypeRule::kMapOrFloat32), " must be of type ",
                             type_name(types.map), ", as ", map, half ? ", or float32" : "", "; got ",
                             type_name(types.rois)));
}

Shape output_shape(const ShapeRule& rule, const std::vector<InputTensor>& inputs) {
  std::vector<Shape> shapes;
  for (const InputTensor& input : inputs) shapes.push_back(input.shape);
  return evaluate(rule, shapes,
                  [&](int input, int place) { return static_cast<const int64_t*>(inputs[input].data)[place]; });
}

const std::vector<OperatorEntry>& operator_entries() {
  // Never destroyed: a session that outlives static objects at the process's end still points here.
  static const auto& entries = *new std::vector<OperatorEntry>(make_entries(OperatorList{}));
  return entries;
}

}  // namespace ort_roialign
