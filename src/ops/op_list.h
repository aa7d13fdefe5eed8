// The operators of the library. Adding one here registers it and its gradient, for every type and provider.
#pragma once

#include "ops/deform_roi_pool.h"
#include "ops/multi_scale_roi_align.h"
#include "ops/pr_roi_pool.h"
#include "ops/ps_roi_align.h"
#include "ops/ps_roi_pool.h"
#include "ops/roi_align.h"
#include "ops/roi_align_rotated.h"
#include "ops/roi_pool.h"

namespace ort_roialign {

template <typename... Ops>
struct TypeList {
  static constexpr int kSize = sizeof...(Ops);
};

using OperatorList = TypeList<RoiAlign, MultiScaleRoiAlign, RoiAlignRotated, MultiScaleRoiAlignRotated, RoiPool,
                              PsRoiAlign, PsRoiPool, PrRoiPool, DeformRoiPool>;

}  // namespace ort_roialign
