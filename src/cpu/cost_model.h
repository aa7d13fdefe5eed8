// Chooses between pooling out of the map's own planes and pooling out of repacked blocks.
//
// Repacking pays a price for each cell that any RoI reads, once, and then little for a tap; without it each RoI pays
// for each row that it sums. The prices are nanoseconds of one thread, fitted to the times of 480 random problems in
// float32 with AVX-512 on a processor of 2022; but cells cost a quarter more than fitted, because in a model, unlike in
// a loop, the map is seldom in the caches. Only the prices' ratios matter, and `ort-roialign bench` shows what the
// choice costs.
#pragma once

namespace ort_roialign::cpu {

// Sums over RoIs, for one group of channels: as many as a cache line holds.
struct Work {
  double rois = 0;
  double bins = 0;         // of the output
  double squares = 0;      // of bins and channels that are transposed for the output
  double taps = 0;         // packed: rows times columns, of all bins
  double cells = 0;        // packed: that any RoI reads
  double row_steps = 0;    // direct: vectors of a row of the map, for all row taps
  double strip_steps = 0;  // direct: vectors of a strip
  double strip_taps = 0;   // direct: column taps of all strips
  double lane_taps = 0;    // few channels: column taps, of all lanes
  double picks = 0;        // few channels: vectors of column taps, for all rows of bins

  void add(const Work& other) {
    rois += other.rois;
    bins += other.bins;
    squares += other.squares;
    taps += other.taps;
    cells += other.cells;
    row_steps += other.row_steps;
    strip_steps += other.strip_steps;
    strip_taps += other.strip_taps;
    lane_taps += other.lane_taps;
    picks += other.picks;
  }
};

struct Prices {
  double packed_cell;
  double packed_bin;
  double packed_tap;
  double packed_square;
  double direct_row_step;  // and channel
  double direct_strip_step;
  double direct_strip_tap;
  double direct_bin;
  double direct_square;
};

constexpr Prices kAveragePrices = {3.2, 2.1, 0.74, 21, 0.78, 28, 1.3, 1.2, 34};
constexpr Prices kMaximumPrices = {3.4, 5.7, 0.44, 23, 0.51, 27, 1.6, 1.7, 38};

// Of a RoI: laying its taps, mostly.
constexpr double kPackedRoiPrice = 190;
constexpr double kDirectRoiPrice = 150;

// Work of less than this stays on one thread.
constexpr double kLeastParallelNanoseconds = 20e3;
// The threads wait for one another between repacking and pooling.
constexpr double kPackedWaitPrice = 10e3;

inline double packed_cost(const Prices& prices, const Work& work, double groups) {
  const double cost =
      kPackedRoiPrice * work.rois + groups * (prices.packed_cell * work.cells + prices.packed_bin * work.bins +
                                              prices.packed_tap * work.taps + prices.packed_square * work.squares);
  return cost < kLeastParallelNanoseconds ? cost : cost + kPackedWaitPrice;
}

inline double direct_cost(const Prices& prices, const Work& work, double groups, double channels) {
  return kDirectRoiPrice * work.rois + channels * prices.direct_row_step * work.row_steps +
         groups * (prices.direct_strip_step * work.strip_steps + prices.direct_strip_tap * work.strip_taps +
                   prices.direct_bin * work.bins + prices.direct_square * work.squares);
}

// Prices of few channels, for averages and maxima alike; all but the first for each channel.
constexpr double kFewLaneTapPrice = 0.58;
constexpr double kFewRowStepPrice = 6;
constexpr double kFewPickPrice = 2.6;
constexpr double kFewBinPrice = 1;

// Of so few channels that bins lie side by side in a vector.
inline double few_channels_cost(const Work& work, double channels) {
  return kDirectRoiPrice * work.rois + kFewLaneTapPrice * work.lane_taps +
         channels * (kFewRowStepPrice * work.row_steps + kFewPickPrice * work.picks + kFewBinPrice * work.bins);
}

}  // namespace ort_roialign::cpu
