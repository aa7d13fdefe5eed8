// Lays the taps of a RoI's bins along one axis out as the kernels of isa_kernels.h read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/isa_kernels.h"
#include "semantics/sample_axis.h"

namespace ort_roialign::cpu {

// The most that a bin of an axis can need. A bound without a look at each bin, for the tables' size.
struct BinBound {
  int64_t points;
  int64_t taps;  // a point
};

template <typename Real>
BinBound bound_bin(const SampleAxis<Real>& axis, bool maximum) {
  if (axis.grid == 0) return {0, 0};
  const double spacing = std::abs(static_cast<double>(axis.bin_size_feature)) / axis.grid;  // between samples, in cells
  const double across_map = (static_cast<double>(axis.extent) + 1) / spacing + 2;
  const int64_t samples = across_map < axis.grid ? static_cast<int64_t>(across_map) : axis.grid;
  if (maximum) return {samples, 2};
  const double across_bin = spacing * (axis.grid - 1) + 3;
  const int64_t cells = across_bin < axis.extent ? static_cast<int64_t>(across_bin) : axis.extent;
  return {1, std::min(2 * samples, cells)};
}

// Lays the taps of one axis, with the map's rows or columns for cells.
template <typename Real>
class AxisLayer {
 public:
  // The tables have room for `bins` times `bound` from `first_tap` on.
  AxisLayer(const SampleAxis<Real>& axis, int32_t bins, BinBound bound, TapTable<Real> table, int64_t first_tap)
      : axis_(axis),
        bins_(bins),
        room_(bound.points * bound.taps),
        cells_(table.cells + first_tap),
        weights_(table.weights + first_tap),
        all_inside_(axis.all_inside(bins)),
        plan_{0, 0, 0, 0, 1, 0, first_tap} {}

  // The merged taps of each bin, times `scale`.
  AxisPlan average(Real scale) {
    lay_bins([&](int32_t bin) {
      int64_t count = 0;
      for (AxisTaps<Real> taps(axis_, bin, inside_samples(bin)); taps.next() && count <= room_; ++count) {
        put(count, taps.cell, taps.weight * scale);
      }
      return count;
    });
    plan_.taps = most_;
    make_even([&](int64_t bin_first, int64_t count) {
      // The last tap is split, which reads no cell that the bin does not read.
      const int64_t copies = most_ - count + 1;
      const Real weight = weights_[bin_first + count - 1] / static_cast<Real>(copies);
      for (int64_t tap = count - 1; tap < most_; ++tap) copy(bin_first + count - 1, bin_first + tap, weight);
    });
    return plan_;
  }

  // The two taps of each sample of each bin.
  AxisPlan maximum() {
    lay_bins([&](int32_t bin) {
      int64_t count = 0;
      for (AxisSamples<Real> samples(axis_, bin, inside_samples(bin)); samples.next() && count <= room_; count += 2) {
        put(count, samples.cells.low, 1 - samples.cells.fraction);
        put(count + 1, samples.cells.high, samples.cells.fraction);
      }
      return count;
    });
    plan_.points = most_ / 2;
    plan_.taps = 2;
    find_whole_bins();
    make_even([&](int64_t bin_first, int64_t count) {
      // The last sample is repeated, which leaves a maximum as it is.
      for (int64_t tap = count; tap < most_; ++tap) {
        copy(bin_first + tap - 2, bin_first + tap, weights_[bin_first + tap - 2]);
      }
    });
    return plan_;
  }

  // Whether the bound held.
  bool fits() const { return fits_; }

 private:
  static constexpr int64_t kEnd = -1;

  Range inside_samples(int32_t bin) const { return all_inside_ ? Range{0, axis_.grid} : axis_.inside_samples(bin); }

  void put(int64_t tap, int32_t cell, Real weight) {
    if (tap >= room_) return;
    cells_[next_ + tap] = cell;
    weights_[next_ + tap] = weight;
  }

  void copy(int64_t from, int64_t to, Real weight) {
    cells_[to] = cells_[from];
    weights_[to] = weight;
  }

  // Lays bins with `room_` taps each, and finds the bins with samples inside the map and the most taps of a bin.
  template <typename LayBin>
  void lay_bins(LayBin lay_bin) {
    bool ended = false;
    for (int32_t bin = 0; bin < bins_; ++bin) {
      const int64_t count = lay_bin(bin);
      if (count == 0) {
        ended = next_ > 0;
        continue;
      }
      // Samples lie in order, so that no bin without samples inside lies between two with.
      fits_ = fits_ && count <= room_ && !ended;
      if (!fits_) return;
      if (next_ == 0) plan_.bin_begin = bin;
      plan_.bin_end = bin + 1;
      if (count < room_) cells_[next_ + count] = kEnd;
      most_ = std::max(most_, static_cast<int32_t>(count));
      next_ += room_;
    }
  }

  void find_whole_bins() {
    for (int32_t bin = plan_.bin_begin; bin < plan_.bin_end; ++bin) {
      const Range inside = inside_samples(bin);
      if (inside.begin > 0 || inside.end < axis_.grid) continue;
      if (plan_.whole_end == 0) plan_.whole_begin = bin;
      plan_.whole_end = bin + 1;
    }
  }

  // Moves the bins together to `most_` taps each; `fill(first, count)` adds what a bin lacks.
  template <typename Fill>
  void make_even(Fill fill) {
    int64_t to = 0;
    for (int64_t from = 0; fits_ && from < next_; from += room_, to += most_) {
      int64_t count = 0;
      for (; count < most_ && cells_[from + count] != kEnd; ++count)
        copy(from + count, to + count, weights_[from + count]);
      if (count < most_) fill(to, count);
    }
  }

  const SampleAxis<Real>& axis_;
  int32_t bins_;
  int64_t room_;
  int64_t* cells_;
  Real* weights_;
  bool all_inside_;
  AxisPlan plan_;
  int64_t next_ = 0;
  int32_t most_ = 0;
  bool fits_ = true;
};

}  // namespace ort_roialign::cpu
