// Pools out of repacked blocks of channels.
#pragma once

#include "cpu/isa/strips.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

// Sums the first kRows of some rows of a block, for the columns that a RoI reads, to cells[num_columns, kVectors
// lanes]; `kAdd`: to what the cells hold.
template <typename Real, int kVectors, int kRows, bool kAdd>
void sum_rows(const Real* packed, int64_t block_channels, Taps<Real> rows, const int32_t* columns, int32_t num_columns,
              Real* cells) {
  using V = Vector<Real>;
  int64_t starts[kRows];  // below 0 where the columns that are read begin later
  V weights[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    starts[i] = rows.cells[i];
    weights[i] = V::broadcast(rows.weights[i]);
  }
  for (int32_t column = 0; column < num_columns; ++column, cells += kVectors * V::kLanes) {
    const int64_t at = columns[column] * block_channels;
    V sums[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[v] = V::load((kAdd ? cells : packed + (starts[0] + at)) + v * V::kLanes);
    if (!kAdd) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[v] = sums[v] * weights[0];
    }
#pragma GCC unroll 4
    for (int i = kAdd ? 0 : 1; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        sums[v] = multiply_add(V::load(packed + (starts[i] + at) + v * V::kLanes), weights[i], sums[v]);
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[v].store(cells + v * V::kLanes);
  }
}

// A strip of a block, or of one line of it.
template <typename T, int kVectors_>
struct BlockStrip {
  using Real = ComputeType<T>;
  static constexpr int kVectors = kVectors_;
  static constexpr int kCellLanes = kVectors * Vector<Real>::kLanes;

  const Real* packed;  // from the strip's first channel on
  int64_t block_channels;
  const int32_t* columns;
  int32_t num_columns;
  alignas(kLineBytes) Real cells[kStripBytes / sizeof(Real)];

  static bool holds(int32_t columns) { return columns * kCellLanes * static_cast<int>(sizeof(Real)) <= kStripBytes; }

  const Real* cell(int64_t column) const { return cells + column * kCellLanes; }

  void fill(Taps<Real> rows) {
    fill_some<false>(rows);
    while (rows.count > kRowsAtOnce) {
      rows = {rows.cells + kRowsAtOnce, rows.weights + kRowsAtOnce, rows.count - kRowsAtOnce};
      fill_some<true>(rows);
    }
  }

 private:
  static constexpr int32_t kRowsAtOnce = 4;  // their weights stay in registers

  // Sums the first rows, kRowsAtOnce or as many as there are.
  template <bool kAdd>
  void fill_some(Taps<Real> rows) {
    switch (rows.count) {
      case 1:
        return fill_rows<1, kAdd>(rows);
      case 2:
        return fill_rows<2, kAdd>(rows);
      case 3:
        return fill_rows<3, kAdd>(rows);
      default:
        return fill_rows<kRowsAtOnce, kAdd>(rows);
    }
  }

  template <int kRows, bool kAdd>
  void fill_rows(Taps<Real> rows) {
    sum_rows<Real, kVectors, kRows, kAdd>(packed, block_channels, rows, columns, num_columns, cells);
  }
};

// Pools one RoI for channels [lane, lane + lanes of a strip's cell) of a block.
template <typename T, int kVectors>
void pool_lanes(const PackedPoolJob<T>& job, const RoiPlan& plan, int32_t lane) {
  const int32_t channels = smaller(job.block_used - lane, BlockStrip<T, kVectors>::kCellLanes);
  if (channels <= 0) return;
  BlockStrip<T, kVectors> strip;
  strip.packed = job.packed + lane;
  strip.block_channels = job.block_channels;
  strip.columns = job.taps.columns_of(plan);
  strip.num_columns = plan.num_columns;
  const int64_t bins = static_cast<int64_t>(job.output_height) * job.output_width;
  const int64_t first_channel = plan.roi * job.channels + job.channel_begin + lane;
  pool_roi<T>(job, plan, strip, BinTarget<T>{job.output + first_channel * bins, channels, bins, job.stream});
}

template <typename T>
void pool_packed(const PackedPoolJob<T>& job, int64_t plan_begin, int64_t plan_end) {
  constexpr int kPerLine = kLineBytes / static_cast<int>(sizeof(Vector<ComputeType<T>>));
  constexpr int kLineLanes = kPerLine * Vector<ComputeType<T>>::kLanes;
  static_assert(kWidestBlockBytes == 2 * kLineBytes, "one case for each width");
  for (int64_t index = plan_begin; index < plan_end; ++index) {
    const RoiPlan& plan = job.plans[index];
    if (job.block_channels == 2 * kLineLanes && BlockStrip<T, 2 * kPerLine>::holds(plan.num_columns)) {
      pool_lanes<T, 2 * kPerLine>(job, plan, 0);
    } else {
      for (int32_t lane = 0; lane < job.block_channels; lane += kLineLanes) pool_lanes<T, kPerLine>(job, plan, lane);
    }
  }
  if (job.stream) stream_end();
}

}  // namespace
}  // namespace ort_roialign::cpu
