// The samples of a RoI that lie on a grid along both axes: RoIAlign's own, and those of the operators that differ from
// it only in where the axes lie or which channels a bin reads.
#pragma once

#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"
#include "semantics/sample_axis.h"

namespace ort_roialign {

template <typename Real>
struct SampleGrid {
  static constexpr bool kSeparable = true;
  static constexpr int kCellsPerSample = 4;
  using SampleType = Sample<Real, kCellsPerSample>;

  SampleAxis<Real> y;
  SampleAxis<Real> x;

  ORT_ROIALIGN_HD AxisTaps<Real> row_taps(int32_t bin_y) const { return {y, bin_y}; }
  ORT_ROIALIGN_HD AxisTaps<Real> column_taps(int32_t bin_x) const { return {x, bin_x}; }

  ORT_ROIALIGN_HD Range touched_rows(int32_t bin_y) const { return y.touched_cells(bin_y); }
  ORT_ROIALIGN_HD Range touched_columns(int32_t bin_x) const { return x.touched_cells(bin_x); }

  ORT_ROIALIGN_HD Real divisor() const { return sample_divisor(y, x); }
  ORT_ROIALIGN_HD Real divisor(int32_t, int32_t) const { return divisor(); }

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
        visit(SampleType::outside(outside_id));
        outside_id = -1;
      }
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        visit(sample_at(bin_y, bin_x, row, column));
      }
    }
    if (outside_id >= 0) visit(SampleType::outside(outside_id));
  }

  // Calls visit(sample) for those of a bin's samples that read a cell, and perhaps some more, in row-major order.
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_samples_near(int32_t bin_y, int32_t bin_x, int32_t cell_y, int32_t cell_x,
                                          Visit&& visit) const {
    const Range rows = y.samples_near(bin_y, cell_y);
    const Range columns = x.samples_near(bin_x, cell_x);
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        visit(sample_at(bin_y, bin_x, row, column));
      }
    }
  }

 private:
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
    if (!y.is_inside(y_feature) || !x.is_inside(x_feature)) return SampleType::outside(id);
    return bilinear_sample(id, y.neighbours(y_feature), x.neighbours(x_feature), x.extent);
  }
};

}  // namespace ort_roialign
