// Moves cells and bins between the order of tensors, a channel's side by side, and that of the kernels, a cell's
// channels side by side.
#pragma once

#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

// Where the last, possibly shorter step of a run of `count` elements starts: back far enough to be a whole one, where
// the run is long enough. What is done twice gives the same values twice.
template <int kLanes>
int64_t step_start(int64_t at, int64_t count) {
  return at + kLanes > count && count >= kLanes ? count - kLanes : at;
}

template <typename T>
void pack(const PackJob<T>& job, const PackedRun& run) {
  using V = Vector<ComputeType<T>>;
  constexpr int kLanes = V::kLanes;
  for (int32_t lane = 0; lane < job.block_channels; lane += kLanes) {
    const int32_t channels = smaller(job.channels - lane, kLanes);  // none or less in a lane after the last channel
    const T* planes = job.planes + smaller(lane, job.channels) * job.plane_stride + run.plane_cell;
    ComputeType<T>* packed = job.packed + run.packed_cell * job.block_channels + lane;
    for (int64_t at = 0; at < run.cells; at += kLanes) {
      const int64_t start = step_start<kLanes>(at, run.cells);
      const int32_t cells = static_cast<int32_t>(run.cells - start < kLanes ? run.cells - start : kLanes);
      V square[kLanes];
      if (cells == kLanes && channels == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) square[i] = V::load(planes + i * job.plane_stride + start);
      } else {
        for (int i = 0; i < kLanes; ++i) {
          square[i] = i < channels ? V::load_some(planes + i * job.plane_stride + start, cells) : V::broadcast(0);
        }
      }
      transpose(square);
      if (cells == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) square[i].store(packed + (start + i) * job.block_channels);
      } else {
        for (int i = 0; i < cells; ++i) square[i].store(packed + (start + i) * job.block_channels);
      }
    }
  }
}

// Transposes `bins` finished bins, [bins, block_channels], to [channels, bins], rows `bins_of_channel` apart.
template <typename T>
void unpack(const ComputeType<T>* staging, int32_t bins, int32_t block_channels, int32_t channels, T* output,
            int64_t bins_of_channel) {
  using V = Vector<ComputeType<T>>;
  constexpr int kLanes = V::kLanes;
  for (int32_t at = 0; at < bins; at += kLanes) {
    const int32_t start = static_cast<int32_t>(step_start<kLanes>(at, bins));
    const int32_t count = smaller(bins - start, kLanes);
    const ComputeType<T>* from = staging + start * block_channels;
    V square[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = V::load(from + smaller(i, count - 1) * block_channels);
    transpose(square);
    if (count == kLanes && channels == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i].store(output + i * bins_of_channel + start);
    } else {
      for (int i = 0; i < channels; ++i) square[i].store_some(output + i * bins_of_channel + start, count);
    }
  }
}

// Copies to memory past the caches, in whole lines as far as there are any.
template <typename T>
void stream(const T* from, T* to, int64_t count) {
  constexpr int kPerLine = kLineBytes / static_cast<int>(sizeof(T));
  int64_t at = 0;
  const int64_t head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) & (kLineBytes - 1)) / sizeof(T);
  for (; at < head && at < count; ++at) to[at] = from[at];
  for (; at + kPerLine <= count; at += kPerLine) stream_line(from + at, to + at);
  for (; at < count; ++at) to[at] = from[at];
}

// Where the bins of one RoI and some channels go.
template <typename T>
struct BinTarget {
  T* output;         // of the first channel's first bin
  int32_t channels;  // that exist
  int64_t bins;      // of a channel
  bool stream;       // past the caches
};

// Writes bins [bin_begin, bin_begin + num_bins), staged as [num_bins, kBlock].
template <typename T, int kBlock, int kStagedBins>
void write_bins(const BinTarget<T>& target, const ComputeType<T>* staging, int64_t bin_begin, int32_t num_bins) {
  constexpr int kLanes = Vector<ComputeType<T>>::kLanes;
  for (int32_t lane = 0; lane < target.channels; lane += kLanes) {
    const int32_t channels = smaller(target.channels - lane, kLanes);
    T* to = target.output + lane * target.bins;
    if (num_bins == target.bins) {
      // The channels' bins are one piece of memory, which is put together before any of it is written: a line that is
      // written in parts, between parts of others, costs several times as much.
      alignas(kLineBytes) T whole[kLanes * kStagedBins];
      unpack<T>(staging + lane, num_bins, kBlock, channels, whole, num_bins);
      if (target.stream) {
        stream(whole, to, channels * num_bins);
      } else {
        __builtin_memcpy(to, whole, channels * num_bins * sizeof(T));
      }
    } else {
      unpack<T>(staging + lane, num_bins, kBlock, channels, to + bin_begin, target.bins);
    }
  }
}

template <typename T, int kBlock>
void unpack_block(const UnpackJob<T>& job, int64_t cells) {
  constexpr int32_t kStaged = kStagingBytes / (kBlock * static_cast<int>(sizeof(ComputeType<T>)));
  for (int64_t at = 0; at < cells; at += kStaged) {
    const BinTarget<T> target{job.planes, job.channels, job.plane_stride, job.stream};
    const int32_t count = static_cast<int32_t>(cells - at < kStaged ? cells - at : kStaged);
    write_bins<T, kBlock, kStaged>(target, job.packed + at * kBlock, at, count);
  }
}

template <typename T>
void unpack_cells(const UnpackJob<T>& job, int64_t cells) {
  constexpr int kLine = kLineBytes / static_cast<int>(sizeof(ComputeType<T>));
  static_assert(kWidestBlockBytes == 2 * kLineBytes, "one case for each width");
  if (job.block_channels == kLine) {
    unpack_block<T, kLine>(job, cells);
  } else {
    unpack_block<T, 2 * kLine>(job, cells);
  }
  if (job.stream) stream_end();
}

}  // namespace
}  // namespace ort_roialign::cpu
