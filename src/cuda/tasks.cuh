// How the work of a CUDA kernel is cut into threads, and the planes that a thread reads.
#pragma once

#include <cstdint>

#include "cuda/device.cuh"
#include "ops/problem.h"

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
  const BinPlace place = problem.bin_place(bin);
  return {rest / groups, channel_group(problem, rest % groups), place.y, place.x};
}

// The planes that a few channels of one bin of a valid RoI read.
template <typename T>
struct Planes {
  const T* first;
  int64_t stride;  // from one channel's plane to the next one's, in elements
};

template <typename Op, typename T>
ORT_ROIALIGN_HD Planes<T> planes_of(const Problem<Op, T>& problem, const typename Problem<Op, T>::Region& region,
                                    int64_t roi, int64_t first_channel, int32_t bin_y, int32_t bin_x) {
  const FeatureMap<T>& map = problem.map(region.map_number);
  const int64_t channel = problem.map_channel(first_channel, bin_y, bin_x);
  return {map.data + problem.plane_offset(map, problem.image(roi), channel),
          problem.channels_per_channel() * map.plane_size()};
}

// Adds a cell of each channel's plane, weighted, to the channel's sum.
template <typename T, typename Real>
ORT_ROIALIGN_HD void add_cell(const Planes<T>& planes, int64_t cell, Real weight, int count, Real (&sums)[kChannels]) {
  for (int channel = 0; channel < kChannels; ++channel) {
    if (channel < count) sums[channel] += weight * widen(planes.first[channel * planes.stride + cell]);
  }
}

}  // namespace ort_roialign::cuda
