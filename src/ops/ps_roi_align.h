// PsRoiAlign: position-sensitive RoIAlign, where each bin averages a channel of its own (Dai et al. 2016, R-FCN,
// section 2, with RoIAlign's samples; torchvision ps_roi_align).
//
// Differs from torchvision's in that a bin without samples is 0, not NaN.
#pragma once

#include <string>

#include "ops/roi_align.h"
#include "ops/roi_family.h"
#include "semantics/host_device.h"

namespace ort_roialign {

struct PsRoiAlign : SingleMapOperator<Box> {
  static constexpr const char* kName = "PsRoiAlign";
  static constexpr bool kChannelPerBin = true;

  using Params = RoiAlign::Params;  // always with `half_pixel`

  template <typename T>
  using Region = RoiAlign::Region<T>;

  template <typename T>
  ORT_ROIALIGN_HD static Region<T> locate(const Params& params, const RoiRow<T, 4>& roi, int32_t map_number,
                                          MapSize map) {
    return RoiAlign::locate<T>(params, roi, map_number, map);
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
