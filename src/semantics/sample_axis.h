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

  ORT_ROIALIGN_HD bool ascending() const { return bin_size_feature >= 0; }

  // A NaN, which only coordinates beyond the type's range produce, is outside.
  ORT_ROIALIGN_HD bool is_inside(Real position_feature) const {
    return position_feature >= -1 && position_feature <= static_cast<Real>(extent);
  }

  // The samples of a bin that lie in [-1, extent]; the others are outside the map. `position` is monotonous in the
  // sample, also after rounding, so they are one range, and a bisection finds its ends: a RoI of any size costs no more
  // than the part of it that covers the map.
  ORT_ROIALIGN_HD Range inside_samples(int32_t bin) const {
    if (grid == 0) return {0, 0};
    if (is_inside(position(bin, 0)) && is_inside(position(bin, grid - 1))) return {0, grid};
    const Real last = static_cast<Real>(extent);
    const bool up = ascending();
    const int32_t begin = first_sample_where([&](int32_t sample) {
      const Real at = position(bin, sample);
      return up ? at >= -1 : at <= last;
    });
    const int32_t end = first_sample_where([&](int32_t sample) {
      const Real at = position(bin, sample);
      return up ? !(at <= last) : !(at >= -1);
    });
    return begin < end ? Range{begin, end} : Range{0, 0};
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

  // Calls visit(cell, weight) for each cell that a bin's samples read, in ascending order of the cells, with the
  // samples' weights for one cell merged into one.
  template <typename Visit>
  ORT_ROIALIGN_HD void visit_taps(int32_t bin, Visit&& visit) const {
    const Range samples = inside_samples(bin);
    const int32_t count = samples.end - samples.begin;
    int32_t cell = -2;  // the lower of the two cells still collecting; none yet
    Real weight = 0;
    Real next_weight = 0;
    bool next_touched = false;  // at the last cell there is no next one
    for (int32_t step = 0; step < count; ++step) {
      const int32_t sample = ascending() ? samples.begin + step : samples.end - 1 - step;
      const Neighbours<Real> near = neighbours(position(bin, sample));
      if (near.low != cell) {
        if (cell >= 0) visit(cell, weight);
        const bool carries_over = near.low == cell + 1;
        if (next_touched && !carries_over) visit(cell + 1, next_weight);
        weight = next_touched && carries_over ? next_weight : 0;
        next_weight = 0;
        next_touched = false;
        cell = near.low;
      }
      weight += 1 - near.fraction;
      next_weight += near.fraction;
      next_touched = near.high != near.low;
    }
    if (cell >= 0) visit(cell, weight);
    if (next_touched) visit(cell + 1, next_weight);
  }

 private:
  // The first sample for which `holds`, which must be false up to some sample and true from there on.
  template <typename Predicate>
  ORT_ROIALIGN_HD int32_t first_sample_where(Predicate holds) const {
    int32_t low = 0;
    int32_t high = grid;
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (holds(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

// The number of samples a bin of an adaptive grid: one a cell, rounded up; 0 without extent.
template <typename Real>
ORT_ROIALIGN_HD int32_t adaptive_grid(Real bin_size_feature) {
  constexpr int32_t kMost = 2147483647;
  const Real samples = std::ceil(bin_size_feature);
  if (!(samples > 0)) return 0;
  return samples < static_cast<Real>(kMost) ? static_cast<int32_t>(samples) : kMost;
}

// Lays the samples of a RoI's edge [low_image, high_image] along an axis of `extent` cells. `half_pixel` moves the RoI
// by half a cell; without it a RoI is at least one cell long.
template <typename Real>
ORT_ROIALIGN_HD SampleAxis<Real> lay_sample_axis(Real low_image, Real high_image, Real spatial_scale, bool half_pixel,
                                                 int32_t bins, int32_t sampling_ratio, int32_t extent) {
  const Real offset = half_pixel ? static_cast<Real>(0.5) : static_cast<Real>(0);
  const Real start = low_image * spatial_scale - offset;
  const Real end = high_image * spatial_scale - offset;
  Real length = end - start;
  if (!half_pixel && length < 1) length = 1;
  const Real bin_size = length / static_cast<Real>(bins);
  const int32_t grid = sampling_ratio > 0 ? sampling_ratio : adaptive_grid(bin_size);
  return {start, bin_size, grid, extent};
}

}  // namespace ort_roialign
