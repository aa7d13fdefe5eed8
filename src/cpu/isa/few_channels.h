// Pools few channels out of the map's own planes. A vector's lanes are bins side by side here, because channels would
// leave most of them idle.
#pragma once

#include "cpu/isa/direct.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

// The column taps of a RoI's bins, a lane for each bin: [vectors of bins, points, taps, kLanes]. Where two rows of bins
// fit into a vector, it holds two; their rows of the map are summed to one line then, one after the other.
template <typename Real>
struct LaneTaps {
  static constexpr int kLanes = Vector<Real>::kLanes;
  static constexpr int64_t kMost = 2048;
  int32_t rows;           // of bins in a vector
  int32_t line_cells;     // of one of them
  int32_t places[kMost];  // in the line
  Real weights[kMost];

  static int64_t count(const AxisPlan& x, int32_t bins) {
    return static_cast<int64_t>((bins + kLanes - 1) / kLanes) * kLanes * x.points * x.taps;
  }

  LaneTaps(const TapTable<Real>& table, const RoiPlan& plan, int32_t bins)
      : rows(2 * bins <= kLanes ? 2 : 1), line_cells(plan.column_end - plan.column_begin) {
    const AxisPlan& x = plan.x;
    const int32_t* columns = table.columns_of(plan);
    const int32_t taps = x.points * x.taps;
    const int64_t all = count(x, bins);
    for (int64_t i = 0; i < all; i += kLanes) Vector<Real>::broadcast(0).store(weights + i);
    __builtin_memset(places, 0, static_cast<size_t>(all) * sizeof(int32_t));
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t bin = x.bin_begin; bin < x.bin_end; ++bin) {
        const int32_t lane = row * bins + bin;
        const int64_t from = x.taps_of_bin(bin);
        int32_t to = lane / kLanes * taps * kLanes + lane % kLanes;
        for (int32_t tap = 0; tap < taps; ++tap, to += kLanes) {
          places[to] = row * line_cells + columns[table.cells[from + tap]] - plan.column_begin;
          weights[to] = table.weights[from + tap];
        }
      }
    }
  }
};

// Sums rows of one channel, for one row of bins, to a line.
template <typename T>
void sum_line(const DirectPoolJob<T>& job, const T* plane, Taps<ComputeType<T>> rows, int32_t width,
              const ColumnSteps<Vector<ComputeType<T>>::kLanes>& steps, ComputeType<T>* line) {
  using V = Vector<ComputeType<T>>;
  for (int32_t step = 0; step < steps.count; ++step) {
    const int32_t start = steps.starts[step];
    const int32_t count = smaller(width - start, V::kLanes);
    V sum = V::broadcast(0);
    for (int32_t row = 0; row < rows.count; ++row) {
      const T* from = plane + rows.cells[row] * job.width + start;
      const V cells = count == V::kLanes ? V::load(from) : V::load_some(from, count);
      sum = multiply_add(cells, V::broadcast(rows.weights[row]), sum);
    }
    sum.store(line + start);
  }
}

// Pools the bins of one channel in `rows` rows, at most lanes.rows of them.
template <typename T>
void pool_rows(const DirectPoolJob<T>& job, const RoiPlan& plan, const T* plane, int32_t bin_y, int32_t rows,
               const ColumnSteps<Vector<ComputeType<T>>::kLanes>& steps, const LaneTaps<ComputeType<T>>& lanes,
               ComputeType<T>* line, ComputeType<T>* bins) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& x = plan.x;
  for (int32_t point = 0; point < plan.y.points; ++point) {
    for (int32_t row = 0; row < rows; ++row) {
      const Taps<Real> taps = taps_of_point(job.taps, plan.y, bin_y + row, point);
      sum_line(job, plane, taps, lanes.line_cells, steps, line + row * lanes.line_cells);
    }
    int32_t place = 0;
    for (int32_t first = 0; first < rows * job.output_width; first += V::kLanes) {
      V pooled = V::load(bins + first);
      for (int32_t column = 0; column < x.points; ++column) {
        V sum = V::broadcast(0);
        for (int32_t tap = 0; tap < x.taps; ++tap, place += V::kLanes) {
          const V cells = V::pick(line, lanes.rows * lanes.line_cells, lanes.places + place);
          sum = multiply_add(cells, V::load(lanes.weights + place), sum);
        }
        pooled = job.maximum ? maximum(pooled, sum) : sum;
      }
      pooled.store(bins + first);
    }
  }
}

template <typename T>
void pool_few_channels(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& y = plan.y;
  const AxisPlan& x = plan.x;
  const ColumnSteps<V::kLanes> steps(job.taps.columns_of(plan), plan);
  const LaneTaps<Real> lanes(job.taps, plan, job.output_width);
  alignas(kLineBytes) Real line[2 * kMostColumns + 2 * V::kLanes];
  alignas(kLineBytes) Real bins[kMostDirectBins + V::kLanes];
  // Lanes without a bin are computed too, and vectors reach beyond the cells that are summed.
  for (int i = 0; i < 2 * lanes.line_cells + V::kLanes; i += V::kLanes) V::broadcast(0).store(line + i);
  const int32_t width = job.output_width;
  for (int64_t channel = channel_begin; channel < channel_end; ++channel) {
    const T* plane = job.planes + channel * job.plane_size + plan.column_begin;
    T* output = job.output + (plan.roi * job.channels + channel) * job.output_height * width;
    for (int32_t bin_y = 0, rows = 0; bin_y < job.output_height; bin_y += rows) {
      // Two rows only where both have samples.
      rows = lanes.rows == 2 && y.has_samples(bin_y) && y.has_samples(bin_y + 1) ? 2 : 1;
      const int32_t count = rows * width;
      V::broadcast(0).store(bins + count);
      for (int32_t bin = 0; bin < count; ++bin) {
        bins[bin] = start_of_bin<Real>(job.maximum, plan, bin_y + bin / width, bin % width);
      }
      if (y.has_samples(bin_y)) {
        pool_rows(job, plan, plane, bin_y, rows, steps, lanes, line, bins);
        // What a lane without samples has picked.
        for (int32_t row = 0; row < rows; ++row) {
          for (int32_t bin = 0; bin < x.bin_begin; ++bin) bins[row * width + bin] = 0;
          for (int32_t bin = x.bin_end; bin < width; ++bin) bins[row * width + bin] = 0;
        }
      }
      for (int32_t bin = 0; bin < count; bin += V::kLanes) {
        V::load(bins + bin).store_some(output + bin, smaller(count - bin, V::kLanes));
      }
      output += count;
    }
  }
}

}  // namespace
}  // namespace ort_roialign::cpu
