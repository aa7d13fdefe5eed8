// The shape checks behind roi_family.h.
#include "ops/roi_family.h"

namespace ort_roialign {

std::vector<InputSpec> SingleMapOperator::inputs() {
  return {{"X", TypeRule::kMap, "[num_images, channels, height, width]"},
          {"rois", TypeRule::kMapOrFloat32, "[num_rois, 4]"},
          {"batch_indices", TypeRule::kInt64, "[num_rois]"}};
}

void SingleMapOperator::check_shapes(const std::string& op, const std::vector<Shape>& inputs) {
  const Shape& map = inputs[kMap];
  const Shape& rois = inputs[kRois];
  const Shape& batch_indices = inputs[kBatchIndices];
  if (map.size() != 4) {
    throw InvalidArgument(text(op, ": X must have shape [num_images, channels, height, width]; got ", to_text(map)));
  }
  constexpr int64_t kLargestAxis = int64_t{1} << 30;  // leaves room for sums in int32
  if (map[2] > kLargestAxis || map[3] > kLargestAxis) {
    throw InvalidArgument(text(op, ": X must have height and width of at most ", kLargestAxis, "; got ", to_text(map)));
  }
  if (rois.size() != 2 || rois[1] != 4) {
    throw InvalidArgument(text(op, ": rois must have shape [num_rois, 4]; got ", to_text(rois)));
  }
  if (batch_indices.size() != 1 || batch_indices[0] != rois[0]) {
    throw InvalidArgument(
        text(op, ": batch_indices must have shape [num_rois] = [", rois[0], "]; got ", to_text(batch_indices)));
  }
  if (rois[0] > 0 && (map[2] < 1 || map[3] < 1)) {
    throw InvalidArgument(text(op, ": X must have height and width of at least 1; got ", to_text(map)));
  }
}

}  // namespace ort_roialign
