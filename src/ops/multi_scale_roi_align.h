// MultiScaleRoiAlign and MultiScaleRoiAlignRotated: RoiAlign on a feature pyramid, in one node.
#pragma once

#include "ops/multi_scale.h"
#include "ops/roi_align.h"
#include "ops/roi_align_rotated.h"

namespace ort_roialign {

struct MultiScaleRoiAlign : MultiScale<RoiAlign> {
  static constexpr const char* kName = "MultiScaleRoiAlign";
};

struct MultiScaleRoiAlignRotated : MultiScale<RoiAlignRotated> {
  static constexpr const char* kName = "MultiScaleRoiAlignRotated";
};

}  // namespace ort_roialign
