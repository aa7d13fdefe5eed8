// What RoiAlign declares: inputs, outputs and attributes.
#include "ops/roi_align.h"

namespace ort_roialign {

Schema RoiAlign::schema() {
  return {
      inputs(),
      {{"Y", TypeRule::kMap, false}},
      {"mode", "output_height", "output_width", "sampling_ratio", "spatial_scale", "coordinate_transformation_mode"}};
}

RoiAlign::Params RoiAlign::read_params(const AttributeReader& attributes, const std::string& op) {
  Params params{};
  params.output_height = read_integer(attributes, op, "output_height", 1, 1);
  params.output_width = read_integer(attributes, op, "output_width", 1, 1);
  params.sampling_ratio = read_integer(attributes, op, "sampling_ratio", 0, 0);
  params.spatial_scale = read_spatial_scale(attributes, op);
  params.half_pixel =
      read_is_first_choice(attributes, op, "coordinate_transformation_mode", "half_pixel", "output_half_pixel");
  params.reduction =
      read_is_first_choice(attributes, op, "mode", "avg", "max") ? Reduction::kAverage : Reduction::kMaximum;
  return params;
}

}  // namespace ort_roialign
