// RoiAlignRotated: RoiAlign on boxes that are turned about their centres (detectron2 ROIAlignRotated, in degrees; mmcv
// RoIAlignRotated, in radians).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "ops/roi_align.h"
#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/rotated_grid.h"

namespace ort_roialign {

struct RoiAlignRotated : SingleMapOperator<RotatedBox> {
  static constexpr const char* kName = "RoiAlignRotated";
  static constexpr bool kHasMaximum = true;

  struct Params : RoiAlign::Params {
    bool degrees;
    bool clockwise;
    bool at_least_one_cell;  // how long sides count
  };

  template <typename T>
  using Region = RotatedGrid<ComputeType<T>>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 5>& roi, int32_t, MapSize map) {
    using Real = ComputeType<T>;
    const auto box = RotatedBox<Real>::of(roi.values);
    const Real scale = static_cast<Real>(params.spatial_scale);
    constexpr double kRadiansPerDegree = 0.017453292519943295;
    const double angle = static_cast<double>(box.angle);
    const double radians = params.degrees ? angle * kRadiansPerDegree : angle;
    const auto [sine, cosine] = sine_and_cosine(radians);
    return {lay_centred(params, box.full_height_image * scale, params.output_height, map.height),
            lay_centred(params, box.full_width_image * scale, params.output_width, map.width),
            edge_feature(box.centre_y_image, scale, params.half_pixel),
            edge_feature(box.centre_x_image, scale, params.half_pixel),
            static_cast<Real>(params.clockwise ? -sine : sine),
            static_cast<Real>(cosine)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);

 private:
  template <typename Real>
  ORT_ROIALIGN_HD static SampleAxis<Real> lay_centred(const Params& params, Real length, int32_t bins, int32_t extent) {
    const Real counted = counted_length(length, !params.at_least_one_cell);
    return divide_into_bins(-counted / 2, counted, bins, params.sampling_ratio, extent);
  }
};

}  // namespace ort_roialign
