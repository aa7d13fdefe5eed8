// The operators as src/ort registers them: each one of OperatorList gives a forward entry and a gradient entry.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/schema.h"

namespace ort_roialign {

struct OperatorEntry {
  std::string name;
  size_t index = 0;  // in a kernel table
  Direction direction = Direction::kForward;
  Schema schema;

  // Reads and checks a node's attributes; the result is what KernelCall::params points to.
  std::shared_ptr<const void> (*read_params)(const AttributeReader& attributes, const std::string& op) = nullptr;

  // The shapes of the outputs.
  std::vector<ShapeRule> (*output_shapes)(const void* params) = nullptr;

  // Throws InvalidArgument where the inputs' shapes do not fit together. An absent input has absent_shape().
  void (*check_shapes)(const std::string& op, const void* params, const std::vector<Shape>& inputs) = nullptr;

  // Likewise for the numbers of kHostInt64 inputs, once their shapes are right; null where there are none.
  void (*check_values)(const std::string& op, const std::vector<InputTensor>& inputs) = nullptr;

  // Whether kMapOrBytes is uint8; null where there is none.
  bool (*gives_bytes)(const AttributeReader& attributes) = nullptr;
};

// The shape of an output, once the inputs are checked.
Shape output_shape(const ShapeRule& rule, const std::vector<InputTensor>& inputs);

const std::vector<OperatorEntry>& operator_entries();

}  // namespace ort_roialign
