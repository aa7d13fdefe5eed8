// RoiPool: the maximum over the cells of each bin, with box and bins rounded to whole cells (Girshick 2015, Fast
// R-CNN, section 2.1; rounding as torchvision's roi_pool). Kept to compare RoiAlign with.
//
// Differs from torchvision's in that a NaN in a bin is its maximum, and a bin of -inf gives -inf.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/sample.h"

namespace ort_roialign {

struct RoiPool : SingleMapOperator {
  static constexpr const char* kName = "RoiPool";
  static constexpr bool kHasAverage = false;
  static constexpr bool kHasWinnerOutput = true;  // `argmax`

  struct Params {
    int32_t output_height;  // bins
    int32_t output_width;   // bins
    float spatial_scale;    // feature cells per image pixel
  };

  // A RoI's edge along one axis, rounded to cells.
  template <typename Real>
  struct CellAxis {
    int64_t start_feature;  // the first cell; may lie outside the map
    Real bin_size_feature;  // in cells
    int32_t extent;         // cells of the map

    ORT_ROIALIGN_HD Range cells(int32_t bin) const {
      const Real begin = std::floor(static_cast<Real>(bin) * bin_size_feature);
      const Real end = std::ceil(static_cast<Real>(bin + 1) * bin_size_feature);
      return {clip(start_feature + static_cast<int64_t>(begin)), clip(start_feature + static_cast<int64_t>(end))};
    }

   private:
    ORT_ROIALIGN_HD int32_t clip(int64_t cell) const {
      return static_cast<int32_t>(cell < 0 ? 0 : (cell > extent ? extent : cell));
    }
  };

  template <typename Real>
  struct Region {
    static constexpr int kCellsPerSample = 1;
    using SampleType = Sample<Real, kCellsPerSample>;

    CellAxis<Real> y;
    CellAxis<Real> x;

    ORT_ROIALIGN_HD Range touched_rows(int32_t bin_y) const { return y.cells(bin_y); }
    ORT_ROIALIGN_HD Range touched_columns(int32_t bin_x) const { return x.cells(bin_x); }

    // A sample is a cell, and the cell's place in its plane names it: the number that `argmax` reports.
    ORT_ROIALIGN_HD SampleType sample(int32_t, int32_t, int64_t id) const { return {id, true, {id}, {1}}; }

    template <typename Visit>
    ORT_ROIALIGN_HD void visit_samples(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
      const Range rows = y.cells(bin_y);
      const Range columns = x.cells(bin_x);
      for (int32_t row = rows.begin; row < rows.end; ++row) {
        for (int32_t column = columns.begin; column < columns.end; ++column) {
          visit(sample(bin_y, bin_x, static_cast<int64_t>(row) * x.extent + column));
        }
      }
    }
  };

  template <typename Real>
  ORT_ROIALIGN_HD static Region<Real> locate(const Params& params, Box<Real> box, int32_t height, int32_t width) {
    const Real scale = static_cast<Real>(params.spatial_scale);
    return {round_to_cells(box.y1_image * scale, box.y2_image * scale, params.output_height, height),
            round_to_cells(box.x1_image * scale, box.x2_image * scale, params.output_width, width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);

 private:
  // The end is inclusive, and a malformed RoI is one cell long.
  template <typename Real>
  ORT_ROIALIGN_HD static CellAxis<Real> round_to_cells(Real low_feature, Real high_feature, int32_t bins,
                                                       int32_t extent) {
    const int64_t start = round_half_away(low_feature);
    const int64_t length = round_half_away(high_feature) - start + 1;
    return {start, static_cast<Real>(length > 1 ? length : 1) / static_cast<Real>(bins), extent};
  }

  // C's round, held within the integers that float32 holds without loss of range: a RoI that far away is outside.
  template <typename Real>
  ORT_ROIALIGN_HD static int64_t round_half_away(Real value) {
    constexpr Real kFarthest = 2147483648.0;
    const Real clamped = value < -kFarthest ? -kFarthest : (value > kFarthest ? kFarthest : value);
    return static_cast<int64_t>(std::round(clamped));
  }
};

}  // namespace ort_roialign
