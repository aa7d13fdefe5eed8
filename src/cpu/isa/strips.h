// Pools a RoI one row of bins at a time. The rows of the map that it reads are summed, or interpolated, to a strip, one
// cell for each column that the RoI reads, and bins are pooled out of the strip: bins that lie side by side share
// columns, and all of them share the rows' weights.
#pragma once

#include "cpu/isa/transposing.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

constexpr int32_t kStripBytes = kMostColumns * kLineBytes;

// Some taps of one axis.
template <typename Real>
struct Taps {
  const int64_t* cells;
  const Real* weights;
  int32_t count;
};

template <typename Real>
Taps<Real> taps_of_point(const TapTable<Real>& table, const AxisPlan& axis, int32_t bin, int32_t point) {
  const int64_t first = axis.taps_of_bin(bin) + static_cast<int64_t>(point) * axis.taps;
  return {table.cells + first, table.weights + first, axis.taps};
}

// What a bin's value starts from: 0 for a sum, and for a maximum over samples that are not all inside the map, because
// those outside are worth 0; below every number for any other maximum.
template <typename Real>
Real start_of_bin(bool maximum, const RoiPlan& plan, int32_t bin_y, int32_t bin_x) {
  return maximum && plan.y.is_whole(bin_y) && plan.x.is_whole(bin_x) ? -static_cast<Real>(__builtin_inff()) : Real{0};
}

// Bins of one row that are pooled together, and where they are staged: [bins, lanes of the strip's cells].
template <typename Real>
struct BinRow {
  int32_t bin_y;
  int32_t begin;
  int32_t end;
  Real* staging;
};

// Pools bins out of a strip. The number of taps is a constant where it is a frequent one, 0 where it is not.
template <bool kMaximum, int kTaps, typename T, typename Strip>
void pool_strip(const PoolJob<T>& job, const AxisPlan& x, const Strip& strip, const BinRow<ComputeType<T>>& row) {
  using V = Vector<ComputeType<T>>;
  constexpr int kVectors = Strip::kVectors;
  const int32_t end = smaller(row.end, x.bin_end);
  for (int32_t bin = row.begin < x.bin_begin ? x.bin_begin : row.begin; bin < end; ++bin) {
    ComputeType<T>* const staged = row.staging + (bin - row.begin) * kVectors * V::kLanes;
    V pooled[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) pooled[v] = V::load(staged + v * V::kLanes);
    for (int32_t point = 0; point < (kMaximum ? x.points : 1); ++point) {
      const Taps<ComputeType<T>> taps = taps_of_point(job.taps, x, bin, point);
      const int32_t count = kTaps > 0 ? kTaps : taps.count;
      V sums[kVectors];
#pragma GCC unroll 16
      for (V& sum : sums) sum = V::broadcast(0);
#pragma GCC unroll 4
      for (int32_t tap = 0; tap < count; ++tap) {
        const auto* cell = strip.cell(taps.cells[tap]);
        const V weight = V::broadcast(taps.weights[tap]);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sums[v] = multiply_add(V::load(cell + v * V::kLanes), weight, sums[v]);
      }
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) pooled[v] = kMaximum ? maximum(pooled[v], sums[v]) : sums[v];
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) pooled[v].store(staged + v * V::kLanes);
  }
}

template <typename T, typename Strip>
void pool_strip_any(const PoolJob<T>& job, const AxisPlan& x, const Strip& strip, const BinRow<ComputeType<T>>& row) {
  if (job.maximum) return pool_strip<true, 2>(job, x, strip, row);
  switch (x.taps) {
    case 2:
      return pool_strip<false, 2>(job, x, strip, row);
    case 3:
      return pool_strip<false, 3>(job, x, strip, row);
    case 4:
      return pool_strip<false, 4>(job, x, strip, row);
    default:
      return pool_strip<false, 0>(job, x, strip, row);
  }
}

template <typename T, typename Strip>
void pool_bin_row(const PoolJob<T>& job, const RoiPlan& plan, Strip& strip, const BinRow<ComputeType<T>>& row) {
  using V = Vector<ComputeType<T>>;
  ComputeType<T>* staged = row.staging;
  for (int32_t bin = row.begin; bin < row.end; ++bin) {
    const V start = V::broadcast(start_of_bin<ComputeType<T>>(job.maximum, plan, row.bin_y, bin));
    for (int v = 0; v < Strip::kVectors; ++v, staged += V::kLanes) start.store(staged);
  }
  if (!plan.y.has_samples(row.bin_y)) return;
  for (int32_t point = 0; point < plan.y.points; ++point) {
    strip.fill(taps_of_point(job.taps, plan.y, row.bin_y, point));
    pool_strip_any(job, plan.x, strip, row);
  }
}

// Pools all bins of a RoI for the channels of `target`, which a cell of the strip holds.
template <typename T, typename Strip>
void pool_roi(const PoolJob<T>& job, const RoiPlan& plan, Strip& strip, const BinTarget<T>& target) {
  using Real = ComputeType<T>;
  constexpr int kCellLanes = Strip::kVectors * Vector<Real>::kLanes;
  constexpr int32_t kStagedBins = kStagingBytes / (kCellLanes * static_cast<int>(sizeof(Real)));
  alignas(kLineBytes) Real staging[kStagedBins * kCellLanes];
  const int32_t width = job.output_width;
  const int32_t rows_at_once = width < kStagedBins ? kStagedBins / width : 1;
  for (int64_t first = 0; first < job.output_height; first += rows_at_once) {
    const int32_t bin_y = static_cast<int32_t>(first);
    const int32_t rows = smaller(job.output_height - bin_y, rows_at_once);
    for (int32_t begin = 0; begin < width; begin += kStagedBins) {
      const int32_t end = smaller(begin + kStagedBins, width);
      for (int32_t row = 0; row < rows; ++row) {
        Real* const staged = staging + row * (end - begin) * kCellLanes;
        pool_bin_row(job, plan, strip, BinRow<Real>{bin_y + row, begin, end, staged});
      }
      write_bins<T, kCellLanes, kStagedBins>(target, staging, first * width + begin, rows * (end - begin));
    }
  }
}

}  // namespace
}  // namespace ort_roialign::cpu
