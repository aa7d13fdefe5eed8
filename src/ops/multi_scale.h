// What turns an operator on one map into one on a feature pyramid: each RoI is pooled from the map of its own level
// (Lin et al. 2017, Feature Pyramid Networks, section 4.2 and equation 1).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ops/roi_family.h"
#include "semantics/fpn_level.h"
#include "semantics/host_device.h"

namespace ort_roialign {

constexpr int kMostLevels = 16;

struct LevelParams {
  LevelRule rule;
  int32_t num_maps;
  float spatial_scales[kMostLevels];  // feature cells per image pixel, of each map
};

// Reads and checks the attributes that say which level a RoI belongs to.
LevelParams read_level_params(const AttributeReader& attributes, const std::string& op);
std::vector<const char*> level_attributes();

// Throws InvalidArgument where the maps are not as many as the numbers of the attribute that gave the levels.
void check_number_of_maps(const std::string& op, const LevelParams& levels, int64_t num_maps, const char* attribute);

template <typename Base>
struct MultiScale : Base {
  static constexpr InputPlaces kInputs{2, 0, 1, -1};
  static constexpr int kMostMaps = kMostLevels;

  struct Params : Base::Params {
    LevelParams levels;
  };

  template <typename Real>
  ORT_ROIALIGN_HD static int32_t map_number(const Params& params, const typename Base::template RoiBox<Real>& box) {
    return params.levels.rule.map_number(static_cast<float>(box.width_image()), static_cast<float>(box.height_image()));
  }

  template <typename T, int kColumns>
  ORT_ROIALIGN_HD static auto locate(const Params& params, const RoiRow<T, kColumns>& roi, int32_t map_number,
                                     MapSize map) {
    typename Base::Params base = params;
    base.spatial_scale = params.levels.spatial_scales[map_number];
    return Base::template locate<T>(base, roi, 0, map);
  }

  static std::vector<InputSpec> inputs() {
    InputSpec maps = Base::map_input();
    maps.presence = Presence::kVariadic;
    return {Base::rois_input(), Base::batch_indices_input(), maps};
  }

  static void check_attributes(const std::string& op, const Params& params, int64_t num_maps) {
    check_number_of_maps(op, params.levels, num_maps, "spatial_scales");
  }

  static Schema schema() {
    Schema schema{inputs(), {{"Y", TypeRule::kMap}}, level_attributes()};
    for (const char* name : Base::schema().attributes) {
      if (std::string(name) != "spatial_scale") schema.attributes.push_back(name);
    }
    return schema;
  }

  static Params read_params(const AttributeReader& attributes, const std::string& op) {
    Params params{};
    static_cast<typename Base::Params&>(params) = Base::read_params(attributes, op);
    params.levels = read_level_params(attributes, op);
    return params;
  }
};

}  // namespace ort_roialign
