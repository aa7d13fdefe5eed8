// Pools out of the map's own planes.
#pragma once

#include "cpu/isa/transposing.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

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
      if (read[start / kLanes]) starts[count++] = static_cast<int32_t>(step_start<kLanes>(start, width));
    }
  }
};

// One row of the map, as wide as a RoI, interpolated between rows or summed over them: [columns, kLanes channels].
template <typename T>
struct Strip {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  alignas(kLineBytes) Real cells[(kWidestDirect + V::kLanes) * V::kLanes];

  // Sums `num_rows` rows of `count` cells, a vector for each channel. The number of channels is a constant where they
  // fill a vector, so that the sums stay in registers.
  template <int kChannels>
  static void sum_rows(const T* planes, int64_t plane_size, int32_t channels, BinTaps<Real> rows, int32_t num_rows,
                       int32_t count, V (&sums)[V::kLanes]) {
    const int32_t used = kChannels > 0 ? kChannels : channels;
#pragma GCC unroll 16
    for (int i = 0; i < V::kLanes; ++i) sums[i] = V::broadcast(0);
    for (int32_t row = 0; row < num_rows; ++row) {
      const V weight = V::broadcast(rows.weights[row]);
      const T* from = planes + rows.offsets[row];
      if (count == V::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < used; ++i) sums[i] = multiply_add(V::load(from + i * plane_size), weight, sums[i]);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < used; ++i) {
          sums[i] = multiply_add(V::load_some(from + i * plane_size, count), weight, sums[i]);
        }
      }
    }
  }

  // Sums `num_rows` rows, for the columns that the steps name.
  void fill(const T* planes, int64_t plane_size, int32_t channels, BinTaps<Real> rows, int32_t num_rows,
            const ColumnSteps<V::kLanes>& steps, int32_t width) {
    for (int32_t step = 0; step < steps.count; ++step) {
      const int32_t start = steps.starts[step];
      const int32_t count = smaller(width - start, V::kLanes);
      V square[V::kLanes];
      if (channels == V::kLanes) {
        sum_rows<V::kLanes>(planes + start, plane_size, V::kLanes, rows, num_rows, count, square);
      } else {
        sum_rows<0>(planes + start, plane_size, channels, rows, num_rows, count, square);
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
  for (int32_t bin = 0; bin < job.output_width; ++bin) {
    V::broadcast(start_of_bin<Real>(job.maximum, plan, bin_y, bin)).store(staging + bin * V::kLanes);
  }
  if (!y.has_samples(bin_y)) return;
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
void pool_strips(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end) {
  using Real = ComputeType<T>;
  constexpr int kLanes = Vector<Real>::kLanes;
  constexpr int32_t kStagedBins = kStagingBytes / (kLanes * static_cast<int>(sizeof(Real)));
  static_assert(kMostDirectBins <= kStagedBins, "a row of bins is staged as a whole");
  const ColumnSteps<kLanes> steps(job.taps, plan);
  Strip<T> strip;
  alignas(kLineBytes) Real staging[kStagedBins * kLanes];
  const int64_t bins = static_cast<int64_t>(job.output_height) * job.output_width;
  const int32_t rows_at_once = smaller(kStagedBins / job.output_width, job.output_height);
  for (int64_t channel = channel_begin; channel < channel_end; channel += kLanes) {
    const int32_t channels = channel_end - channel < kLanes ? static_cast<int32_t>(channel_end - channel) : kLanes;
    const T* planes = job.planes + channel * job.plane_size + plan.column_begin;
    const BinTarget<T> target{job.output + (plan.roi * job.channels + channel) * bins, channels, bins, job.stream};
    for (int64_t first = 0; first < job.output_height; first += rows_at_once) {
      const int64_t left = job.output_height - first;
      const int32_t rows = left < rows_at_once ? static_cast<int32_t>(left) : rows_at_once;
      for (int32_t row = 0; row < rows; ++row) {
        pool_bin_row(job, plan, planes, channels, static_cast<int32_t>(first + row), steps, strip,
                     staging + row * job.output_width * kLanes);
      }
      write_bins<T, kLanes, kStagedBins>(target, staging, first * job.output_width, rows * job.output_width);
    }
  }
  if (job.stream) stream_end();
}

}  // namespace
}  // namespace ort_roialign::cpu
