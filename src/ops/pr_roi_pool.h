// PrRoiPool: precise RoI pooling, the average of the bilinear surface over each bin without any sample points (Jiang et
// al. 2018, IoU-Net, section 3.2). Its output depends smoothly on the boxes, so it has a gradient for them, too.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/integral_grid.h"

namespace ort_roialign {

struct PrRoiPool : SingleMapOperator<Box> {
  static constexpr const char* kName = "PrRoiPool";
  static constexpr int kRoiSlopes = 4;

  using Params = PoolParams;

  template <typename T>
  using Region = IntegralGrid<ComputeType<T>>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t, MapSize map) {
    using Real = ComputeType<T>;
    const Real scale = static_cast<Real>(params.spatial_scale);
    const auto box = Box<Real>::of(roi.values);
    return {lay_integral_axis(box.y1_image, box.y2_image, scale, params.output_height, map.height),
            lay_integral_axis(box.x1_image, box.x2_image, scale, params.output_width, map.width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
