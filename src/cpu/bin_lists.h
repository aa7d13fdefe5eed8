// What each bin of a RoI's average reads and what it weighs: taps along both axes where the weights are products, else
// the cells of all samples.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "semantics/element_types.h"
#include "semantics/region.h"
#include "semantics/sample.h"

namespace ort_roialign::cpu {

// The taps of some bins along one axis.
template <typename Real>
class TapLists {
 public:
  struct Tap {
    int32_t cell;
    Real weight;
  };

  // `taps_of(bin)` walks over the taps of a bin.
  template <typename TapsOf>
  TapLists(Range bins, TapsOf taps_of) : first_(bins.begin) {
    ends_.reserve(bins.end - bins.begin);
    for (int32_t bin = bins.begin; bin < bins.end; ++bin) {
      for (auto taps = taps_of(bin); taps.next();) taps_.push_back({taps.cell, taps.weight});
      ends_.push_back(taps_.size());
    }
  }

  const Tap* begin(int32_t bin) const { return taps_.data() + (bin == first_ ? 0 : ends_[bin - first_ - 1]); }
  const Tap* end(int32_t bin) const { return taps_.data() + ends_[bin - first_]; }

 private:
  int32_t first_;
  std::vector<Tap> taps_;
  std::vector<size_t> ends_;
};

// The cells of bins whose weights are products.
template <typename Region, typename Real>
class SeparableBins {
 public:
  // `width` is that of the map.
  SeparableBins(const Region& region, Range bins_y, Range bins_x, int32_t width)
      : width_(width),
        rows_(bins_y, [&](int32_t bin) { return region.row_taps(bin); }),
        columns_(bins_x, [&](int32_t bin) { return region.column_taps(bin); }) {}

  // Calls body(offset in a plane, weight).
  template <typename Body>
  void for_each_cell(int32_t bin_y, int32_t bin_x, Body body) const {
    for (auto row = rows_.begin(bin_y); row != rows_.end(bin_y); ++row) {
      const int64_t first = static_cast<int64_t>(row->cell) * width_;
      for (auto column = columns_.begin(bin_x); column != columns_.end(bin_x); ++column) {
        body(first + column->cell, row->weight * column->weight);
      }
    }
  }

 private:
  int32_t width_;
  TapLists<Real> rows_;
  TapLists<Real> columns_;
};

// The cells of bins of samples, walked over anew each time; a cell that several samples read comes as often.
template <typename Region, typename Real>
class SampledBins {
 public:
  SampledBins(const Region& region, Range, Range, int32_t width) : region_(region), width_(width) {}

  template <typename Body>
  void for_each_cell(int32_t bin_y, int32_t bin_x, Body body) const {
    visit_cells(region_, bin_y, bin_x, width_, body);
  }

 private:
  const Region& region_;
  int32_t width_;
};

template <typename Region, typename Real>
using BinCells = std::conditional_t<Region::kSeparable, SeparableBins<Region, Real>, SampledBins<Region, Real>>;

// The cells of all bins of a RoI, for many channels: those of samples are kept, as far as memory allows.
template <typename Region, typename Real>
class BinLists {
 public:
  BinLists(const Region& region, int32_t bins_y, int32_t bins_x, int32_t width)
      : region_(region), bins_x_(bins_x), bins_(region, {0, bins_y}, {0, bins_x}, width) {
    if constexpr (!Region::kSeparable) keep(bins_y);
  }

  Real divisor(int32_t bin_y, int32_t bin_x) const { return region_.divisor(bin_y, bin_x); }

  template <typename T>
  Real weighted_sum(int32_t bin_y, int32_t bin_x, const T* plane) const {
    Real sum = 0;
    for_each_cell(bin_y, bin_x, [&](int64_t offset, Real weight) { sum += weight * widen(plane[offset]); });
    return sum;
  }

  void scatter(int32_t bin_y, int32_t bin_x, Real gradient, Real* plane) const {
    for_each_cell(bin_y, bin_x, [&](int64_t offset, Real weight) { plane[offset] += weight * gradient; });
  }

 private:
  // More cells are walked over anew for each channel instead of being kept: 4 MB, and half of it while the list grows.
  static constexpr size_t kMostCells = size_t{1} << 18;

  struct Cell {
    int64_t offset;  // in a plane
    Real weight;
  };

  void keep(int32_t bins_y) {
    ends_.reserve(static_cast<size_t>(bins_y) * bins_x_);
    kept_ = true;
    for (int32_t bin_y = 0; bin_y < bins_y && kept_; ++bin_y) {
      for (int32_t bin_x = 0; bin_x < bins_x_ && kept_; ++bin_x) {
        bins_.for_each_cell(bin_y, bin_x, [&](int64_t offset, Real weight) {
          if (cells_.size() < kMostCells) cells_.push_back({offset, weight});
        });
        ends_.push_back(cells_.size());
        kept_ = cells_.size() < kMostCells;
      }
    }
    if (!kept_) cells_ = {};
  }

  template <typename Body>
  void for_each_cell(int32_t bin_y, int32_t bin_x, Body body) const {
    if (!kept_) return bins_.for_each_cell(bin_y, bin_x, body);
    const size_t bin = static_cast<size_t>(bin_y) * bins_x_ + bin_x;
    for (size_t cell = bin == 0 ? 0 : ends_[bin - 1]; cell < ends_[bin]; ++cell) {
      body(cells_[cell].offset, cells_[cell].weight);
    }
  }

  const Region& region_;
  int32_t bins_x_;
  BinCells<Region, Real> bins_;
  bool kept_ = false;
  std::vector<Cell> cells_;
  std::vector<size_t> ends_;
};

}  // namespace ort_roialign::cpu
