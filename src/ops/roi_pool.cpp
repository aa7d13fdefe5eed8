// What RoiPool declares: inputs, outputs and attributes.
#include "ops/roi_pool.h"

namespace ort_roialign {

Schema RoiPool::schema() {
  return {inputs(),
          {{"Y", TypeRule::kMap, false}, {"argmax", TypeRule::kInt64, true}},
          {"output_height", "output_width", "spatial_scale"}};
}

RoiPool::Params RoiPool::read_params(const AttributeReader& attributes, const std::string& op) {
  Params params{};
  params.output_height = read_integer(attributes, op, "output_height", 1, 1);
  params.output_width = read_integer(attributes, op, "output_width", 1, 1);
  params.spatial_scale = read_spatial_scale(attributes, op);
  return params;
}

}  // namespace ort_roialign
