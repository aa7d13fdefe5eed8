// Pools out of repacked blocks of channels.
#pragma once

#include "cpu/isa/transposing.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

// The average over a bin of one block: the weighted sum over the cells of `rows` times `columns`. The number of column
// taps is a constant where it is a frequent one, 0 where it is not.
template <typename Real, int kVectors, int kColumns>
void average_bin(const Real* packed, BinTaps<Real> rows, int32_t num_rows, BinTaps<Real> columns, int32_t num_columns,
                 Vector<Real> (&sums)[kVectors]) {
  using V = Vector<Real>;
  for (V& sum : sums) sum = V::broadcast(0);
  const int32_t taps = kColumns > 0 ? kColumns : num_columns;
  for (int32_t i = 0; i < num_rows; ++i) {
    const int64_t row = rows.offsets[i];
    const V row_weight = V::broadcast(rows.weights[i]);
#pragma GCC unroll 4
    for (int32_t j = 0; j < taps; ++j) {
      const Real* cell = packed + (row + columns.offsets[j]);
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
    const int64_t upper = rows.offsets[2 * i];
    const int64_t lower = rows.offsets[2 * i + 1];
    const V upper_weight = V::broadcast(rows.weights[2 * i]);
    const V lower_weight = V::broadcast(rows.weights[2 * i + 1]);
    const auto interpolate = [&](int64_t column, V(&to)[kVectors]) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = column + v * V::kLanes;
        to[v] =
            multiply_add(V::load(packed + (upper + at)), upper_weight, V::load(packed + (lower + at)) * lower_weight);
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

// Pools some bins of a RoI, in row-major order, to staging[num_bins, block_channels].
template <typename T, int kVectors, int kColumns>
void pool_bins(const PackedPoolJob<T>& job, const RoiPlan& plan, int64_t first_bin, int32_t num_bins,
               ComputeType<T>* staging) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& y = plan.y;
  const AxisPlan& x = plan.x;
  int32_t bin_y = static_cast<int32_t>(first_bin / job.output_width);
  int32_t bin_x = static_cast<int32_t>(first_bin % job.output_width);
  for (int32_t bin = 0; bin < num_bins; ++bin) {
    V pooled[kVectors];
    if (!y.has_samples(bin_y) || !x.has_samples(bin_x)) {
      for (V& vector : pooled) vector = V::broadcast(0);
    } else if (job.maximum) {
      for (V& vector : pooled) vector = V::broadcast(start_of_bin<Real>(true, plan, bin_y, bin_x));
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
void pool_bins_any(const PackedPoolJob<T>& job, const RoiPlan& plan, int64_t first_bin, int32_t num_bins,
                   ComputeType<T>* staging) {
  switch (plan.x.taps) {
    case 2:
      return pool_bins<T, kVectors, 2>(job, plan, first_bin, num_bins, staging);
    case 3:
      return pool_bins<T, kVectors, 3>(job, plan, first_bin, num_bins, staging);
    case 4:
      return pool_bins<T, kVectors, 4>(job, plan, first_bin, num_bins, staging);
    default:
      return pool_bins<T, kVectors, 0>(job, plan, first_bin, num_bins, staging);
  }
}

template <typename T, int kVectors>
void pool_block(const PackedPoolJob<T>& job, int64_t plan_begin, int64_t plan_end) {
  using Real = ComputeType<T>;
  constexpr int kBlock = kVectors * Vector<Real>::kLanes;
  constexpr int32_t kStagedBins = kStagingBytes / (kBlock * static_cast<int>(sizeof(Real)));
  alignas(kLineBytes) Real staging[kStagedBins * kBlock];
  const int64_t bins = static_cast<int64_t>(job.output_height) * job.output_width;
  for (int64_t index = plan_begin; index < plan_end; ++index) {
    const RoiPlan& plan = job.plans[index];
    const int64_t first_channel = plan.roi * job.channels + job.channel_begin;
    const BinTarget<T> target{job.output + first_channel * bins, job.block_used, bins, job.stream};
    for (int64_t at = 0; at < bins; at += kStagedBins) {
      const int32_t count = static_cast<int32_t>(bins - at < kStagedBins ? bins - at : kStagedBins);
      pool_bins_any<T, kVectors>(job, plan, at, count, staging);
      write_bins<T, kBlock, kStagedBins>(target, staging, at, count);
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

}  // namespace
}  // namespace ort_roialign::cpu
