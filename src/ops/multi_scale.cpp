// The attributes behind multi_scale.h.
#include "ops/multi_scale.h"

#include <algorithm>

namespace ort_roialign {
namespace {

void read_spatial_scales(LevelParams& levels, const AttributeReader& attributes, const std::string& op) {
  const std::vector<float> scales = attributes.reals("spatial_scales").value_or(std::vector<float>{});
  if (scales.empty() || scales.size() > kMostLevels) {
    throw InvalidArgument(text(op, ": attribute spatial_scales must have one number for each map, 1 to ", kMostLevels,
                               " in all; got ", scales.size()));
  }
  for (const float scale : scales) {
    if (!std::isfinite(scale) || scale <= 0) {
      throw InvalidArgument(text(op, ": attribute spatial_scales must be finite and greater than 0; got ", scale));
    }
  }
  levels.num_maps = static_cast<int32_t>(scales.size());
  std::copy(scales.begin(), scales.end(), levels.spatial_scales);
}

// The level that a map of this scale has in a pyramid: 2 at a quarter of the image's size. The logarithm is rounded
// from float64, so that all processors agree on it.
int64_t level_of_scale(float scale) {
  return static_cast<int64_t>(std::lround(-static_cast<float>(std::log2(static_cast<double>(scale)))));
}

}  // namespace

std::vector<const char*> level_attributes() {
  return {"spatial_scales", "canonical_scale", "canonical_level", "min_level",
          "max_level",      "log_epsilon",     "level_epsilon"};
}

LevelParams read_level_params(const AttributeReader& attributes, const std::string& op) {
  LevelParams levels{};
  read_spatial_scales(levels, attributes, op);
  LevelRule& rule = levels.rule;
  rule.canonical_scale = read_finite(attributes, op, "canonical_scale", 224.0f);
  if (rule.canonical_scale <= 0) {
    throw InvalidArgument(text(op, ": attribute canonical_scale must be greater than 0; got ", rule.canonical_scale));
  }
  constexpr int64_t kLeastLevel = -1000;
  rule.canonical_level = static_cast<float>(read_integer(attributes, op, "canonical_level", 4, kLeastLevel));
  const int64_t first = level_of_scale(levels.spatial_scales[0]);
  const int64_t last = level_of_scale(levels.spatial_scales[levels.num_maps - 1]);
  rule.min_level = read_integer(attributes, op, "min_level", first, kLeastLevel);
  rule.max_level = read_integer(attributes, op, "max_level", rule.min_level + last - first, kLeastLevel);
  rule.log_epsilon = read_finite(attributes, op, "log_epsilon", 0.0f);
  rule.level_epsilon = read_finite(attributes, op, "level_epsilon", 1e-6f);
  const int64_t most = static_cast<int64_t>(rule.min_level) + levels.num_maps - 1;
  if (rule.max_level < rule.min_level || rule.max_level > most) {
    const char* origin =
        attributes.integer("max_level") ? "" : " from the scales, which must be those of maps, finest first";
    throw InvalidArgument(text(op, ": attribute max_level must be in [min_level, min_level + ", levels.num_maps,
                               " maps - 1] = [", rule.min_level, ", ", most, "]; got ", rule.max_level, origin));
  }
  return levels;
}

void check_number_of_maps(const std::string& op, const LevelParams& levels, int64_t num_maps, const char* attribute) {
  if (num_maps == levels.num_maps) return;
  throw InvalidArgument(text(op, ": X must be as many maps as attribute ", attribute, " has numbers, ", levels.num_maps,
                             "; got ", num_maps));
}

}  // namespace ort_roialign
