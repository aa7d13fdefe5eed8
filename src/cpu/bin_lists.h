// What each bin of a RoI's average reads and what it weighs: taps along both axes where the weights are products, else
// the cells of all samples.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

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

}  // namespace ort_roialign::cpu
