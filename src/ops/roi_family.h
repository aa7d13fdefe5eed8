// What the operators share: boxes, where their inputs stand, and the checks of their shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/schema.h"
#include "semantics/element_types.h"
#include "semantics/host_device.h"

namespace ort_roialign {

enum class Reduction { kAverage, kMaximum };

// One RoI as a call gives it.
template <typename T, int kColumns>
struct RoiRow {
  ComputeType<T> values[kColumns];
  const T* offset;  // of operators that have it: [2, output_height, output_width], or null
};

// The map that a RoI is pooled from.
struct MapSize {
  int32_t height;  // cells
  int32_t width;
};

// The attributes of operators that lay no sample points.
struct PoolParams {
  int32_t output_height;  // bins
  int32_t output_width;   // bins
  float spatial_scale;    // feature cells per image pixel
};

// A RoI's corners in image pixels.
template <typename Real>
struct Box {
  static constexpr int kColumns = 4;
  Real x1_image;
  Real y1_image;
  Real x2_image;
  Real y2_image;

  ORT_ROIALIGN_HD static Box of(const Real* values) { return {values[0], values[1], values[2], values[3]}; }

  ORT_ROIALIGN_HD Real width_image() const { return x2_image - x1_image; }
  ORT_ROIALIGN_HD Real height_image() const { return y2_image - y1_image; }
};

// A RoI that is turned about its centre.
template <typename Real>
struct RotatedBox {
  static constexpr int kColumns = 5;
  Real centre_x_image;
  Real centre_y_image;
  Real full_width_image;
  Real full_height_image;
  Real angle;  // in the unit that the operator says

  ORT_ROIALIGN_HD static RotatedBox of(const Real* values) {
    return {values[0], values[1], values[2], values[3], values[4]};
  }

  ORT_ROIALIGN_HD Real width_image() const { return full_width_image; }
  ORT_ROIALIGN_HD Real height_image() const { return full_height_image; }
};

// Which inputs of a forward operator are what, by number. A gradient operator has dY before them.
struct InputPlaces {
  int map;  // the first one, where there are several
  int rois;
  int batch_indices;
  int offset;  // -1: none
};

// What an operator X, rois, batch_indices -> Y has unless it says otherwise.
template <template <typename Real> class BoxType>
struct SingleMapOperator {
  template <typename Real>
  using RoiBox = BoxType<Real>;

  static constexpr InputPlaces kInputs{0, 1, 2, -1};
  static constexpr int kMostMaps = 1;
  // Whether a bin reads a channel of its own, so that the map has that many times more channels than the output.
  static constexpr bool kChannelPerBin = false;
  static constexpr bool kHasAverage = true;
  static constexpr bool kHasMaximum = false;
  // Whether a second output says which sample won.
  static constexpr bool kHasWinnerOutput = false;
  // Numbers that the output also depends on smoothly: those of a RoI, or those that the offset has for a bin.
  static constexpr int kRoiSlopes = 0;
  static constexpr int kOffsetSlopes = 0;

  static std::vector<InputSpec> inputs() { return {map_input(), rois_input(), batch_indices_input()}; }

  // The number of the map that a RoI is pooled from.
  template <typename Params, typename Real>
  ORT_ROIALIGN_HD static int32_t map_number(const Params&, const BoxType<Real>&) {
    return 0;
  }

  template <typename Params>
  static void check_attributes(const std::string&, const Params&, int64_t) {}

 protected:
  static InputSpec map_input() { return {"X", TypeRule::kMap, "[num_images, channels, height, width]"}; }
  static InputSpec rois_input() {
    return {"rois", TypeRule::kMapOrFloat32, BoxType<float>::kColumns == 4 ? "[num_rois, 4]" : "[num_rois, 5]"};
  }
  static InputSpec batch_indices_input() { return {"batch_indices", TypeRule::kInt64, "[num_rois]"}; }
};

// Checks that hold for all operators; throw InvalidArgument. `columns` are those of rois, `channel_divisor` is what X's
// channels must be a multiple of.
void check_rois(const std::string& op, const Shape& rois, int columns, const Shape& batch_indices);
void check_map(const std::string& op, const std::string& name, const Shape& map, int64_t num_rois,
               int64_t channel_divisor);

}  // namespace ort_roialign
