// A sample point of a bin, and the maximum over samples: what the kernels of every sampled operator read and reduce.
#pragma once

#include <cstdint>

#include "semantics/host_device.h"

namespace ort_roialign {

// A contiguous range of samples or of cells, [begin, end).
struct Range {
  int32_t begin;
  int32_t end;

  ORT_ROIALIGN_HD bool empty() const { return begin >= end; }
  ORT_ROIALIGN_HD int32_t size() const { return empty() ? 0 : end - begin; }
  // What both have in common; empty where that is nothing.
  ORT_ROIALIGN_HD Range within(Range other) const {
    return {begin > other.begin ? begin : other.begin, end < other.end ? end : other.end};
  }
  ORT_ROIALIGN_HD bool contains(int32_t index) const { return index >= begin && index < end; }
  ORT_ROIALIGN_HD bool overlaps(Range other) const { return begin < other.end && other.begin < end; }
};

// Extends a range to one that holds another, too.
ORT_ROIALIGN_HD inline void join(Range& range, Range other) {
  if (other.empty()) return;
  const bool first = range.empty();
  range = {first || other.begin < range.begin ? other.begin : range.begin,
           first || other.end > range.end ? other.end : range.end};
}

struct CellRectangle {
  Range rows;
  Range columns;
};

// The first number below `count` for which `holds`, which must be false up to some number and true from there on.
template <typename Predicate>
ORT_ROIALIGN_HD int32_t first_where(int32_t count, Predicate holds) {
  int32_t low = 0;
  int32_t high = count;
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

// Samples up to a cell outside the map are inside: positions in [kFirstInside, last_inside(extent)]. A NaN, which only
// coordinates beyond the type's range produce, is outside.
constexpr int kFirstInside = -1;

template <typename Real>
ORT_ROIALIGN_HD Real last_inside(int32_t extent) {
  return static_cast<Real>(extent);
}

template <typename Real>
ORT_ROIALIGN_HD bool is_inside(Real position, int32_t extent) {
  return position >= kFirstInside && position <= last_inside<Real>(extent);
}

// The numbers below `count`, at least 1, whose position lies in [least, most]. Positions are monotonous in the number,
// so these are one range, and a bisection finds its ends however many there are.
template <typename Real, typename Position>
ORT_ROIALIGN_HD Range range_between(int32_t count, Real least, Real most, Position position) {
  const bool up = position(0) <= position(count - 1);
  const int32_t begin = first_where(count, [&](int32_t number) {
    const Real at = position(number);
    return up ? at >= least : at <= most;
  });
  const int32_t end = first_where(count, [&](int32_t number) {
    const Real at = position(number);
    return up ? !(at <= most) : !(at >= least);
  });
  return begin < end ? Range{begin, end} : Range{0, 0};
}

// Likewise, those that lie inside a map of `extent` cells.
template <typename Position>
ORT_ROIALIGN_HD Range inside_range(int32_t count, int32_t extent, Position position) {
  using Real = decltype(position(0));
  if (is_inside(position(0), extent) && is_inside(position(count - 1), extent)) return {0, count};
  return range_between(count, static_cast<Real>(kFirstInside), last_inside<Real>(extent), position);
}

// One sample of one bin: the cells of a channel's plane that it reads, and what each weighs.
template <typename Real, int kCells_>
struct Sample {
  static constexpr int kCells = kCells_;
  int64_t id;              // names the sample within its bin; never negative
  bool inside;             // false: outside the map, worth 0, and no cell is read
  int64_t offset[kCells];  // row * width + column of each cell
  Real weight[kCells];     // the interpolation weight of each cell

  ORT_ROIALIGN_HD static Sample outside(int64_t id) { return {id, false, {}, {}}; }
};

// The running maximum over the samples of a bin. The first of equal samples wins; a NaN wins over every number, as
// IEEE 754's `maximum` has it. A bin without samples keeps the value 0 and no winner.
template <typename Real>
struct Maximum {
  static constexpr int64_t kNoWinner = -1;

  Real value = 0;
  int64_t winner = kNoWinner;

  ORT_ROIALIGN_HD void take(Real candidate, int64_t id) {
    if (winner == kNoWinner) {
      value = candidate;
      winner = id;
    } else if (candidate != candidate) {
      winner = value != value ? winner : id;
      value = candidate;
    } else {
      // Two selections instead of a branch, which would be mispredicted half of the time.
      winner = candidate > value ? id : winner;
      value = candidate > value ? candidate : value;
    }
  }
};

}  // namespace ort_roialign
