// What each bin of a RoI's average reads and what it weighs, laid once for many channels: taps along both axes where
// the weights are products, else the cells of all samples.
#pragma once

#include <cstdint>
#include <vector>

#include "semantics/element_types.h"

namespace ort_roialign::cpu {

// The taps of all bins along one axis.
template <typename Real>
class TapLists {
 public:
  struct Tap {
    int32_t cell;
    Real weight;
  };

  // `taps_of(bin)` walks over the taps of a bin.
  template <typename TapsOf>
  TapLists(int32_t bins, TapsOf taps_of) {
    ends_.reserve(bins);
    for (int32_t bin = 0; bin < bins; ++bin) {
      for (auto taps = taps_of(bin); taps.next();) taps_.push_back({taps.cell, taps.weight});
      ends_.push_back(taps_.size());
    }
  }

  const Tap* begin(int32_t bin) const { return taps_.data() + (bin == 0 ? 0 : ends_[bin - 1]); }
  const Tap* end(int32_t bin) const { return taps_.data() + ends_[bin]; }

 private:
  std::vector<Tap> taps_;
  std::vector<size_t> ends_;
};

template <typename Region, typename Real, bool kSeparable = Region::kSeparable>
class BinLists;

template <typename Region, typename Real>
class BinLists<Region, Real, true> {
 public:
  // `width` is that of the map.
  BinLists(const Region& region, int32_t bins_y, int32_t bins_x, int32_t width)
      : region_(region),
        width_(width),
        rows_(bins_y, [&](int32_t bin) { return region.row_taps(bin); }),
        columns_(bins_x, [&](int32_t bin) { return region.column_taps(bin); }) {}

  Real divisor(int32_t bin_y, int32_t bin_x) const { return region_.divisor(bin_y, bin_x); }

  template <typename T>
  Real weighted_sum(int32_t bin_y, int32_t bin_x, const T* plane) const {
    Real sum = 0;
    for (auto row = rows_.begin(bin_y); row != rows_.end(bin_y); ++row) {
      const T* cells = plane + static_cast<int64_t>(row->cell) * width_;
      Real row_sum = 0;
      for (auto column = columns_.begin(bin_x); column != columns_.end(bin_x); ++column) {
        row_sum += column->weight * widen(cells[column->cell]);
      }
      sum += row->weight * row_sum;
    }
    return sum;
  }

  void scatter(int32_t bin_y, int32_t bin_x, Real gradient, Real* plane) const {
    for (auto row = rows_.begin(bin_y); row != rows_.end(bin_y); ++row) {
      Real* cells = plane + static_cast<int64_t>(row->cell) * width_;
      const Real row_gradient = row->weight * gradient;
      for (auto column = columns_.begin(bin_x); column != columns_.end(bin_x); ++column) {
        cells[column->cell] += column->weight * row_gradient;
      }
    }
  }

 private:
  const Region& region_;
  int32_t width_;
  TapLists<Real> rows_;
  TapLists<Real> columns_;
};

template <typename Region, typename Real>
class BinLists<Region, Real, false> {
 public:
  BinLists(const Region& region, int32_t bins_y, int32_t bins_x, int32_t) : region_(region), bins_x_(bins_x) {
    ends_.reserve(static_cast<size_t>(bins_y) * bins_x);
    for (int32_t bin_y = 0; bin_y < bins_y && listed_; ++bin_y) {
      for (int32_t bin_x = 0; bin_x < bins_x && listed_; ++bin_x) {
        visit(bin_y, bin_x, [&](int64_t offset, Real weight) {
          if (cells_.size() < kMostCells) cells_.push_back({offset, weight});
        });
        ends_.push_back(cells_.size());
        listed_ = cells_.size() < kMostCells;
      }
    }
    if (!listed_) cells_ = {};
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
  // More cells are laid anew for each channel instead of being kept: 16 MB.
  static constexpr size_t kMostCells = size_t{1} << 20;

  struct Cell {
    int64_t offset;  // in a plane
    Real weight;
  };

  template <typename Body>
  void visit(int32_t bin_y, int32_t bin_x, Body body) const {
    region_.visit_samples(bin_y, bin_x, [&](const auto& sample) {
      for (int cell = 0; sample.inside && cell < sample.kCells; ++cell) body(sample.offset[cell], sample.weight[cell]);
    });
  }

  template <typename Body>
  void for_each_cell(int32_t bin_y, int32_t bin_x, Body body) const {
    if (!listed_) return visit(bin_y, bin_x, body);
    const size_t bin = static_cast<size_t>(bin_y) * bins_x_ + bin_x;
    for (size_t cell = bin == 0 ? 0 : ends_[bin - 1]; cell < ends_[bin]; ++cell) {
      body(cells_[cell].offset, cells_[cell].weight);
    }
  }

  const Region& region_;
  int32_t bins_x_;
  bool listed_ = true;
  std::vector<Cell> cells_;
  std::vector<size_t> ends_;
};

}  // namespace ort_roialign::cpu
