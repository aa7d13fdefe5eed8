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
  size_t index;  // in OperatorList
  Direction direction;
  Schema schema;

  // Reads and checks a node's attributes; the result is what KernelCall::params points to.
  std::shared_ptr<const void> (*read_params)(const AttributeReader& attributes, const std::string& op);

  // The shapes of the outputs.
  std::vector<ShapeRule> (*output_shapes)(const void* params);

  // Throws InvalidArgument where the inputs' shapes do not fit together. An absent input has absent_shape().
  void (*check_shapes)(const std::string& op, const void* params, const std::vector<Shape>& inputs);
};

const std::vector<OperatorEntry>& operator_entries();

}  // namespace ort_roialign
