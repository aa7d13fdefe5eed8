// RoIAlign's samples with each bin moved by an offset of its own (Dai et al. 2017, Deformable Convolutional Networks,
// section 2.2; mmcv DeformRoIPool).
#pragma once

#include <cstdint>

#include "semantics/element_types.h"
#include "semantics/host_device.h"
#include "semantics/sample.h"
#include "semantics/sample_axis.h"
#include "semantics/sample_grid.h"

namespace ort_roialign {

template <typename T>
struct MovedGrid {
  using Real = ComputeType<T>;
  static constexpr bool kSeparable = false;
  static constexpr int kCellsPerSample = 4;
  using SampleType = Sample<Real, kCellsPerSample>;

  SampleGrid<Real> unmoved;
  const T* offset;  // [2, bins_y, bins_x]: along x, then along y, in units of `step`; null: all bins stay
  int32_t bins_y;
  int32_t bins_x;
  Real step_y_feature;  // cells that an offset of 1 moves a bin by
  Real step_x_feature;

  ORT_ROIALIGN_HD Real divisor(int32_t, int32_t) const { return unmoved.divisor(); }

  template <typename Visit>
  ORT_ROIALIGN_HD void visit_samples(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
    grid(bin_y, bin_x).visit_samples(bin_y, bin_x, visit);
  }

  template <typename Visit>
  ORT_ROIALIGN_HD void visit_samples_near(int32_t bin_y, int32_t bin_x, int32_t cell_y, int32_t cell_x,
                                          Visit&& visit) const {
    grid(bin_y, bin_x).visit_samples_near(bin_y, bin_x, cell_y, cell_x, visit);
  }

  ORT_ROIALIGN_HD CellRectangle touched(int32_t bin_y, int32_t bin_x) const {
    const SampleGrid<Real> moved = grid(bin_y, bin_x);
    return {moved.touched_rows(bin_y), moved.touched_columns(bin_x)};
  }

  // Calls visit(cell, slopes) for the cells that a bin's samples read: slopes[number] is the derivative of what the
  // sample adds to the cell's weight in the bin, by the bin's offset along x (0) and along y (1).
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_slopes(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
    const SampleGrid<Real> moved = grid(bin_y, bin_x);
    const Range rows = moved.y.inside_samples(bin_y);
    const Range columns = moved.x.inside_samples(bin_x);
    const Real share = 1 / divisor(bin_y, bin_x);
    for (AxisSamples<Real> row(moved.y, bin_y, rows); row.next();) {
      for (AxisSamples<Real> column(moved.x, bin_x, columns); column.next();) {
        const auto sample = bilinear_sample(0, row.cells, column.cells, moved.x.extent);
        const Real by_x = share * step_x_feature * column.slope();
        const Real by_y = share * step_y_feature * row.slope();
        const Real upper = 1 - row.cells.fraction, lower = row.cells.fraction;
        const Real left = 1 - column.cells.fraction, right = column.cells.fraction;
        // Cell by cell, because nvcc would put an array that a loop indexes into local memory.
        const auto visit_cell = [&](int64_t cell, Real along_x, Real along_y) {
          const Real slopes[2] = {by_x * along_x, by_y * along_y};
          visit(cell, slopes);
        };
        visit_cell(sample.offset[0], -upper, -left);
        visit_cell(sample.offset[1], upper, -right);
        visit_cell(sample.offset[2], -lower, left);
        visit_cell(sample.offset[3], lower, right);
      }
    }
  }

 private:
  ORT_ROIALIGN_HD SampleGrid<Real> grid(int32_t bin_y, int32_t bin_x) const {
    SampleGrid<Real> moved = unmoved;
    if (offset == nullptr) return moved;
    const int64_t bin = static_cast<int64_t>(bin_y) * bins_x + bin_x;
    moved.x.start_feature += step_x_feature * widen(offset[bin]);
    moved.y.start_feature += step_y_feature * widen(offset[static_cast<int64_t>(bins_y) * bins_x + bin]);
    return moved;
  }
};

}  // namespace ort_roialign
