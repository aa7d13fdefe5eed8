// The operators as src/ort registers them: each one of OperatorList gives a forward entry and a gradient entry.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/own_attributes.h"
#include "ops/schema.h"

namespace ort_roialign {

struct OperatorEntry {
  std::string name;
  size_t index = 0;  // in a kernel table
  Direction direction = Direction::kForward;
  Schema schema;

  // Reads and checks a node's attributes; the result is what KernelCall::params points to.
  std::function<std::shared_ptr<const void>(const AttributeReader& attributes, const std::string& op)> read_params;

  // The shapes of the outputs.
  std::function<std::vector<ShapeRule>(const void* params)> output_shapes;

  // Throws InvalidArgument where the inputs' shapes do not fit together. An absent input has absent_shape().
  std::function<void(const std::string& op, const void* params, const std::vector<Shape>& inputs)> check_shapes;

  // Likewise for the numbers of kHostInt64 inputs, once their shapes are right; null where there are none.
  void (*check_values)(const std::string& op, const std::vector<InputTensor>& inputs) = nullptr;

  // Whether kMapOrBytes is uint8; null where there is none.
  bool (*gives_bytes)(const AttributeReader& attributes) = nullptr;

  // The operator is for this version of its domain and those after it.
  int first_version = 1;

  // The rest is for operators of other domains.

  // Where kernels expect batch_indices, if the operator has none of them but images' numbers in rois; else -1.
  int left_out_input = -1;

  // Whether an optional input without elements counts as left out.
  bool empty_is_absent = false;

  // The operator of this library that it is, and that one's attributes; empty and null where it has them itself.
  std::string own_name;
  std::function<OwnAttributes(const AttributeReader& theirs, const std::string& op)> own_attributes;

  // Throws InvalidArgument where its inputs are not as many as its attributes say; null where these say nothing of it.
  std::function<void(const std::string& op, const void* params, size_t num_inputs)> check_count;
};

// Throws InvalidArgument where the inputs' types do not go together.
void check_types(const OperatorEntry& entry, TypeChoice types);

// The shape of an output, once the inputs are checked.
Shape output_shape(const ShapeRule& rule, const std::vector<InputTensor>& inputs);

const std::vector<OperatorEntry>& operator_entries();

}  // namespace ort_roialign
