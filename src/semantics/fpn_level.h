// Which level of a feature pyramid a RoI belongs to (Lin et al. 2017, Feature Pyramid Networks, equation 1), with the
// small numbers that frameworks add to the logarithm or to the level.
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"

namespace ort_roialign {

struct LevelRule {
  float canonical_scale;  // image pixels: the side of a square RoI of `canonical_level`
  float canonical_level;
  float log_epsilon;    // added before the logarithm
  float level_epsilon;  // added to the level, before it is rounded down
  int32_t min_level;    // of the first map
  int32_t max_level;

  // The number of the map for a RoI of this size: the first one for a RoI without area.
  ORT_ROIALIGN_HD int32_t map_number(float width_image, float height_image) const {
    const float area = width_image * height_image;
    if (!(area > 0)) return 0;
    const float ratio = std::sqrt(area) / canonical_scale + log_epsilon;
    // Rounded from float64, so that processors and GPUs agree.
    const float logarithm = static_cast<float>(std::log2(static_cast<double>(ratio)));
    const float level = std::floor(canonical_level + logarithm + level_epsilon);
    if (!(level > static_cast<float>(min_level))) return 0;
    return level < static_cast<float>(max_level) ? static_cast<int32_t>(level) - min_level : max_level - min_level;
  }
};

}  // namespace ort_roialign
