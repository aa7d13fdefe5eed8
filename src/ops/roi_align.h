// RoiAlign: RoI pooling without rounding (He et al. 2017, Mask R-CNN, section 3; attributes as ONNX RoiAlign-16).
//
// Differs from ONNX Runtime's own operator in mode "max": the maximum is taken over the interpolated samples, as the
// paper has it, not over the weighted corners.
#pragma once

#include <cstdint>
#include <string>

#include "ops/roi_family.h"
#include "semantics/host_device.h"
#include "semantics/sample.h"
#include "semantics/sample_axis.h"

namespace ort_roialign {

struct RoiAlign : SingleMapOperator {
  static constexpr const char* kName = "RoiAlign";
  static constexpr bool kHasAverage = true;
  static constexpr bool kHasWinnerOutput = false;

  struct Params {
    int32_t output_height;   // bins
    int32_t output_width;    // bins
    int32_t sampling_ratio;  // samples a bin and axis; 0: adaptive
    float spatial_scale;     // feature cells per image pixel
    bool half_pixel;         // move RoIs by half a cell
    Reduction reduction;
  };

  // One RoI on the feature map.
  template <typename Real>
  struct Region {
    static constexpr int kCellsPerSample = 4;
    using SampleType = Sample<Real, kCellsPerSample>;

    SampleAxis<Real> y;
    SampleAxis<Real> x;

    ORT_ROIALIGN_HD AxisTaps<Real> row_taps(int32_t bin_y) const { return {y, bin_y}; }
    ORT_ROIALIGN_HD AxisTaps<Real> column_taps(int32_t bin_x) const { return {x, bin_x}; }

    ORT_ROIALIGN_HD Range touched_rows(int32_t bin_y) const { return y.touched_cells(bin_y); }
    ORT_ROIALIGN_HD Range touched_columns(int32_t bin_x) const { return x.touched_cells(bin_x); }

    // What the weighted sum over a bin is divided by: the number of samples, those outside the map included.
    ORT_ROIALIGN_HD Real divisor() const {
      const int64_t samples = static_cast<int64_t>(y.grid) * x.grid;
      return static_cast<Real>(samples > 0 ? samples : 1);
    }

    ORT_ROIALIGN_HD SampleType sample(int32_t bin_y, int32_t bin_x, int64_t id) const {
      return sample_at(bin_y, bin_x, static_cast<int32_t>(id / x.grid), static_cast<int32_t>(id % x.grid));
    }

    // Calls visit(sample) for a bin's samples in row-major order. Of the samples outside the map, which are all worth
    // 0, only the first is visited.
    template <typename Visit>
    ORT_ROIALIGN_HD void visit_samples(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
      if (y.grid == 0 || x.grid == 0) return;
      const Range rows = y.inside_samples(bin_y);
      const Range columns = x.inside_samples(bin_x);
      int64_t outside_id = first_outside(rows, columns);
      for (int32_t row = rows.begin; row < rows.end && !columns.empty(); ++row) {
        const int64_t row_id = static_cast<int64_t>(row) * x.grid;
        if (outside_id >= 0 && outside_id < row_id + columns.begin) {
          visit(outside_sample(outside_id));
          outside_id = -1;
        }
        for (int32_t column = columns.begin; column < columns.end; ++column) {
          visit(sample_at(bin_y, bin_x, row, column));
        }
      }
      if (outside_id >= 0) visit(outside_sample(outside_id));
    }

   private:
    ORT_ROIALIGN_HD SampleType outside_sample(int64_t id) const { return {id, false, {0, 0, 0, 0}, {0, 0, 0, 0}}; }

    // The first sample outside the map in row-major order, -1 where all are inside.
    ORT_ROIALIGN_HD int64_t first_outside(Range rows, Range columns) const {
      if (rows.empty() || columns.empty() || rows.begin > 0 || columns.begin > 0) return 0;
      if (columns.end < x.grid) return columns.end;
      if (rows.end < y.grid) return static_cast<int64_t>(rows.end) * x.grid;
      return -1;
    }

    ORT_ROIALIGN_HD SampleType sample_at(int32_t bin_y, int32_t bin_x, int32_t row, int32_t column) const {
      const int64_t id = static_cast<int64_t>(row) * x.grid + column;
      const Real y_feature = y.position(bin_y, row);
      const Real x_feature = x.position(bin_x, column);
      if (!y.is_inside(y_feature) || !x.is_inside(x_feature)) return outside_sample(id);
      const Neighbours<Real> row_cells = y.neighbours(y_feature);
      const Neighbours<Real> column_cells = x.neighbours(x_feature);
      const int64_t upper = static_cast<int64_t>(row_cells.low) * x.extent;
      const int64_t lower = static_cast<int64_t>(row_cells.high) * x.extent;
      const Real upper_weight = 1 - row_cells.fraction;
      const Real left_weight = 1 - column_cells.fraction;
      return {
          id,
          true,
          {upper + column_cells.low, upper + column_cells.high, lower + column_cells.low, lower + column_cells.high},
          {upper_weight * left_weight, upper_weight * column_cells.fraction, row_cells.fraction * left_weight,
           row_cells.fraction * column_cells.fraction}};
    }
  };

  template <typename Real>
  ORT_ROIALIGN_HD static Region<Real> locate(const Params& params, Box<Real> box, int32_t height, int32_t width) {
    const Real scale = static_cast<Real>(params.spatial_scale);
    return {lay_sample_axis(box.y1_image, box.y2_image, scale, params.half_pixel, params.output_height,
                            params.sampling_ratio, height),
            lay_sample_axis(box.x1_image, box.x2_image, scale, params.half_pixel, params.output_width,
                            params.sampling_ratio, width)};
  }

  static Schema schema();
  static Params read_params(const AttributeReader& attributes, const std::string& op);
};

}  // namespace ort_roialign
