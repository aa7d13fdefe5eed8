// The pooling kernels for one instruction set, out of that set's Vector (vector_*.h, to be included first).
//
// A source file that includes this is compiled with its instruction set's flags, so everything here has internal
// linkage: a function that the linker could take in place of another object's would run on processors that lack the
// instructions.
#pragma once

#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

constexpr int32_t kStagingBytes = 32768;  // finished bins of one RoI and block, while they wait to be transposed

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
    const int32_t channels = smaller(job.channels - lane, kLanes);
    const T* planes = job.planes + lane * job.plane_size + run.plane_cell;
    ComputeType<T>* packed = job.packed + run.packed_cell * job.block_channels + lane;
    for (int64_t at = 0; at < run.cells; at += kLanes) {
      const int64_t start = step_start<kLanes>(at, run.cells);
      const int32_t cells = static_cast<int32_t>(run.cells - start < kLanes ? run.cells - start : kLanes);
      V square[kLanes];
      if (cells == kLanes && channels == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) square[i] = V::load(planes + i * job.plane_size + start);
      } else {
        for (int i = 0; i < kLanes; ++i) {
          square[i] = i < channels ? V::load_some(planes + i * job.plane_size + start, cells) : V::broadcast(0);
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

// The taps of one bin along one axis.
template <typename Real>
struct BinTaps {
  const int64_t* offsets;
  const Real* weights;
};

template <typename Real>
BinTaps<Real> bin_taps(const TapTable<Real>& table, const AxisPlan& axis, int32_t bin) {
  const int64_t first = axis.taps_of_bin(bin);
  return {table.offsets + first, table.weights + first};
}

// The average over a bin of one block: the weighted sum over the cells of `rows` times `columns`. The number of column
// taps is a constant where it is a frequent one, 0 where it is not.
template <typename Real, int kVectors, int kColumns>
void average_bin(const Real* packed, BinTaps<Real> rows, int32_t num_rows, BinTaps<Real> columns, int32_t num_columns,
                 Vector<Real> (&sums)[kVectors]) {
  using V = Vector<Real>;
  for (V& sum : sums) sum = V::broadcast(0);
  const int32_t taps = kColumns > 0 ? kColumns : num_columns;
  for (int32_t i = 0; i < num_rows; ++i) {
    const Real* row = packed + rows.offsets[i];
    const V row_weight = V::broadcast(rows.weights[i]);
#pragma GCC unroll 4
    for (int32_t j = 0; j < taps; ++j) {
      const Real* cell = row + columns.offsets[j];
      const V weight = row_weight * V::broadcast(columns.weights[j]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[v] = multiply_add(V::load(cell + v * V::kLanes), weight, sums[v]);
    }
  }
}

// The maximum over a bin's samples. Rows are interpolated first, and neighbouring samples share the result.
template <typename Real, int kVectors>
void maximum_bin(const Real* packed, BinTaps<Real> rows, int32_t row_points, BinTaps<Real> columns,
                 int32_t column_points, Vector<Real> (&result)[kVectors]) {
  using V = Vector<Real>;
  V maxima[kVectors];  // stays in registers, which a reference would not
  V left[kVectors];
  V right[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    maxima[v] = result[v];
    left[v] = right[v] = V::broadcast(0);
  }
  for (int32_t i = 0; i < row_points; ++i) {
    const Real* upper = packed + rows.offsets[2 * i];
    const Real* lower = packed + rows.offsets[2 * i + 1];
    const V upper_weight = V::broadcast(rows.weights[2 * i]);
    const V lower_weight = V::broadcast(rows.weights[2 * i + 1]);
    const auto interpolate = [&](int64_t column, V(&to)[kVectors]) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = column + v * V::kLanes;
        to[v] = multiply_add(V::load(upper + at), upper_weight, V::load(lower + at) * lower_weight);
      }
    };
    int64_t left_column = -1;
    int64_t right_column = -1;
    for (int32_t j = 0; j < column_points; ++j) {
      const int64_t low = columns.offsets[2 * j];
      const int64_t high = columns.offsets[2 * j + 1];
      if (low != left_column) {
        if (low == right_column) {
          for (int v = 0; v < kVectors; ++v) left[v] = right[v];
        } else {
          interpolate(low, left);
        }
        left_column = low;
      }
      if (high != right_column) {
        interpolate(high, right);
        right_column = high;
      }
      const V low_weight = V::broadcast(columns.weights[2 * j]);
      const V high_weight = V::broadcast(columns.weights[2 * j + 1]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        maxima[v] = maximum(maxima[v], multiply_add(left[v], low_weight, right[v] * high_weight));
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) result[v] = maxima[v];
}

// Pools bins [bin_begin, bin_end) of a RoI, in row-major order, to staging[bin - bin_begin, block_channels].
template <typename T, int kVectors, int kColumns>
void pool_bins(const PackedPoolJob<T>& job, const RoiPlan& plan, int32_t bin_begin, int32_t bin_end,
               ComputeType<T>* staging) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& y = plan.y;
  const AxisPlan& x = plan.x;
  int32_t bin_y = bin_begin / job.output_width;
  int32_t bin_x = bin_begin % job.output_width;
  for (int32_t bin = bin_begin; bin < bin_end; ++bin) {
    V pooled[kVectors];
    if (bin_y < y.bin_begin || bin_y >= y.bin_end || bin_x < x.bin_begin || bin_x >= x.bin_end) {
      for (V& vector : pooled) vector = V::broadcast(0);
    } else if (job.maximum) {
      const bool whole = bin_y >= y.whole_begin && bin_y < y.whole_end && bin_x >= x.whole_begin && bin_x < x.whole_end;
      for (V& vector : pooled) vector = V::broadcast(whole ? -static_cast<Real>(__builtin_inff()) : Real{0});
      maximum_bin<Real, kVectors>(job.packed, bin_taps(job.taps, y, bin_y), y.points, bin_taps(job.taps, x, bin_x),
                                  x.points, pooled);
    } else {
      average_bin<Real, kVectors, kColumns>(job.packed, bin_taps(job.taps, y, bin_y), y.taps,
                                            bin_taps(job.taps, x, bin_x), x.taps, pooled);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) pooled[v].store(staging + v * V::kLanes);
    staging += kVectors * V::kLanes;
    if (++bin_x == job.output_width) {
      bin_x = 0;
      ++bin_y;
    }
  }
}

template <typename T, int kVectors>
void pool_bins_any(const PackedPoolJob<T>& job, const RoiPlan& plan, int32_t bin_begin, int32_t bin_end,
                   ComputeType<T>* staging) {
  switch (plan.x.taps) {
    case 2:
      return pool_bins<T, kVectors, 2>(job, plan, bin_begin, bin_end, staging);
    case 3:
      return pool_bins<T, kVectors, 3>(job, plan, bin_begin, bin_end, staging);
    case 4:
      return pool_bins<T, kVectors, 4>(job, plan, bin_begin, bin_end, staging);
    default:
      return pool_bins<T, kVectors, 0>(job, plan, bin_begin, bin_end, staging);
  }
}

// Where the bins of one RoI and some channels go.
template <typename T>
struct BinTarget {
  T* output;         // of the first channel's first bin
  int32_t channels;  // that exist
  int32_t bins;      // of a channel
  bool stream;       // past the caches
};

// Writes bins [bin_begin, bin_begin + num_bins), staged as [num_bins, kBlock].
template <typename T, int kBlock, int kStagedBins>
void write_bins(const BinTarget<T>& target, const ComputeType<T>* staging, int32_t bin_begin, int32_t num_bins) {
  constexpr int kLanes = Vector<ComputeType<T>>::kLanes;
  for (int32_t lane = 0; lane < target.channels; lane += kLanes) {
    const int32_t channels = smaller(target.channels - lane, kLanes);
    T* to = target.output + static_cast<int64_t>(lane) * target.bins;
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

template <typename T, int kVectors>
void pool_block(const PackedPoolJob<T>& job, int64_t plan_begin, int64_t plan_end) {
  using Real = ComputeType<T>;
  constexpr int kBlock = kVectors * Vector<Real>::kLanes;
  constexpr int32_t kStagedBins = kStagingBytes / (kBlock * static_cast<int>(sizeof(Real)));
  alignas(kLineBytes) Real staging[kStagedBins * kBlock];
  const int32_t bins = job.output_height * job.output_width;
  for (int64_t index = plan_begin; index < plan_end; ++index) {
    const RoiPlan& plan = job.plans[index];
    const int64_t first_channel = plan.roi * job.channels + job.channel_begin;
    const BinTarget<T> target{job.output + first_channel * bins, job.block_used, bins, job.stream};
    for (int32_t at = 0; at < bins; at += kStagedBins) {
      const int32_t end = at + smaller(kStagedBins, bins - at);
      pool_bins_any<T, kVectors>(job, plan, at, end, staging);
      write_bins<T, kBlock, kStagedBins>(target, staging, at, end - at);
    }
  }
  if (job.stream) stream_end();
}

template <typename T>
void pool_packed(const PackedPoolJob<T>& job, int64_t plan_begin, int64_t plan_end) {
  constexpr int kPerLine = kLineBytes / static_cast<int>(sizeof(Vector<ComputeType<T>>));
  static_assert(kWidestBlockBytes == 2 * kLineBytes, "one case for each width");
  if (job.block_channels * sizeof(ComputeType<T>) == kLineBytes) {
    pool_block<T, kPerLine>(job, plan_begin, plan_end);
  } else {
    pool_block<T, 2 * kPerLine>(job, plan_begin, plan_end);
  }
}

// The map's columns that a RoI reads, in steps of a vector.
template <int kLanes>
struct ColumnSteps {
  int32_t count = 0;
  int32_t starts[kWidestDirect / kLanes + 1];

  template <typename Real>
  ColumnSteps(const TapTable<Real>& table, const RoiPlan& plan) {
    const int32_t width = plan.column_end - plan.column_begin;
    bool read[kWidestDirect / kLanes + 1] = {};
    const int64_t taps = plan.x.taps_of_bin(plan.x.bin_end) - plan.x.first_tap;
    for (int64_t tap = 0; tap < taps; ++tap) {
      read[(table.offsets[plan.x.first_tap + tap] - plan.column_begin) / kLanes] = true;
    }
    for (int32_t start = 0; start < width; start += kLanes) {
      if (read[start / kLanes]) starts[count++] = start;
    }
  }
};

// One row of the map, as wide as a RoI, interpolated between rows or summed over them: [columns, kLanes channels].
template <typename T>
struct Strip {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  alignas(kLineBytes) Real cells[(kWidestDirect + V::kLanes) * V::kLanes];

  // Sums `num_rows` rows, for the columns that the steps name.
  void fill(const T* planes, int64_t plane_size, int32_t channels, BinTaps<Real> rows, int32_t num_rows,
            const ColumnSteps<V::kLanes>& steps, int32_t width) {
    for (int32_t step = 0; step < steps.count; ++step) {
      const int32_t start = steps.starts[step];
      const int32_t count = smaller(width - start, V::kLanes);
      V square[V::kLanes];
      if (count == V::kLanes && channels == V::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < V::kLanes; ++i) square[i] = V::broadcast(0);
        for (int32_t row = 0; row < num_rows; ++row) {
          const V weight = V::broadcast(rows.weights[row]);
          const T* from = planes + rows.offsets[row] + start;
#pragma GCC unroll 16
          for (int i = 0; i < V::kLanes; ++i)
            square[i] = multiply_add(V::load(from + i * plane_size), weight, square[i]);
        }
      } else {
        for (V& vector : square) vector = V::broadcast(0);
        for (int32_t row = 0; row < num_rows; ++row) {
          const V weight = V::broadcast(rows.weights[row]);
          const T* from = planes + rows.offsets[row] + start;
          for (int i = 0; i < channels; ++i) {
            square[i] = multiply_add(V::load_some(from + i * plane_size, count), weight, square[i]);
          }
        }
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) square[i].store(cells + (start + i) * V::kLanes);
    }
  }
};

// Pools one row of bins out of strips, to staging[output_width, kLanes].
template <typename T>
void pool_bin_row(const DirectPoolJob<T>& job, const RoiPlan& plan, const T* planes, int32_t channels, int32_t bin_y,
                  const ColumnSteps<Vector<ComputeType<T>>::kLanes>& steps, Strip<T>& strip, ComputeType<T>* staging) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& y = plan.y;
  const AxisPlan& x = plan.x;
  const bool empty = bin_y < y.bin_begin || bin_y >= y.bin_end;
  const bool whole = bin_y >= y.whole_begin && bin_y < y.whole_end;
  for (int32_t bin = 0; bin < job.output_width; ++bin) {
    const bool lowest = job.maximum && !empty && whole && bin >= x.whole_begin && bin < x.whole_end;
    V::broadcast(lowest ? -static_cast<Real>(__builtin_inff()) : Real{0}).store(staging + bin * V::kLanes);
  }
  if (empty) return;
  for (int32_t point = 0; point < y.points; ++point) {
    BinTaps<Real> rows = bin_taps(job.taps, y, bin_y);
    rows.offsets += point * y.taps;
    rows.weights += point * y.taps;
    strip.fill(planes, job.plane_size, channels, rows, y.taps, steps, plan.column_end - plan.column_begin);
    for (int32_t bin = x.bin_begin; bin < x.bin_end; ++bin) {
      const BinTaps<Real> columns = bin_taps(job.taps, x, bin);
      V pooled = V::load(staging + bin * V::kLanes);
      for (int32_t tap = 0, column = 0; column < x.points; ++column) {
        V sum = V::broadcast(0);
        for (const int32_t end = tap + x.taps; tap < end; ++tap) {
          const Real* cell = strip.cells + (columns.offsets[tap] - plan.column_begin) * V::kLanes;
          sum = multiply_add(V::load(cell), V::broadcast(columns.weights[tap]), sum);
        }
        pooled = job.maximum ? maximum(pooled, sum) : sum;
      }
      pooled.store(staging + bin * V::kLanes);
    }
  }
}

template <typename T>
void pool_direct(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end) {
  using Real = ComputeType<T>;
  constexpr int kLanes = Vector<Real>::kLanes;
  constexpr int32_t kStagedBins = kStagingBytes / (kLanes * static_cast<int>(sizeof(Real)));
  static_assert(kMostDirectBins <= kStagedBins, "a row of bins is staged as a whole");
  const ColumnSteps<kLanes> steps(job.taps, plan);
  Strip<T> strip;
  alignas(kLineBytes) Real staging[kStagedBins * kLanes];
  const int32_t bins = job.output_height * job.output_width;
  const int32_t rows_at_once = smaller(kStagedBins / job.output_width, job.output_height);
  for (int64_t channel = channel_begin; channel < channel_end; channel += kLanes) {
    const int32_t channels = channel_end - channel < kLanes ? static_cast<int32_t>(channel_end - channel) : kLanes;
    const T* planes = job.planes + channel * job.plane_size + plan.column_begin;
    const BinTarget<T> target{job.output + (plan.roi * job.channels + channel) * bins, channels, bins, job.stream};
    for (int32_t first = 0; first < job.output_height; first += rows_at_once) {
      const int32_t rows = smaller(rows_at_once, job.output_height - first);
      for (int32_t row = 0; row < rows; ++row) {
        pool_bin_row(job, plan, planes, channels, first + row, steps, strip, staging + row * job.output_width * kLanes);
      }
      write_bins<T, kLanes, kStagedBins>(target, staging, first * job.output_width, rows * job.output_width);
    }
  }
  if (job.stream) stream_end();
}

template <typename T>
constexpr PoolingKernels<T> kernels_of() {
  return {pack<T>, pool_packed<T>, pool_direct<T>};
}

constexpr IsaKernels kIsaKernels = {kIsaName, kernels_of<float>(), kernels_of<double>(), kernels_of<Float16>(),
                                    kernels_of<BFloat16>()};

}  // namespace
}  // namespace ort_roialign::cpu
