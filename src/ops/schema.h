// What an operator declares to the outside: its inputs, outputs and attributes, and the shapes of its outputs.
// Everything here runs on the host, once a session or once a call.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ops/error.h"

namespace ort_roialign {

enum class ElementType { kFloat32, kFloat64, kFloat16, kBFloat16, kInt64, kUint8 };

// The element types that feature maps may have, in the order of every kernel table.
constexpr std::array<ElementType, 4> kMapTypes = {ElementType::kFloat32, ElementType::kFloat64, ElementType::kFloat16,
                                                  ElementType::kBFloat16};

inline const char* type_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kFloat64:
      return "float64";
    case ElementType::kFloat16:
      return "float16";
    case ElementType::kBFloat16:
      return "bfloat16";
    case ElementType::kInt64:
      return "int64";
    case ElementType::kUint8:
      return "uint8";
  }
  return "";
}

// How an input's or output's element type is bound.
enum class TypeRule {
  kMap,           // one of kMapTypes, the same for all of an operator's kMap inputs and outputs
  kMapOrFloat32,  // that type; also float32 beside float16 and bfloat16
  kInt64,
  kHostInt64,   // in the host's memory on every device: a shape depends on it
  kMapOrBytes,  // the map's type, or uint8 where an attribute asks for that
};

// The types of a call's feature maps and RoIs, and of what may be bytes.
struct TypeChoice {
  ElementType map;
  ElementType rois;
  bool bytes = false;
};

// The types that rules choose from, in whatever way types are named.
template <typename Type>
struct TypesByRule {
  Type map;
  Type rois;
  Type int64;
  Type map_or_bytes;

  Type of(TypeRule rule) const {
    switch (rule) {
      case TypeRule::kMap:
        return map;
      case TypeRule::kMapOrFloat32:
        return rois;
      case TypeRule::kMapOrBytes:
        return map_or_bytes;
      case TypeRule::kInt64:
      case TypeRule::kHostInt64:
        break;
    }
    return int64;
  }
};

inline ElementType type_by_rule(TypeRule rule, TypeChoice types) {
  const ElementType map_or_bytes = types.bytes ? ElementType::kUint8 : types.map;
  return TypesByRule<ElementType>{types.map, types.rois, ElementType::kInt64, map_or_bytes}.of(rule);
}

enum class Presence { kRequired, kOptional, kVariadic };  // variadic: one or more; only the last one of a list

struct InputSpec {
  const char* name;
  TypeRule type;
  const char* shape;  // as error texts and documentation print it
  Presence presence = Presence::kRequired;
};

// One dimension of an output: a constant, a dimension of an input, or one of an input's numbers.
struct DimensionRule {
  int input = -1;  // the input's number, or -1 for a constant
  int axis = 0;    // or the place of the number
  int64_t constant = 0;
  int64_t divisor = 1;  // of the input's dimension
  bool is_value = false;
};

inline DimensionRule same_as(int input, int axis) { return {input, axis, 0, 1}; }
inline DimensionRule part_of(int input, int axis, int64_t divisor) { return {input, axis, 0, divisor}; }
inline DimensionRule exactly(int64_t size) { return {-1, 0, size, 1}; }
inline DimensionRule value_of(int input, int place) { return {input, place, 0, 1, true}; }

using ShapeRule = std::vector<DimensionRule>;
using Shape = std::vector<int64_t>;

struct OutputSpec {
  const char* name;
  TypeRule type;
  Presence presence = Presence::kRequired;
};

// The shape of an optional input that is left out.
inline Shape absent_shape() { return {-1}; }
inline bool is_absent(const Shape& shape) { return shape.size() == 1 && shape[0] == -1; }

// Evaluates a rule on the inputs' shapes, none of which is absent. `value(input, place)` gives a number of an input.
template <typename Value>
Shape evaluate(const ShapeRule& rule, const std::vector<Shape>& inputs, Value value) {
  Shape shape;
  shape.reserve(rule.size());
  for (const DimensionRule& dimension : rule) {
    if (dimension.input < 0) {
      shape.push_back(dimension.constant);
    } else if (dimension.is_value) {
      shape.push_back(value(dimension.input, dimension.axis));
    } else {
      shape.push_back(inputs[dimension.input][dimension.axis] / dimension.divisor);
    }
  }
  return shape;
}

// The specification of the input or output with some number: the last one's, where that is variadic.
template <typename Spec>
const Spec& spec_of(const std::vector<Spec>& specs, size_t index) {
  return specs[index < specs.size() ? index : specs.size() - 1];
}

// The rule of one of several outputs: a variadic output follows the input of its own number.
inline ShapeRule rule_of(const std::vector<ShapeRule>& rules, size_t index) {
  if (index < rules.size()) return rules[index];
  ShapeRule rule = rules.back();
  for (DimensionRule& dimension : rule) {
    if (dimension.input >= 0) dimension.input += static_cast<int>(index - (rules.size() - 1));
  }
  return rule;
}

// The attributes of one node, as ONNX Runtime hands them out. An absent attribute gives nullopt; one of another type
// is an error.
class AttributeReader {
 public:
  virtual ~AttributeReader() = default;
  virtual std::optional<int64_t> integer(const char* name) const = 0;
  virtual std::optional<float> real(const char* name) const = 0;
  virtual std::optional<std::string> string(const char* name) const = 0;
  virtual std::optional<std::vector<float>> reals(const char* name) const = 0;
  virtual std::optional<std::vector<int64_t>> integers(const char* name) const = 0;
};

struct Schema {
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::vector<const char*> attributes;
};

// How many outputs there are at most: a variadic one has as many tensors as the variadic input that it follows.
inline size_t most_outputs(const Schema& schema, size_t num_inputs) {
  const bool variadic = schema.outputs.back().presence == Presence::kVariadic;
  return schema.outputs.size() + (variadic ? num_inputs - schema.inputs.size() : 0);
}

inline void check_number_of_outputs(const std::string& op, const Schema& schema, size_t num_inputs,
                                    size_t num_outputs) {
  const size_t most = most_outputs(schema, num_inputs);
  if (num_outputs < 1 || num_outputs > most) {
    throw InvalidArgument(text(op, ": there must be 1 to ", most, " outputs; got ", num_outputs));
  }
}

inline std::string to_text(const Shape& shape) {
  std::string joined = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) joined += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  return joined + "]";
}

// Checked attributes that several operators have. `op` is the operator's name, for error texts.

inline int32_t read_integer(const AttributeReader& attributes, const std::string& op, const char* name,
                            int64_t default_value, int64_t least, int64_t most = std::numeric_limits<int32_t>::max()) {
  const int64_t value = attributes.integer(name).value_or(default_value);
  if (value < least)
    throw InvalidArgument(text(op, ": attribute ", name, " must be at least ", least, "; got ", value));
  if (value > most) throw InvalidArgument(text(op, ": attribute ", name, " must be at most ", most, "; got ", value));
  return static_cast<int32_t>(value);
}

inline float read_finite(const AttributeReader& attributes, const std::string& op, const char* name,
                         float default_value) {
  const float value = attributes.real(name).value_or(default_value);
  if (!std::isfinite(value)) throw InvalidArgument(text(op, ": attribute ", name, " must be finite; got ", value));
  return value;
}

inline float read_spatial_scale(const AttributeReader& attributes, const std::string& op) {
  const float scale = attributes.real("spatial_scale").value_or(1.0f);
  if (!std::isfinite(scale) || scale <= 0) {
    throw InvalidArgument(text(op, ": attribute spatial_scale must be finite and greater than 0; got ", scale));
  }
  return scale;
}

// Whether a text attribute has the first of its two allowed values, which is also its default.
inline bool read_is_first_choice(const AttributeReader& attributes, const std::string& op, const char* name,
                                 const char* first, const char* second) {
  const std::string value = attributes.string(name).value_or(first);
  if (value != first && value != second) {
    throw InvalidArgument(
        text(op, ": attribute ", name, " must be \"", first, "\" or \"", second, "\"; got \"", value, "\""));
  }
  return value == first;
}

}  // namespace ort_roialign
