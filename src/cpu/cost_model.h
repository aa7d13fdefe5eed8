// Chooses between pooling out of the map's own planes and pooling out of repacked blocks.
//
// Repacking pays a price for each cell that any RoI reads, once, and then sums rows faster. The prices are nanoseconds
// of one thread, fitted to the times of 960 random problems in float32 with AVX-512 on a processor of 2022. Only their
// ratios matter, and `ort-roialign bench` shows what the choice costs.
#pragma once

#include <algorithm>
#include <cmath>

namespace ort_roialign::cpu {

// Sums over RoIs, for one group of channels: as many as a cache line holds.
struct Work {
  double rois = 0;
  double bins = 0;         // of the output
  double squares = 0;      // of bins and channels that are transposed for the output
  double strip_taps = 0;   // column taps of all strips
  double cells = 0;        // packed: that any RoI reads
  double row_cells = 0;    // packed: cells of all rows that are summed to strips
  double strip_cells = 0;  // packed: cells of all strips
  double row_steps = 0;    // direct: vectors of all rows that are summed to strips
  double strip_steps = 0;  // direct: vectors of all strips

  void add(const Work& other) {
    rois += other.rois;
    bins += other.bins;
    squares += other.squares;
    strip_taps += other.strip_taps;
    cells += other.cells;
    row_cells += other.row_cells;
    strip_cells += other.strip_cells;
    row_steps += other.row_steps;
    strip_steps += other.strip_steps;
  }
};

// How much of a map lies beyond the caches: nothing below 2 MB, all of it from 32 MB on.
inline double far_part(double map_bytes) { return std::clamp(std::log2(map_bytes / (1 << 21)) / 4, 0.0, 1.0); }

struct Prices {
  double packed_cell;
  double packed_far_cell;  // more than a cell in the caches, likewise below
  double packed_row_cell;
  double packed_strip_cell;
  double packed_strip_tap;
  double packed_bin;
  double packed_square;
  double packed_roi;       // laying its taps, mostly
  double direct_row_step;  // and channel
  double direct_far_row_step;
  double direct_strip_step;
  double direct_strip_tap;
  double direct_bin;
  double direct_square;
  double direct_roi;
};

constexpr Prices kAveragePrices = {1.7, 3.0, 0.71, 0.84, 1.06, 0.86, 32.5, 172, 0.84, 1.5, 28, 0.66, 0, 36, 124};
constexpr Prices kMaximumPrices = {1.8, 3.0, 0.4, 0.9, 0.77, 2.05, 35.6, 182, 0.63, 1.5, 22.3, 0.94, 0.68, 53, 111};

// Of a call: finding out which cells are repacked where, and handing out blocks.
constexpr double kPackedCallPrice = 550;

// Work of less than this stays on one thread.
constexpr double kLeastParallelNanoseconds = 8e3;

// Of a task for a thread.
constexpr double kNanosecondsPerTask = 20e3;

// Of pooling RoIs, once the cells are repacked.
inline double packed_pool_cost(const Prices& prices, const Work& work, double groups) {
  return prices.packed_roi * work.rois +
         groups * (prices.packed_row_cell * work.row_cells + prices.packed_strip_cell * work.strip_cells +
                   prices.packed_strip_tap * work.strip_taps + prices.packed_bin * work.bins +
                   prices.packed_square * work.squares);
}

// `far` is the map's far_part. Repacking reads each line once and fills as much memory again, so for it caches end
// earlier: at 8 MB.
inline double packed_cost(const Prices& prices, const Work& work, double groups, double far) {
  const double cell = prices.packed_cell + std::min(2 * far, 1.0) * prices.packed_far_cell;
  return kPackedCallPrice + groups * cell * work.cells + packed_pool_cost(prices, work, groups);
}

inline double direct_cost(const Prices& prices, const Work& work, double groups, double far, double channels) {
  return prices.direct_roi * work.rois +
         channels * (prices.direct_row_step + far * prices.direct_far_row_step) * work.row_steps +
         groups * (prices.direct_strip_step * work.strip_steps + prices.direct_strip_tap * work.strip_taps +
                   prices.direct_bin * work.bins + prices.direct_square * work.squares);
}

// Of so few channels that bins lie side by side in a vector, a RoI. `row_steps` are vectors of all rows that it sums.
inline double few_channels_cost(double bins, double row_steps, double channels) {
  return 300 + channels * (5 * bins + 2 * row_steps);
}

// Of pooling, or spreading a gradient, cell by cell: sums over RoIs. The prices are set by hand, to the times of some
// 25 problems of all operators.
struct ListWork {
  double cells = 0;         // that are repacked, of one group of channels
  double listed_cells = 0;  // of all bins
  double bins = 0;
};

struct ListPrices {
  double packed_cell;  // a group of channels, likewise below
  double packed_listed;
  double packed_bin;
  double plain_listed;  // a channel, likewise below
  double plain_bin;
};

constexpr ListPrices kForwardListPrices = {2.5, 1.1, 3, 0.9, 2};
constexpr ListPrices kBackwardListPrices = {4, 1.6, 3, 1.3, 2};

inline double packed_list_cost(const ListPrices& prices, const ListWork& work, double groups) {
  return groups *
         (prices.packed_cell * work.cells + prices.packed_listed * work.listed_cells + prices.packed_bin * work.bins);
}

inline double plain_list_cost(const ListPrices& prices, const ListWork& work, double channels) {
  return channels * (prices.plain_listed * work.listed_cells + prices.plain_bin * work.bins);
}

}  // namespace ort_roialign::cpu
