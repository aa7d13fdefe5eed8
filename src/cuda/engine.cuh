// The CUDA kernels of every operator: forward and backward over the same taps or the same samples as on the CPU.
//
// Forward, a thread owns one bin of one RoI on a few channels. Backward, a thread owns one cell of the map on a few
// channels and collects what the RoIs' bins send it, in the order of the RoIs: no atomic addition, so two runs give the
// same bits. A RoI that breaks the contract cannot fail the call without stopping the stream: its outputs are NaN, and
// it sends no gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/device.cuh"
#include "ops/problem.h"
#include "semantics/element_types.h"
#include "semantics/sample.h"

namespace ort_roialign::cuda {

constexpr int kThreads = 128;
constexpr int32_t kTileWidth = 16;
constexpr int32_t kTileHeight = kThreads / kTileWidth;

// Channels that share one computation of a sample's place and weights. Loops over them have this constant length and
// skip what is too many, so that nvcc unrolls them and keeps the sums in registers.
constexpr int kChannels = 4;

// More tasks than this are shared by looping.
constexpr int64_t kMostBlocks = int64_t{1} << 20;

// A few channels of one image or RoI.
struct ChannelGroup {
  int64_t first;
  int count;
};

template <typename Op, typename T>
ORT_ROIALIGN_HD ChannelGroup channel_group(const Problem<Op, T>& problem, int64_t group) {
  const int64_t first = group * kChannels;
  const int64_t left = problem.channels - first;
  return {first, static_cast<int>(left < kChannels ? left : kChannels)};
}

// One thread's work in a forward kernel.
struct BinTask {
  int64_t roi;
  ChannelGroup channels;
  int32_t bin_y;
  int32_t bin_x;
};

template <typename Op, typename T>
ORT_ROIALIGN_HD int64_t count_bin_tasks(const Problem<Op, T>& problem) {
  return problem.num_rois * divide_up(problem.channels, kChannels) * problem.bins();
}

// Neighbouring threads get neighbouring bins of a row, which lie side by side in the output.
template <typename Op, typename T>
ORT_ROIALIGN_HD BinTask bin_task(const Problem<Op, T>& problem, int64_t task) {
  const int64_t groups = divide_up(problem.channels, kChannels);
  const int64_t bin = task % problem.bins();
  const int64_t rest = task / problem.bins();
  return {rest / groups, channel_group(problem, rest % groups), static_cast<int32_t>(bin / problem.params.output_width),
          static_cast<int32_t>(bin % problem.params.output_width)};
}

template <typename Op, typename T>
__global__ void pool_average(Problem<Op, T> problem, T* output) {
  using Real = typename Problem<Op, T>::Real;
  const int64_t tasks = count_bin_tasks(problem);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const BinTask task = bin_task(problem, index);
    const bool valid = problem.fault(task.roi) == RoiFault::kNone;
    Real sums[kChannels] = {};
    Real divisor = 1;
    if (valid) {
      const auto region = problem.region(task.roi);
      const T* plane = problem.map + problem.plane_offset(problem.batch_indices[task.roi], task.channels.first);
      divisor = region.divisor();
      for (auto row = region.row_taps(task.bin_y); row.next();) {
        const T* cells = plane + static_cast<int64_t>(row.cell) * problem.width;
        for (auto column = region.column_taps(task.bin_x); column.next();) {
          const Real weight = row.weight * column.weight;
          for (int channel = 0; channel < kChannels; ++channel) {
            if (channel < task.channels.count) {
              sums[channel] += weight * widen(cells[channel * problem.plane_size() + column.cell]);
            }
          }
        }
      }
    }
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel < task.channels.count) {
        const Real value = valid ? sums[channel] / divisor : static_cast<Real>(NAN);
        output[problem.bin_offset(task.roi, task.channels.first + channel, task.bin_y, task.bin_x)] = narrow<T>(value);
      }
    }
  }
}

// `output` and `winners` may each be null.
template <typename Op, typename T>
__global__ void pool_maximum(Problem<Op, T> problem, T* output, int64_t* winners) {
  using Real = typename Problem<Op, T>::Real;
  using SampleType = typename Problem<Op, T>::Region::SampleType;
  const int64_t tasks = count_bin_tasks(problem);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const BinTask task = bin_task(problem, index);
    const bool valid = problem.fault(task.roi) == RoiFault::kNone;
    Maximum<Real> maxima[kChannels];
    if (valid) {
      const auto region = problem.region(task.roi);
      const T* plane = problem.map + problem.plane_offset(problem.batch_indices[task.roi], task.channels.first);
      region.visit_samples(task.bin_y, task.bin_x, [&](const SampleType& sample) {
        for (int channel = 0; channel < kChannels; ++channel) {
          if (channel < task.channels.count) {
            const T* cells = plane + channel * problem.plane_size();
            maxima[channel].take(Problem<Op, T>::interpolate(sample, cells), sample.id);
          }
        }
      });
    }
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel < task.channels.count) {
        const int64_t bin = problem.bin_offset(task.roi, task.channels.first + channel, task.bin_y, task.bin_x);
        const Real value = valid ? maxima[channel].value : static_cast<Real>(NAN);
        if (output != nullptr) output[bin] = narrow<T>(value);
        if (winners != nullptr) winners[bin] = maxima[channel].winner;
      }
    }
  }
}

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

  ORT_ROIALIGN_HD void add(const ProblemType& problem, const Region& region, int64_t roi, int32_t bin_y, int32_t bin_x,
                           Cell cell, ChannelGroup channels, Real (&sums)[kChannels]) const {
    auto row = region.row_taps(bin_y);
    auto column = region.column_taps(bin_x);
    if (!reach(row, cell.y) || !reach(column, cell.x)) return;
    const Real share = row.weight * column.weight / region.divisor();
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
    const int64_t offset = static_cast<int64_t>(cell.y) * problem.width + cell.x;
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel >= channels.count) continue;
      const int64_t bin = problem.bin_offset(roi, channels.first + channel, bin_y, bin_x);
      if (winners[bin] == Maximum<Real>::kNoWinner) continue;
      const auto winner = region.sample(bin_y, bin_x, winners[bin]);
      if (!winner.inside) continue;
      for (int corner = 0; corner < Region::kCellsPerSample; ++corner) {
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

// Whether any bin of a RoI touches a tile. `touched(bin)` gives the cells that a bin touches along one axis.
template <typename Touched>
ORT_ROIALIGN_HD bool any_bin_touches(int32_t bins, Range tile, Touched touched) {
  for (int32_t bin = 0; bin < bins; ++bin) {
    if (touched(bin).overlaps(tile)) return true;
  }
  return false;
}

template <typename Op, typename T, typename Gradient>
__global__ void gather_gradient(Problem<Op, T> problem, Gradient gradient, T* map_gradient) {
  using Real = typename Problem<Op, T>::Real;
  using Region = typename Problem<Op, T>::Region;
  auto& batch = block_shared<RoiBatch<Region>>();
  const int64_t groups = divide_up(problem.channels, kChannels);
  const int64_t tiles_x = divide_up(problem.width, kTileWidth);
  const int64_t tiles_y = divide_up(problem.height, kTileHeight);
  const int64_t tasks = problem.num_images * groups * tiles_y * tiles_x;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int32_t left = static_cast<int32_t>(task % tiles_x) * kTileWidth;
    const int32_t top = static_cast<int32_t>(task / tiles_x % tiles_y) * kTileHeight;
    const ChannelGroup channels = channel_group(problem, task / (tiles_x * tiles_y) % groups);
    const int64_t image = task / (tiles_x * tiles_y * groups);
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const Cell cell{top + thread / kTileWidth, left + thread % kTileWidth};
    Real sums[kChannels] = {};
    for (int64_t first = 0; first < problem.num_rois; first += kThreads) {
      const int64_t left_over = problem.num_rois - first;
      const int count = static_cast<int>(left_over < kThreads ? left_over : kThreads);
      __syncthreads();  // until every thread has read the batch before
      bool touches = false;
      if (thread < count && problem.batch_indices[first + thread] == image &&
          problem.fault(first + thread) == RoiFault::kNone) {
        const Region region = problem.region(first + thread);
        batch.regions[thread] = region;
        touches = any_bin_touches(problem.params.output_height, {top, top + kTileHeight},
                                  [&](int32_t bin) { return region.touched_rows(bin); }) &&
                  any_bin_touches(problem.params.output_width, {left, left + kTileWidth},
                                  [&](int32_t bin) { return region.touched_columns(bin); });
      }
      batch.touches_tile[thread] = touches;
      __syncthreads();
      for (int member = 0; member < count; ++member) {
        if (!batch.touches_tile[member]) continue;
        const Region& region = batch.regions[member];
        for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
          if (!region.touched_rows(bin_y).contains(cell.y)) continue;
          for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) {
            if (!region.touched_columns(bin_x).contains(cell.x)) continue;
            gradient.add(problem, region, first + member, bin_y, bin_x, cell, channels, sums);
          }
        }
      }
    }
    if (cell.y < problem.height && cell.x < problem.width) {
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel < channels.count) {
          const int64_t plane = problem.plane_offset(image, channels.first + channel);
          map_gradient[plane + static_cast<int64_t>(cell.y) * problem.width + cell.x] = narrow<T>(sums[channel]);
        }
      }
    }
  }
}

template <typename Op, typename T>
struct Engine {
  using ProblemType = Problem<Op, T>;

  static void forward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 0);
    T* output = static_cast<T*>(call.outputs[0].data);
    if constexpr (Op::kHasAverage) {
      if (problem.params.reduction == Reduction::kAverage) {
        return launch_tasks(pool_average<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, output);
      }
    }
    int64_t* winners = nullptr;
    if constexpr (Op::kHasWinnerOutput) winners = static_cast<int64_t*>(call.outputs[1].data);
    launch_tasks(pool_maximum<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, output, winners);
  }

  static void backward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 1);
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    if constexpr (Op::kHasAverage) {
      if (problem.params.reduction == Reduction::kAverage) {
        return gather(call, problem, AverageGradient<Op, T>{output_gradient});
      }
    }
    const int64_t bins = problem.num_rois * problem.channels * problem.bins();
    if (bins == 0) return gather(call, problem, MaximumGradient<Op, T>{output_gradient, nullptr});
    StreamMemory scratch(bins * sizeof(int64_t), call.cuda_stream);
    int64_t* winners = static_cast<int64_t*>(scratch.data());
    launch_tasks(pool_maximum<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, static_cast<T*>(nullptr),
                 winners);
    gather(call, problem, MaximumGradient<Op, T>{output_gradient, winners});
  }

 private:
  // A thread a task.
  template <typename Kernel, typename... Arguments>
  static void launch_tasks(Kernel kernel, int64_t tasks, void* stream, Arguments... arguments) {
    if (tasks == 0) return;
    launch(kernel, std::min(divide_up(tasks, kThreads), kMostBlocks), kThreads, stream, arguments...);
  }

  // A block a tile.
  template <typename Gradient>
  static void gather(const KernelCall& call, const ProblemType& problem, Gradient gradient) {
    const int64_t tiles = divide_up(problem.width, kTileWidth) * divide_up(problem.height, kTileHeight);
    const int64_t tasks = problem.num_images * divide_up(problem.channels, kChannels) * tiles;
    if (tasks == 0) return;
    launch(gather_gradient<Op, T, Gradient>, std::min(tasks, kMostBlocks), kThreads, call.cuda_stream, problem,
           gradient, static_cast<T*>(call.outputs[0].data));
  }
};

}  // namespace ort_roialign::cuda
