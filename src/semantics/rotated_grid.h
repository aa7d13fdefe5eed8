// The samples of a rotated RoI: a grid as RoIAlign's, turned about the RoI's centre (detectron2 ROIAlignRotated; mmcv
// RoIAlignRotated).
//
// Sine and cosine are rounded from float64, so that processors and GPUs agree on them in float32, for angles up to some
// 10^7 radians.
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"
#include "semantics/sample_axis.h"

namespace ort_roialign {

struct SineAndCosine {
  double sine;
  double cosine;
};

ORT_ROIALIGN_HD inline SineAndCosine sine_and_cosine(double radians) {
#ifdef __CUDA_ARCH__
  // sin() keeps room in local memory for the digits of pi, which angles of any size may need.
  constexpr double kPi = 3.141592653589793;
  SineAndCosine both;
  sincospi(radians / kPi, &both.sine, &both.cosine);
  return both;
#else
  return {std::sin(radians), std::cos(radians)};
#endif
}

template <typename Real>
struct RotatedGrid {
  static constexpr bool kSeparable = false;
  static constexpr int kCellsPerSample = 4;
  using SampleType = Sample<Real, kCellsPerSample>;

  SampleAxis<Real> y;  // from the centre, along the RoI's own axes
  SampleAxis<Real> x;
  Real centre_y_feature;
  Real centre_x_feature;
  Real sine;
  Real cosine;

  ORT_ROIALIGN_HD Real divisor(int32_t, int32_t) const { return sample_divisor(y, x); }

  ORT_ROIALIGN_HD SampleType sample(int32_t bin_y, int32_t bin_x, int64_t id) const {
    return sample_at(id, y.position(bin_y, static_cast<int32_t>(id / x.grid)),
                     x.position(bin_x, static_cast<int32_t>(id % x.grid)));
  }

  // Calls visit(sample) for a bin's samples in row-major order. Of the samples outside the map, which are all worth
  // 0, only the first is visited.
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_samples(int32_t bin_y, int32_t bin_x, Visit&& visit) const {
    if (y.grid == 0 || x.grid == 0) return;
    const Range rows = reaching_rows(bin_y, bin_x);
    bool visited_outside = false;
    const auto visit_outside = [&](int64_t id) {
      if (!visited_outside) visit(SampleType::outside(id));
      visited_outside = true;
    };
    if (rows.begin > 0 || rows.empty()) visit_outside(0);
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      const Real along_y = y.position(bin_y, row);
      const Range columns = inside_columns(bin_x, along_y);
      const int64_t first_id = static_cast<int64_t>(row) * x.grid;
      if (columns.begin > 0 || columns.empty()) visit_outside(first_id);
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        const SampleType sample = sample_at(first_id + column, along_y, x.position(bin_x, column));
        if (sample.inside) {
          visit(sample);
        } else {
          visit_outside(sample.id);
        }
      }
      if (columns.end < x.grid) visit_outside(first_id + columns.end);
    }
    if (rows.end < y.grid) visit_outside(static_cast<int64_t>(rows.end) * x.grid);
  }

  // Calls visit(sample) for those of a bin's samples that read a cell, and perhaps some more, in row-major order.
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_samples_near(int32_t bin_y, int32_t bin_x, int32_t cell_y, int32_t cell_x,
                                          Visit&& visit) const {
    if (y.grid == 0 || x.grid == 0) return;
    // They lie at most a cell away along the map's axes; along the RoI's own, that is a turned square.
    const double from_centre_y = cell_y - static_cast<double>(centre_y_feature);
    const double from_centre_x = cell_x - static_cast<double>(centre_x_feature);
    const double reach = std::abs(static_cast<double>(cosine)) + std::abs(static_cast<double>(sine)) + rounding();
    const auto near = [&](const SampleAxis<Real>& axis, int32_t bin, double along) {
      return range_between(axis.grid, static_cast<Real>(along - reach), static_cast<Real>(along + reach),
                           [&](int32_t sample) { return axis.position(bin, sample); });
    };
    const Range rows = near(y, bin_y, from_centre_y * cosine + from_centre_x * sine);
    const Range columns = near(x, bin_x, from_centre_x * cosine - from_centre_y * sine);
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        visit(
            sample_at(static_cast<int64_t>(row) * x.grid + column, y.position(bin_y, row), x.position(bin_x, column)));
      }
    }
  }

  // A rectangle that holds all cells that a bin's samples read.
  ORT_ROIALIGN_HD CellRectangle touched(int32_t bin_y, int32_t bin_x) const {
    if (y.grid == 0 || x.grid == 0) return {{0, 0}, {0, 0}};
    Real low_y = 0, high_y = 0, low_x = 0, high_x = 0;
    for (int corner = 0; corner < 4; ++corner) {
      const Real along_y = y.position(bin_y, corner < 2 ? 0 : y.grid - 1);
      const Real along_x = x.position(bin_x, corner % 2 == 0 ? 0 : x.grid - 1);
      const Real at_y = y_feature(along_y, along_x);
      const Real at_x = x_feature(along_y, along_x);
      if (corner == 0 || at_y < low_y) low_y = at_y;
      if (corner == 0 || at_y > high_y) high_y = at_y;
      if (corner == 0 || at_x < low_x) low_x = at_x;
      if (corner == 0 || at_x > high_x) high_x = at_x;
    }
    return {cells_between(low_y, high_y, y.extent), cells_between(low_x, high_x, x.extent)};
  }

 private:
  ORT_ROIALIGN_HD Real y_feature(Real along_y, Real along_x) const {
    return along_y * cosine - along_x * sine + centre_y_feature;
  }
  ORT_ROIALIGN_HD Real x_feature(Real along_y, Real along_x) const {
    return along_y * sine + along_x * cosine + centre_x_feature;
  }

  ORT_ROIALIGN_HD SampleType sample_at(int64_t id, Real along_y, Real along_x) const {
    const Real at_y = y_feature(along_y, along_x);
    const Real at_x = x_feature(along_y, along_x);
    if (!y.is_inside(at_y) || !x.is_inside(at_x)) return SampleType::outside(id);
    return bilinear_sample(id, y.neighbours(at_y), x.neighbours(at_x), x.extent);
  }

  // The samples of a row that may lie inside the map: along a row both coordinates are monotonous, also after rounding.
  ORT_ROIALIGN_HD Range inside_columns(int32_t bin_x, Real along_y) const {
    const Range by_y =
        inside_range(x.grid, y.extent, [&](int32_t column) { return y_feature(along_y, x.position(bin_x, column)); });
    const Range by_x =
        inside_range(x.grid, x.extent, [&](int32_t column) { return x_feature(along_y, x.position(bin_x, column)); });
    const Range both = by_y.within(by_x);
    return both.empty() ? Range{0, 0} : both;
  }

  // The rows of a bin's grid that may reach into the map, so that a RoI of any size costs no more than the part of it
  // that covers the map, and a margin for rounding.
  ORT_ROIALIGN_HD Range reaching_rows(int32_t bin_y, int32_t bin_x) const {
    constexpr int32_t kFewRows = 64;
    if (y.grid <= kFewRows) return {0, y.grid};
    const Range near = rows_near_map(bin_y);
    const Range by_y =
        rows_spanning(bin_y, bin_x, y.extent, [&](Real along_y, Real along_x) { return y_feature(along_y, along_x); });
    const Range by_x =
        rows_spanning(bin_y, bin_x, x.extent, [&](Real along_y, Real along_x) { return x_feature(along_y, along_x); });
    const Range rows = near.within(by_y).within(by_x);
    return rows.empty() ? Range{0, 0} : rows;
  }

  // The rows whose line, if it were endless, meets the map.
  ORT_ROIALIGN_HD Range rows_near_map(int32_t bin_y) const {
    double low = 0;
    double high = 0;
    for (int corner = 0; corner < 4; ++corner) {
      const double from_centre_y =
          (corner < 2 ? kFirstInside : last_inside<double>(y.extent)) - static_cast<double>(centre_y_feature);
      const double from_centre_x =
          (corner % 2 == 0 ? kFirstInside : last_inside<double>(x.extent)) - static_cast<double>(centre_x_feature);
      const double along = from_centre_y * cosine + from_centre_x * sine;
      if (corner == 0 || along < low) low = along;
      if (corner == 0 || along > high) high = along;
    }
    const double margin = 1 + rounding();
    return range_between(y.grid, static_cast<Real>(low - margin), static_cast<Real>(high + margin),
                         [&](int32_t row) { return y.position(bin_y, row); });
  }

  // How far, in cells, rounding can move a sample: some units in the last place of the coordinates.
  ORT_ROIALIGN_HD double rounding() const {
    constexpr double kUnits = sizeof(Real) == sizeof(float) ? 1e-6 : 2e-15;
    return kUnits * (std::abs(static_cast<double>(centre_y_feature)) + std::abs(static_cast<double>(centre_x_feature)) +
                     std::abs(static_cast<double>(y.start_feature)) + std::abs(static_cast<double>(x.start_feature)));
  }

  // The rows that are not with both ends on one side of the map, along one of its axes: at the ends, too, coordinates
  // are monotonous in the row.
  template <typename Coordinate>
  ORT_ROIALIGN_HD Range rows_spanning(int32_t bin_y, int32_t bin_x, int32_t extent, Coordinate coordinate) const {
    const auto at = [&](int32_t row, bool higher) {
      const Real along_y = y.position(bin_y, row);
      const Real first = coordinate(along_y, x.position(bin_x, 0));
      const Real last = coordinate(along_y, x.position(bin_x, x.grid - 1));
      return (first > last) == higher ? first : last;
    };
    const Real end = last_inside<Real>(extent);
    const bool up = at(0, true) <= at(y.grid - 1, true);
    const int32_t first =
        first_where(y.grid, [&](int32_t row) { return up ? at(row, true) >= kFirstInside : at(row, false) <= end; });
    const int32_t past =
        first_where(y.grid, [&](int32_t row) { return up ? at(row, false) > end : at(row, true) < kFirstInside; });
    return {first, past};
  }

  // The cells that samples between two coordinates read; none where all lie outside the map.
  ORT_ROIALIGN_HD static Range cells_between(Real low, Real high, int32_t extent) {
    if (!(high >= kFirstInside) || !(low <= last_inside<Real>(extent))) return {0, 0};
    const int32_t first = low > 1 ? static_cast<int32_t>(low) - 1 : 0;  // a margin of a cell for rounding
    const Real last = static_cast<Real>(extent - 3);
    return {first < extent ? first : extent - 1, high < last ? static_cast<int32_t>(high > 0 ? high : 0) + 3 : extent};
  }
};

}  // namespace ort_roialign
