// RoiAlign: RoI pooling without rounding (He et al. 2017, Mask R-CNN, section 3; attributes as ONNX RoiAlign-16).
//
// Differs from ONNX Runtime's own operator in mode "max": the maximum is taken over the interpolated samples, as the
// paper has it, not over the weighted corners.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/sample_grid.h"

namespace ort_roialign {

struct RoiAlign : SingleMapOperator<Box> {
  static constexpr const char* kName = "RoiAlign";
  static constexpr bool kHasMaximum = true;

  struct Params {
    int32_t output_height;   // bins
    int32_t output_width;    // bins
    int32_t sampling_ratio;  // samples a bin and axis; 0: adaptive
    float spatial_scale;     // feature cells per image pixel
    bool half_pixel;         // move RoIs by half a cell
    Reduction reduction;
  };

  template <typename T>
  using Region = SampleGrid<ComputeType<T>>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t, MapSize map) {
    using Real = ComputeType<T>;
    return lay_grid(params, static_cast<Real>(params.spatial_scale), Box<Real>::of(roi.values), map);
  }

  // `scale`: feature cells per image pixel.
  template <typename Real>
  ORT_ROIALIGN_HD static SampleGrid<Real> lay_grid(const Params& params, Real scale, const Box<Real>& box,
                                                   MapSize map) {
    return {lay_sample_axis(box.y1_image, box.y2_image, scale, params.half_pixel, params.output_height,
                            params.sampling_ratio, map.height),
            lay_sample_axis(box.x1_image, box.x2_image, scale, params.half_pixel, params.output_width,
                            params.sampling_ratio, map.width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
