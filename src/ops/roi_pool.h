// RoiPool: the maximum over the cells of each bin, with box and bins rounded to whole cells (Girshick 2015, Fast
// R-CNN, section 2.1; rounding as torchvision's roi_pool). Kept to compare RoiAlign with.
//
// Differs from torchvision's in that a NaN in a bin is its maximum, and a bin of -inf gives -inf.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/cell_axis.h"
#include "semantics/host_device.h"

namespace ort_roialign {

struct RoiPool : SingleMapOperator<Box> {
  static constexpr const char* kName = "RoiPool";
  static constexpr bool kHasAverage = false;
  static constexpr bool kHasMaximum = true;
  static constexpr bool kHasWinnerOutput = true;  // `argmax`

  using Params = PoolParams;

  template <typename T>
  using Region = CellGrid<ComputeType<T>>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t, MapSize map) {
    using Real = ComputeType<T>;
    const Real scale = static_cast<Real>(params.spatial_scale);
    const auto box = Box<Real>::of(roi.values);
    return {
        round_to_cells(box.y1_image * scale, box.y2_image * scale, true, params.output_height, map.height, map.height),
        round_to_cells(box.x1_image * scale, box.x2_image * scale, true, params.output_width, map.width, map.width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
