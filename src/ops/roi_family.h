// What the operators that pool RoIs `x1, y1, x2, y2` out of one feature map share: boxes, inputs and their checks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/schema.h"
#include "semantics/host_device.h"

namespace ort_roialign {

enum class Reduction { kAverage, kMaximum };

// A RoI's corners in image pixels.
template <typename Real>
struct Box {
  static constexpr int kColumns = 4;
  Real x1_image;
  Real y1_image;
  Real x2_image;
  Real y2_image;
};

// The inputs of the forward operators, by number.
enum RoiInput { kMap = 0, kRois = 1, kBatchIndices = 2 };

// The declarations of an operator X, rois, batch_indices -> Y; an operator derives from it and hides what differs.
struct SingleMapOperator {
  static std::vector<InputSpec> inputs();

  // Throws InvalidArgument where the inputs' shapes do not fit together.
  static void check_shapes(const std::string& op, const std::vector<Shape>& inputs);

  // [num_rois, channels, output_height, output_width], for every output.
  template <typename Params>
  static ShapeRule output_shape(const Params& params) {
    return {same_as(kRois, 0), same_as(kMap, 1), exactly(params.output_height), exactly(params.output_width)};
  }
};

}  // namespace ort_roialign
