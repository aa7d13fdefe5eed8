// DeformRoiPool: RoIAlign's average with each bin moved by a learned offset, in parts of the RoI's size (Dai et al.
// 2017, Deformable Convolutional Networks, section 2.2; mmcv DeformRoIPool). It has a gradient for the offset, too.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_align.h"
#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/moved_grid.h"

namespace ort_roialign {

struct DeformRoiPool : SingleMapOperator<Box> {
  static constexpr const char* kName = "DeformRoiPool";
  static constexpr InputPlaces kInputs{0, 1, 2, 3};
  static constexpr int kOffsetSlopes = 2;

  struct Params : RoiAlign::Params {
    float gamma;
  };

  template <typename T>
  using Region = MovedGrid<T>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t map_number,
                                          MapSize map) {
    using Real = ComputeType<T>;
    const auto box = Box<Real>::of(roi.values);
    const Real scale = static_cast<Real>(params.spatial_scale);
    const Real gamma = static_cast<Real>(params.gamma);
    return {RoiAlign::locate<T>(params, roi, map_number, map),
            roi.offset,
            params.output_height,
            params.output_width,
            gamma * side_feature(box.y1_image, box.y2_image, scale, params.half_pixel),
            gamma * side_feature(box.x1_image, box.x2_image, scale, params.half_pixel)};
  }

  static std::vector<InputSpec> inputs();
  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
