// Where RoIAlign's samples lie along one axis of a feature map, and what they weigh (He et al. 2017, Mask R-CNN,
// section 3; border rules and order of operations as in torchvision's and ONNX Runtime's average pooling).
//
// The order of the floating-point operations decides into which cell a sample falls, so this file must be compiled
// without contraction to fused multiply-add.
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"

namespace ort_roialign {

// The two cells next to a sample along one axis. `low` weighs 1 - fraction, `high` weighs fraction.
template <typename Real>
struct Neighbours {
  int32_t low;
  int32_t high;  // equal to `low` at the last cell
  Real fraction;
};

template <typename Real>
struct SampleAxis {
  Real start_feature;     // the RoI's edge, in cells
  Real bin_size_feature;  // in cells; negative for a mirrored RoI
  int32_t grid;           // samples a bin; 0 for a RoI without extent on an adaptive grid
  int32_t extent;         // cells of the map

  ORT_ROIALIGN_HD Real position(int32_t bin, int32_t sample) const {
    return start_feature + static_cast<Real>(bin) * bin_size_feature +
           (static_cast<Real>(sample) + static_cast<Real>(0.5)) * bin_size_feature / static_cast<Real>(grid);
  }

  // The cell in the middle of the RoI, or the nearest one of the map.
  ORT_ROIALIGN_HD int32_t middle_cell(int32_t bins) const {
    const Real middle = start_feature + bin_size_feature * static_cast<Real>(bins) / 2;
    if (!(middle > 0)) return 0;
    return middle < static_cast<Real>(extent) ? static_cast<int32_t>(middle) : extent - 1;
  }

  ORT_ROIALIGN_HD bool ascending() const { return bin_size_feature >= 0; }

  ORT_ROIALIGN_HD bool is_inside(Real position_feature) const {
    return ort_roialign::is_inside(position_feature, extent);
  }

  // Whether no sample of any bin lies outside the map: positions are monotonous in the bin, too.
  ORT_ROIALIGN_HD bool all_inside(int32_t bins) const {
    return grid > 0 && is_inside(position(0, 0)) && is_inside(position(bins - 1, grid - 1));
  }

  // The samples of a bin that lie inside the map. `position` is monotonous in the
  // sample, also after rounding: a RoI of any size costs no more than the part of it that covers the map.
  ORT_ROIALIGN_HD Range inside_samples(int32_t bin) const {
    if (grid == 0) return {0, 0};
    return inside_range(grid, extent, [&](int32_t sample) { return position(bin, sample); });
  }

  // The samples of a bin that lie at most a cell away from a cell: all that read it, also at the map's edges.
  ORT_ROIALIGN_HD Range samples_near(int32_t bin, int32_t cell) const {
    if (grid == 0) return {0, 0};
    return range_between(grid, static_cast<Real>(cell - 1), static_cast<Real>(cell + 1),
                         [&](int32_t sample) { return position(bin, sample); });
  }

  ORT_ROIALIGN_HD Neighbours<Real> neighbours(Real position_inside) const {
    const Real clamped = position_inside > 0 ? position_inside : 0;
    const int32_t low = static_cast<int32_t>(clamped);
    if (low >= extent - 1) return {extent - 1, extent - 1, 0};
    return {low, low + 1, clamped - static_cast<Real>(low)};
  }

  // The cells that a bin's samples read, as one range; cells between two samples count as touched.
  ORT_ROIALIGN_HD Range touched_cells(int32_t bin) const {
    const Range samples = inside_samples(bin);
    if (samples.empty()) return {0, 0};
    const int32_t lowest = ascending() ? samples.begin : samples.end - 1;
    const int32_t highest = ascending() ? samples.end - 1 : samples.begin;
    return {neighbours(position(bin, lowest)).low, neighbours(position(bin, highest)).high + 1};
  }
};

// What a bin's sum over its samples is divided by: their number, those outside the map included.
template <typename Real>
ORT_ROIALIGN_HD Real sample_divisor(const SampleAxis<Real>& y, const SampleAxis<Real>& x) {
  const int64_t samples = static_cast<int64_t>(y.grid) * x.grid;
  return static_cast<Real>(samples > 0 ? samples : 1);
}

// A sample between two rows and two columns of a map `width` cells wide.
template <typename Real>
ORT_ROIALIGN_HD Sample<Real, 4> bilinear_sample(int64_t id, Neighbours<Real> rows, Neighbours<Real> columns,
                                                int32_t width) {
  const int64_t upper = static_cast<int64_t>(rows.low) * width;
  const int64_t lower = static_cast<int64_t>(rows.high) * width;
  const Real upper_weight = 1 - rows.fraction;
  const Real left_weight = 1 - columns.fraction;
  return {id,
          true,
          {upper + columns.low, upper + columns.high, lower + columns.low, lower + columns.high},
          {upper_weight * left_weight, upper_weight * columns.fraction, rows.fraction * left_weight,
           rows.fraction * columns.fraction}};
}

// Walks over the cells that a bin's samples read along one axis, in ascending order, with the samples' weights for one
// cell merged into one: `while (taps.next()) use(taps.cell, taps.weight);`.
template <typename Real>
class AxisTaps {
 public:
  int32_t cell = 0;
  Real weight = 0;

  ORT_ROIALIGN_HD AxisTaps(const SampleAxis<Real>& axis, int32_t bin) : AxisTaps(axis, bin, axis.inside_samples(bin)) {}

  // `inside`: the bin's inside_samples, where they are known.
  ORT_ROIALIGN_HD AxisTaps(const SampleAxis<Real>& axis, int32_t bin, Range inside)
      : axis_(axis), bin_(bin), samples_(inside) {}

  ORT_ROIALIGN_HD bool next() {
    for (; step_ < samples_.end - samples_.begin; ++step_) {
      const int32_t sample = axis_.ascending() ? samples_.begin + step_ : samples_.end - 1 - step_;
      const Neighbours<Real> near = axis_.neighbours(axis_.position(bin_, sample));
      if (open_cell_ == kNone) open_cell_ = near.low;
      if (near.low != open_cell_) break;  // no later sample reads the open cell
      open_weight_ += 1 - near.fraction;
      next_weight_ += near.fraction;
      next_touched_ = near.high != near.low;
    }
    if (open_cell_ == kNone) return false;
    cell = open_cell_;
    weight = open_weight_;
    open_cell_ = next_touched_ ? open_cell_ + 1 : kNone;
    open_weight_ = next_weight_;
    next_weight_ = 0;
    next_touched_ = false;
    return true;
  }

 private:
  static constexpr int32_t kNone = -1;

  const SampleAxis<Real>& axis_;
  int32_t bin_;
  Range samples_;
  int32_t step_ = 0;
  // The cell that still collects weight, and what the cell after it has collected.
  int32_t open_cell_ = kNone;
  Real open_weight_ = 0;
  Real next_weight_ = 0;
  bool next_touched_ = false;  // at the last cell there is no next one
};

// Walks over the samples of a bin that lie inside the map, in order: `while (samples.next()) use(samples.cells);`.
template <typename Real>
class AxisSamples {
 public:
  Neighbours<Real> cells{};

  // `inside`: the bin's inside_samples.
  ORT_ROIALIGN_HD AxisSamples(const SampleAxis<Real>& axis, int32_t bin, Range inside)
      : axis_(axis), bin_(bin), left_(inside) {}

  ORT_ROIALIGN_HD bool next() {
    if (left_.empty()) return false;
    position_ = axis_.position(bin_, left_.begin++);
    cells = axis_.neighbours(position_);
    return true;
  }

  // The derivative of `cells.fraction` by the sample's position: none where the position is held at the first cell.
  ORT_ROIALIGN_HD Real slope() const { return position_ > 0 ? static_cast<Real>(1) : static_cast<Real>(0); }

 private:
  const SampleAxis<Real>& axis_;
  int32_t bin_;
  Range left_;
  Real position_ = 0;
};

// The number of samples a bin of an adaptive grid: one a cell, rounded up; 0 without extent.
template <typename Real>
ORT_ROIALIGN_HD int32_t adaptive_grid(Real bin_size_feature) {
  constexpr int32_t kMost = 2147483647;
  const Real samples = std::ceil(bin_size_feature);
  if (!(samples > 0)) return 0;
  return samples < static_cast<Real>(kMost) ? static_cast<int32_t>(samples) : kMost;
}

// How long a RoI counts: without `half_pixel` at least one cell.
template <typename Real>
ORT_ROIALIGN_HD Real counted_length(Real length, bool half_pixel) {
  return !half_pixel && length < 1 ? static_cast<Real>(1) : length;
}

// Lays the samples of a RoI that starts at `start` and is `length` long, in cells, along an axis of `extent` cells.
template <typename Real>
ORT_ROIALIGN_HD SampleAxis<Real> divide_into_bins(Real start, Real length, int32_t bins, int32_t sampling_ratio,
                                                  int32_t extent) {
  const Real bin_size = length / static_cast<Real>(bins);
  const int32_t grid = sampling_ratio > 0 ? sampling_ratio : adaptive_grid(bin_size);
  return {start, bin_size, grid, extent};
}

// Where an edge of a RoI lies, in cells. `half_pixel` moves RoIs by half a cell.
template <typename Real>
ORT_ROIALIGN_HD Real edge_feature(Real edge_image, Real spatial_scale, bool half_pixel) {
  return edge_image * spatial_scale - (half_pixel ? static_cast<Real>(0.5) : static_cast<Real>(0));
}

// How long a RoI's side [low_image, high_image] counts, in cells.
template <typename Real>
ORT_ROIALIGN_HD Real side_feature(Real low_image, Real high_image, Real spatial_scale, bool half_pixel) {
  const Real start = edge_feature(low_image, spatial_scale, half_pixel);
  return counted_length(edge_feature(high_image, spatial_scale, half_pixel) - start, half_pixel);
}

// Lays the samples of a RoI's side [low_image, high_image].
template <typename Real>
ORT_ROIALIGN_HD SampleAxis<Real> lay_sample_axis(Real low_image, Real high_image, Real spatial_scale, bool half_pixel,
                                                 int32_t bins, int32_t sampling_ratio, int32_t extent) {
  return divide_into_bins(edge_feature(low_image, spatial_scale, half_pixel),
                          side_feature(low_image, high_image, spatial_scale, half_pixel), bins, sampling_ratio, extent);
}

}  // namespace ort_roialign
