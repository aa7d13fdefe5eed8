// What the operators declare: inputs, outputs and attributes.
#include <cmath>

#include "ops/op_list.h"

namespace ort_roialign {
namespace {

const OutputSpec kPooled{"Y", TypeRule::kMap};

template <typename Params>
void read_output_size(Params& params, const AttributeReader& attributes, const std::string& op) {
  params.output_height = read_integer(attributes, op, "output_height", 1, 1);
  params.output_width = read_integer(attributes, op, "output_width", 1, 1);
}

PoolParams read_pool_params(const AttributeReader& attributes, const std::string& op) {
  PoolParams params{};
  read_output_size(params, attributes, op);
  params.spatial_scale = read_spatial_scale(attributes, op);
  return params;
}

// Those of RoiAlign but for the reduction and the coordinates' origin.
RoiAlign::Params read_grid_params(const AttributeReader& attributes, const std::string& op) {
  RoiAlign::Params params{};
  read_output_size(params, attributes, op);
  params.sampling_ratio = read_integer(attributes, op, "sampling_ratio", 0, 0);
  params.spatial_scale = read_spatial_scale(attributes, op);
  params.half_pixel = true;
  params.reduction = Reduction::kAverage;
  return params;
}

bool read_half_pixel(const AttributeReader& attributes, const std::string& op) {
  return read_is_first_choice(attributes, op, "coordinate_transformation_mode", "half_pixel", "output_half_pixel");
}

}  // namespace

Schema RoiAlign::schema() {
  return {
      inputs(),
      {kPooled},
      {"mode", "output_height", "output_width", "sampling_ratio", "spatial_scale", "coordinate_transformation_mode"}};
}

RoiAlign::Params RoiAlign::read_params(const AttributeReader& attributes, const std::string& op) {
  Params params = read_grid_params(attributes, op);
  params.half_pixel = read_half_pixel(attributes, op);
  params.reduction =
      read_is_first_choice(attributes, op, "mode", "avg", "max") ? Reduction::kAverage : Reduction::kMaximum;
  return params;
}

Schema RoiAlignRotated::schema() {
  Schema schema{inputs(), {kPooled}, RoiAlign::schema().attributes};
  schema.attributes.push_back("angle_unit");
  schema.attributes.push_back("clockwise");
  return schema;
}

RoiAlignRotated::Params RoiAlignRotated::read_params(const AttributeReader& attributes, const std::string& op) {
  Params params{};
  static_cast<RoiAlign::Params&>(params) = RoiAlign::read_params(attributes, op);
  params.degrees = !read_is_first_choice(attributes, op, "angle_unit", "radians", "degrees");
  params.clockwise = read_integer(attributes, op, "clockwise", 0, 0, 1) == 1;
  params.at_least_one_cell = !params.half_pixel;
  return params;
}

Schema RoiPool::schema() {
  return {inputs(),
          {kPooled, {"argmax", TypeRule::kInt64, Presence::kOptional}},
          {"output_height", "output_width", "spatial_scale"}};
}

RoiPool::Params RoiPool::read_params(const AttributeReader& attributes, const std::string& op) {
  return read_pool_params(attributes, op);
}

Schema PsRoiAlign::schema() {
  return {inputs(), {kPooled}, {"output_height", "output_width", "sampling_ratio", "spatial_scale"}};
}

PsRoiAlign::Params PsRoiAlign::read_params(const AttributeReader& attributes, const std::string& op) {
  return read_grid_params(attributes, op);
}

Schema PsRoiPool::schema() { return {inputs(), {kPooled}, {"output_height", "output_width", "spatial_scale"}}; }

PsRoiPool::Params PsRoiPool::read_params(const AttributeReader& attributes, const std::string& op) {
  return read_pool_params(attributes, op);
}

Schema PrRoiPool::schema() { return {inputs(), {kPooled}, {"output_height", "output_width", "spatial_scale"}}; }

PrRoiPool::Params PrRoiPool::read_params(const AttributeReader& attributes, const std::string& op) {
  return read_pool_params(attributes, op);
}

std::vector<InputSpec> DeformRoiPool::inputs() {
  std::vector<InputSpec> inputs = SingleMapOperator::inputs();
  inputs.push_back({"offset", TypeRule::kMap, "[num_rois, 2, output_height, output_width]", Presence::kOptional});
  return inputs;
}

Schema DeformRoiPool::schema() {
  return {
      inputs(),
      {kPooled},
      {"output_height", "output_width", "sampling_ratio", "spatial_scale", "coordinate_transformation_mode", "gamma"}};
}

DeformRoiPool::Params DeformRoiPool::read_params(const AttributeReader& attributes, const std::string& op) {
  Params params{};
  static_cast<RoiAlign::Params&>(params) = read_grid_params(attributes, op);
  params.half_pixel = read_half_pixel(attributes, op);
  params.gamma = read_finite(attributes, op, "gamma", 0.1f);
  return params;
}

}  // namespace ort_roialign
