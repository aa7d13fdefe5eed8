// The bins of RoI Pooling along one axis: ranges of whole cells, which may overlap (Girshick 2015, Fast R-CNN,
// section 2.1; rounding as in torchvision's roi_pool and ps_roi_pool).
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"

namespace ort_roialign {

template <typename Real>
struct CellAxis {
  int64_t start_feature;  // the first cell; may lie outside the map
  Real bin_size_feature;  // in cells
  int32_t end_of_bins;    // bins are cut off at this cell
  int32_t extent;         // cells of the map

  ORT_ROIALIGN_HD Range cells(int32_t bin) const {
    const Real begin = std::floor(static_cast<Real>(bin) * bin_size_feature);
    const Real end = std::ceil(static_cast<Real>(bin + 1) * bin_size_feature);
    return {clip(start_feature + static_cast<int64_t>(begin)), clip(start_feature + static_cast<int64_t>(end))};
  }

 private:
  ORT_ROIALIGN_HD int32_t clip(int64_t cell) const {
    return static_cast<int32_t>(cell < 0 ? 0 : (cell > end_of_bins ? end_of_bins : cell));
  }
};

// C's round, held within the integers that float32 holds without loss of range: an edge that far away is outside.
template <typename Real>
ORT_ROIALIGN_HD int64_t round_half_away(Real value) {
  constexpr Real kFarthest = 2147483648.0;
  const Real clamped = value < -kFarthest ? -kFarthest : (value > kFarthest ? kFarthest : value);
  return static_cast<int64_t>(std::round(clamped));
}

// Divides a RoI's side into bins of cells, with its ends rounded. It is at least one cell long; `end_belongs`: the last
// cell is part of it. Bins are cut off at `end_of_bins`.
template <typename Real>
ORT_ROIALIGN_HD CellAxis<Real> round_to_cells(Real low_feature, Real high_feature, bool end_belongs, int32_t bins,
                                              int32_t end_of_bins, int32_t extent) {
  const int64_t start = round_half_away(low_feature);
  const int64_t length = round_half_away(high_feature) - start + (end_belongs ? 1 : 0);
  return {start, static_cast<Real>(length > 1 ? length : 1) / static_cast<Real>(bins), end_of_bins, extent};
}

// Walks over the cells of a bin, each of weight 1: `while (taps.next()) use(taps.cell, taps.weight);`.
template <typename Real>
class CellTaps {
 public:
  int32_t cell;
  static constexpr Real weight = 1;

  ORT_ROIALIGN_HD explicit CellTaps(Range cells) : cell(cells.begin - 1), end_(cells.end) {}

  ORT_ROIALIGN_HD bool next() { return ++cell < end_; }

 private:
  int32_t end_;
};

// The cells of a RoI's bins. A sample is a cell, and the cell's place in its plane names it.
template <typename Real>
struct CellGrid {
  static constexpr bool kSeparable = true;
  static constexpr int kCellsPerSample = 1;
  using SampleType = Sample<Real, kCellsPerSample>;

  CellAxis<Real> y;
  CellAxis<Real> x;

  ORT_ROIALIGN_HD CellTaps<Real> row_taps(int32_t bin_y) const { return CellTaps<Real>(y.cells(bin_y)); }
  ORT_ROIALIGN_HD CellTaps<Real> column_taps(int32_t bin_x) const { return CellTaps<Real>(x.cells(bin_x)); }

  ORT_ROIALIGN_HD Range touched_rows(int32_t bin_y) const { return y.cells(bin_y); }
  ORT_ROIALIGN_HD Range touched_columns(int32_t bin_x) const { return x.cells(bin_x); }

  // What the sum over a bin is divided by: the number of its cells.
  ORT_ROIALIGN_HD Real divisor(int32_t bin_y, int32_t bin_x) const {
    const int64_t cells = static_cast<int64_t>(y.cells(bin_y).size()) * x.cells(bin_x).size();
    return static_cast<Real>(cells > 0 ? cells : 1);
  }

  ORT_ROIALIGN_HD SampleType sample(int32_t, int32_t, int64_t id) const { return {id, true, {id}, {1}}; }

  // Calls visit(sample) for a bin's cells in row-major order.
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

}  // namespace ort_roialign
