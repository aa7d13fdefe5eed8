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
  ORT_ROIALIGN_HD bool contains(int32_t index) const { return index >= begin && index < end; }
  ORT_ROIALIGN_HD bool overlaps(Range other) const { return begin < other.end && other.begin < end; }
};

// One sample of one bin: the cells of a channel's plane that it reads, and what each weighs.
template <typename Real, int kCells>
struct Sample {
  int64_t id;              // names the sample within its bin; never negative
  bool inside;             // false: outside the map, worth 0, and no cell is read
  int64_t offset[kCells];  // row * width + column of each cell
  Real weight[kCells];     // the interpolation weight of each cell
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
