// The CUDA kernel of the maps' gradients: a thread owns one cell of a map on a few channels and collects what the RoIs'
// bins send it, in the order of the RoIs: no atomic addition, so two runs give the same bits. A RoI that breaks the
// contract sends none.
#pragma once

#include <cstdint>

#include "cuda/tasks.cuh"
#include "semantics/element_types.h"
#include "semantics/sample.h"

namespace ort_roialign::cuda {

// A cell that a thread of a backward kernel owns, on a few channels.
struct Cell {
  int32_t y;
  int32_t x;
};

// What an average sends to one cell: each bin's gradient times the cell's weight in the bin.
template <typename Op, typename T>
struct AverageGradient {
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;

  const T* output_gradient;

  // Moves on to a cell's tap. A cell between two samples has none, and gets nothing: not even 0 * infinity.
  template <typename Taps>
  ORT_ROIALIGN_HD static bool reach(Taps& taps, int32_t cell) {
    while (taps.next()) {
      if (taps.cell == cell) return true;
    }
    return false;
  }

  // What a cell weighs in a bin. `reached` stays false where no sample reads it.
  ORT_ROIALIGN_HD static Real weight(const Region& region, int32_t bin_y, int32_t bin_x, Cell cell, int32_t width,
                                     bool& reached) {
    if constexpr (Region::kSeparable) {
      auto row = region.row_taps(bin_y);
      auto column = region.column_taps(bin_x);
      reached = reach(row, cell.y) && reach(column, cell.x);
      return reached ? row.weight * column.weight : 0;
    } else {
      const int64_t place = static_cast<int64_t>(cell.y) * width + cell.x;
      Real sum = 0;
      region.visit_samples_near(bin_y, bin_x, cell.y, cell.x, [&](const auto& sample) {
        for (int corner = 0; sample.inside && corner < sample.kCells; ++corner) {
          if (sample.offset[corner] != place) continue;
          sum += sample.weight[corner];
          reached = true;
        }
      });
      return sum;
    }
  }

  ORT_ROIALIGN_HD void add(const ProblemType& problem, const Region& region, int64_t roi, int32_t bin_y, int32_t bin_x,
                           Cell cell, ChannelGroup channels, Real (&sums)[kChannels]) const {
    bool reached = false;
    const int32_t width = problem.map(region.map_number).width;
    const Real share = weight(region, bin_y, bin_x, cell, width, reached) / region.divisor(bin_y, bin_x);
    if (!reached) return;
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel < channels.count) {
        const int64_t bin = problem.bin_offset(roi, channels.first + channel, bin_y, bin_x);
        sums[channel] += share * widen(output_gradient[bin]);
      }
    }
  }
};

// What a maximum sends to one cell: the bin's gradient times the cell's weight in the winning sample.
template <typename Op, typename T>
struct MaximumGradient {
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;

  const T* output_gradient;
  const int64_t* winners;

  ORT_ROIALIGN_HD void add(const ProblemType& problem, const Region& region, int64_t roi, int32_t bin_y, int32_t bin_x,
                           Cell cell, ChannelGroup channels, Real (&sums)[kChannels]) const {
    const int64_t offset = static_cast<int64_t>(cell.y) * problem.map(region.map_number).width + cell.x;
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel >= channels.count) continue;
      const int64_t bin = problem.bin_offset(roi, channels.first + channel, bin_y, bin_x);
      if (winners[bin] == Maximum<Real>::kNoWinner) continue;
      const auto winner = region.sample(bin_y, bin_x, winners[bin]);
      if (!winner.inside) continue;
      for (int corner = 0; corner < winner.kCells; ++corner) {
        if (winner.offset[corner] == offset) {
          sums[channel] += winner.weight[corner] * widen(output_gradient[bin]);
        }
      }
    }
  }
};

// The RoIs that a block looks at together: each thread tests one of them against the block's tile.
template <typename Region>
struct RoiBatch {
  Region regions[kThreads];
  bool touches_tile[kThreads];
};

// The bins of a RoI, and what they touch of a map.
template <typename Region>
struct TouchedBins {
  const Region& region;
  int32_t bins_y;
  int32_t bins_x;

  // Whether any bin touches a tile.
  ORT_ROIALIGN_HD bool any_touches(CellRectangle tile) const {
    if constexpr (Region::kSeparable) {
      return any(bins_y, [&](int32_t bin) { return region.touched_rows(bin).overlaps(tile.rows); }) &&
             any(bins_x, [&](int32_t bin) { return region.touched_columns(bin).overlaps(tile.columns); });
    } else {
      return any(bins_y, [&](int32_t bin_y) {
        return any(bins_x, [&](int32_t bin_x) {
          const CellRectangle touched = region.touched(bin_y, bin_x);
          return touched.rows.overlaps(tile.rows) && touched.columns.overlaps(tile.columns);
        });
      });
    }
  }

  // Calls body(bin_y, bin_x) for the bins that touch a cell, and perhaps some more.
  template <typename Body>
  ORT_ROIALIGN_HD void for_each_touching(Cell cell, Body body) const {
    for (int32_t bin_y = 0; bin_y < bins_y; ++bin_y) {
      if constexpr (Region::kSeparable) {
        if (!region.touched_rows(bin_y).contains(cell.y)) continue;
      }
      for (int32_t bin_x = 0; bin_x < bins_x; ++bin_x) {
        if constexpr (Region::kSeparable) {
          if (!region.touched_columns(bin_x).contains(cell.x)) continue;
        } else {
          const CellRectangle touched = region.touched(bin_y, bin_x);
          if (!touched.rows.contains(cell.y) || !touched.columns.contains(cell.x)) continue;
        }
        body(bin_y, bin_x);
      }
    }
  }

 private:
  template <typename Holds>
  ORT_ROIALIGN_HD static bool any(int32_t count, Holds holds) {
    for (int32_t number = 0; number < count; ++number) {
      if (holds(number)) return true;
    }
    return false;
  }
};

// Collects the gradient of one map.
template <typename Op, typename T, typename Gradient>
__global__ void gather_gradient(Problem<Op, T> problem, int32_t map_number, Gradient gradient, T* map_gradient) {
  using Real = typename Problem<Op, T>::Real;
  using Region = typename Problem<Op, T>::Region;
  auto& batch = block_shared<RoiBatch<Region>>();
  const FeatureMap<T> map = problem.map(map_number);
  const int64_t groups = divide_up(problem.channels, kChannels);
  const int64_t own_bins = problem.channels_per_channel();  // where each bin has planes of its own
  const int64_t tiles_x = divide_up(map.width, kTileWidth);
  const int64_t tiles_y = divide_up(map.height, kTileHeight);
  const int64_t tasks = problem.num_images * own_bins * groups * tiles_y * tiles_x;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int32_t left = static_cast<int32_t>(task % tiles_x) * kTileWidth;
    const int32_t top = static_cast<int32_t>(task / tiles_x % tiles_y) * kTileHeight;
    const CellRectangle tile{{top, top + kTileHeight}, {left, left + kTileWidth}};
    const ChannelGroup channels = channel_group(problem, task / (tiles_x * tiles_y) % groups);
    const int64_t own_bin = task / (tiles_x * tiles_y * groups) % own_bins;
    const int64_t image = task / (tiles_x * tiles_y * groups * own_bins);
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const Cell cell{top + thread / kTileWidth, left + thread % kTileWidth};
    Real sums[kChannels] = {};
    for (int64_t first = 0; first < problem.num_rois; first += kThreads) {
      const int64_t left_over = problem.num_rois - first;
      const int count = static_cast<int>(left_over < kThreads ? left_over : kThreads);
      __syncthreads();  // until every thread has read the batch before
      bool touches = false;
      if (thread < count && problem.fault(first + thread) == RoiFault::kNone &&
          problem.image(first + thread) == image) {
        const Region region = problem.region(first + thread);
        batch.regions[thread] = region;
        touches =
            region.map_number == map_number &&
            TouchedBins<Region>{region, problem.params.output_height, problem.params.output_width}.any_touches(tile);
      }
      batch.touches_tile[thread] = touches;
      __syncthreads();
      for (int member = 0; member < count; ++member) {
        if (!batch.touches_tile[member]) continue;
        const Region& region = batch.regions[member];
        const TouchedBins<Region> bins{region, problem.params.output_height, problem.params.output_width};
        bins.for_each_touching(cell, [&](int32_t bin_y, int32_t bin_x) {
          if (Op::kChannelPerBin && bin_y * static_cast<int64_t>(bins.bins_x) + bin_x != own_bin) return;
          gradient.add(problem, region, first + member, bin_y, bin_x, cell, channels, sums);
        });
      }
    }
    if (cell.y < map.height && cell.x < map.width) {
      const int64_t place = static_cast<int64_t>(cell.y) * map.width + cell.x;
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel < channels.count) {
          const int64_t map_channel = (channels.first + channel) * own_bins + own_bin;
          map_gradient[problem.plane_offset(map, image, map_channel) + place] = narrow<T>(sums[channel]);
        }
      }
    }
  }
}

}  // namespace ort_roialign::cuda
