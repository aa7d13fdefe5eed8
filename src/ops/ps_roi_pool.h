// PsRoiPool: position-sensitive RoI pooling, where each bin averages the cells of a channel of its own (Dai et al.
// 2016, R-FCN, section 2; rounding as torchvision's ps_roi_pool, whose bins end before the map's last row and column).
//
// The gradient is the transpose of this forward pass; torchvision's lets bins end one cell later.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/cell_axis.h"
#include "semantics/host_device.h"

namespace ort_roialign {

struct PsRoiPool : SingleMapOperator<Box> {
  static constexpr const char* kName = "PsRoiPool";
  static constexpr bool kChannelPerBin = true;

  using Params = PoolParams;

  template <typename T>
  using Region = CellGrid<ComputeType<T>>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t, MapSize map) {
    using Real = ComputeType<T>;
    const Real scale = static_cast<Real>(params.spatial_scale);
    const auto box = Box<Real>::of(roi.values);
    return {round_to_cells(box.y1_image * scale, box.y2_image * scale, false, params.output_height, map.height - 1,
                           map.height),
            round_to_cells(box.x1_image * scale, box.x2_image * scale, false, params.output_width, map.width - 1,
                           map.width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
