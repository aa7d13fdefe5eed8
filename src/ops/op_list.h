// The operators of the library. Adding one here registers it and its gradient, for every type and provider.
#pragma once

#include "ops/roi_align.h"
#include "ops/roi_pool.h"

namespace ort_roialign {

template <typename... Ops>
struct TypeList {
  static constexpr int kSize = sizeof...(Ops);
};

using OperatorList = TypeList<RoiAlign, RoiPool>;

}  // namespace ort_roialign
