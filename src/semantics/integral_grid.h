// The integral of the bilinear surface over the bins of a RoI (Jiang et al. 2018, IoU-Net, section 3.2, equation 5).
//
// Interpolated between the cells and falling to 0 one cell outside the map, the surface is a sum of hats, one a cell:
// hat(t) = max(0, 1 - |t - cell|). What a cell weighs in a bin is the average of its hat over the bin, along one axis
// times along the other. Each axis divides by its own size, because the area of a small bin may underflow; and by what
// lies between the edges as they are rounded, so that the weights in a bin inside the map add up to 1.
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"

namespace ort_roialign {

template <typename Real>
struct IntegralAxis {
  Real start_feature;     // the RoI's edge, in cells
  Real bin_size_feature;  // in cells; 0 for a RoI without extent
  Real cells_per_pixel;   // what an edge moves by where the RoI's edge moves by an image pixel
  int32_t bins;
  int32_t extent;  // cells of the map

  ORT_ROIALIGN_HD Real edge(int32_t bin) const { return start_feature + static_cast<Real>(bin) * bin_size_feature; }

  // The cells whose hats reach into a bin.
  ORT_ROIALIGN_HD Range touched_cells(int32_t bin) const {
    const Real low = edge(bin);
    const Real high = edge(bin + 1);
    if (!(low < high) || !(low < static_cast<Real>(extent)) || !(high > -1)) return {0, 0};
    const int32_t first = low > 0 ? static_cast<int32_t>(low) : 0;
    const Real last = static_cast<Real>(extent - 1);
    const int32_t end = high < last ? static_cast<int32_t>(std::ceil(high > 0 ? high : 0)) + 1 : extent;
    return {first, end};
  }

  // The average of a cell's hat over a bin that it reaches into: the integrals of its rising and of its falling half.
  ORT_ROIALIGN_HD Real weight(int32_t bin, int32_t cell) const {
    const Real low = edge(bin);
    const Real high = edge(bin + 1);
    const Real at = static_cast<Real>(cell);
    // Lengths are taken before the cell is subtracted, which would round them.
    const Real rising_low = hold(low, at - 1, at), rising_high = hold(high, at - 1, at);
    const Real falling_low = hold(low, at, at + 1), falling_high = hold(high, at, at + 1);
    const Real integral = (rising_high - rising_low) * (2 + (rising_low - at) + (rising_high - at)) / 2 +
                          (falling_high - falling_low) * (2 - (falling_low - at) - (falling_high - at)) / 2;
    return integral / (high - low);
  }

  // The derivative of a cell's weight, as above, by the RoI's low (0) or high (1) edge in image pixels: the quotient
  // rule, of the integral and of the bin's size that it is divided by.
  ORT_ROIALIGN_HD Real weight_slope(int32_t bin, int32_t cell, Real weight, int edge_number) const {
    const Real at = static_cast<Real>(cell);
    const Real integral_slope =
        hat(edge(bin + 1) - at) * edge_slope(bin + 1, edge_number) - hat(edge(bin) - at) * edge_slope(bin, edge_number);
    const Real size_slope = edge_slope(bin + 1, edge_number) - edge_slope(bin, edge_number);
    return (integral_slope - weight * size_slope) / (edge(bin + 1) - edge(bin));
  }

 private:
  ORT_ROIALIGN_HD Real edge_slope(int32_t bin, int edge_number) const {
    const Real part = static_cast<Real>(bin) / static_cast<Real>(bins);
    return cells_per_pixel * (edge_number == 0 ? 1 - part : part);
  }

  ORT_ROIALIGN_HD static Real hat(Real t) {
    const Real height = 1 - std::abs(t);
    return height > 0 ? height : 0;
  }

  ORT_ROIALIGN_HD static Real hold(Real t, Real least, Real most) { return t < least ? least : (t > most ? most : t); }
};

// Lays the bins of a RoI's edge [low_image, high_image]; a RoI that ends before it starts has no extent.
template <typename Real>
ORT_ROIALIGN_HD IntegralAxis<Real> lay_integral_axis(Real low_image, Real high_image, Real spatial_scale, int32_t bins,
                                                     int32_t extent) {
  const Real start = low_image * spatial_scale;
  const Real length = high_image * spatial_scale - start;
  return {start, (length > 0 ? length : 0) / static_cast<Real>(bins), spatial_scale, bins, extent};
}

// Walks over the cells that reach into a bin, in ascending order: `while (taps.next()) use(taps.cell, taps.weight);`.
template <typename Real>
class IntegralTaps {
 public:
  int32_t cell = 0;
  Real weight = 0;

  ORT_ROIALIGN_HD IntegralTaps(const IntegralAxis<Real>& axis, int32_t bin)
      : axis_(axis), bin_(bin), left_(axis.touched_cells(bin)) {}

  ORT_ROIALIGN_HD bool next() {
    if (left_.empty()) return false;
    cell = left_.begin++;
    weight = axis_.weight(bin_, cell);
    return true;
  }

 private:
  const IntegralAxis<Real>& axis_;
  int32_t bin_;
  Range left_;
};

// The bins of a RoI.
template <typename Real>
struct IntegralGrid {
  static constexpr bool kSeparable = true;

  IntegralAxis<Real> y;
  IntegralAxis<Real> x;

  ORT_ROIALIGN_HD IntegralTaps<Real> row_taps(int32_t bin_y) const { return {y, bin_y}; }
  ORT_ROIALIGN_HD IntegralTaps<Real> column_taps(int32_t bin_x) const { return {x, bin_x}; }

  ORT_ROIALIGN_HD Range touched_rows(int32_t bin_y) const { return y.touched_cells(bin_y); }
  ORT_ROIALIGN_HD Range touched_columns(int32_t bin_x) const { return x.touched_cells(bin_x); }

  ORT_ROIALIGN_HD Real divisor(int32_t, int32_t) const { return 1; }  // the weights are averages already

  // Calls visit(cell, slopes) for all cells that a bin reads: slopes[number] is the derivative of the cell's weight in
  // the bin by number 0 to 3 of the RoI, x1, y1, x2, y2 in image pixels.
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_slopes(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
    for (auto row = row_taps(bin_y); row.next();) {
      for (auto column = column_taps(bin_x); column.next();) {
        Real slopes[4];
        for (int edge = 0; edge < 2; ++edge) {
          slopes[2 * edge] = row.weight * x.weight_slope(bin_x, column.cell, column.weight, edge);
          slopes[2 * edge + 1] = y.weight_slope(bin_y, row.cell, row.weight, edge) * column.weight;
        }
        visit(static_cast<int64_t>(row.cell) * x.extent + column.cell, slopes);
      }
    }
  }
};

}  // namespace ort_roialign
