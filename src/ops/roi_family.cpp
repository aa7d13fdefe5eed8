// The shape checks behind roi_family.h.
#include "ops/roi_family.h"

namespace ort_roialign {

void check_rois(const std::string& op, const Shape& rois, int columns, const Shape& batch_indices) {
  if (rois.size() != 2 || rois[1] != columns) {
    throw InvalidArgument(text(op, ": rois must have shape [num_rois, ", columns, "]; got ", to_text(rois)));
  }
  if (batch_indices.size() != 1 || batch_indices[0] != rois[0]) {
    throw InvalidArgument(
        text(op, ": batch_indices must have shape [num_rois] = [", rois[0], "]; got ", to_text(batch_indices)));
  }
}

void check_map(const std::string& op, const std::string& name, const Shape& map, int64_t num_rois,
               int64_t channel_divisor) {
  if (map.size() != 4) {
    throw InvalidArgument(
        text(op, ": ", name, " must have shape [num_images, channels, height, width]; got ", to_text(map)));
  }
  constexpr int64_t kLargestAxis = int64_t{1} << 30;  // leaves room for sums in int32
  if (map[2] > kLargestAxis || map[3] > kLargestAxis) {
    throw InvalidArgument(
        text(op, ": ", name, " must have height and width of at most ", kLargestAxis, "; got ", to_text(map)));
  }
  if (num_rois > 0 && (map[2] < 1 || map[3] < 1)) {
    throw InvalidArgument(text(op, ": ", name, " must have height and width of at least 1; got ", to_text(map)));
  }
  if (map[1] % channel_divisor != 0) {
    throw InvalidArgument(text(op, ": ", name, " must have a multiple of output_height * output_width = ",
                               channel_divisor, " channels; got ", to_text(map)));
  }
}

}  // namespace ort_roialign
