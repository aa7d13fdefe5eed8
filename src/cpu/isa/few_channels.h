// Pools few channels out of the map's own planes. A vector's lanes are bins side by side here, because channels would
// leave most of them idle.
#pragma once

#include "cpu/isa/direct.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

// The column taps of a RoI's bins, a lane for each bin: [bins / kLanes, points, taps, kLanes].
template <typename Real>
struct LaneTaps {
  static constexpr int kLanes = Vector<Real>::kLanes;
  static constexpr int64_t kMost = 2048;
  int32_t places[kMost];  // columns from the RoI's first one
  Real weights[kMost];

  static int64_t count(const AxisPlan& x, int32_t bins) {
    return static_cast<int64_t>((bins + kLanes - 1) / kLanes) * kLanes * x.points * x.taps;
  }

  LaneTaps(const TapTable<Real>& table, const RoiPlan& plan, int32_t bins) {
    const AxisPlan& x = plan.x;
    const int32_t taps = x.points * x.taps;
    for (int32_t first = 0, to = 0; first < bins; first += kLanes) {
      for (int32_t tap = 0; tap < taps; ++tap) {
        for (int32_t lane = 0; lane < kLanes; ++lane, ++to) {
          const int32_t bin = first + lane;
          const bool used = x.has_samples(bin);
          const int64_t from = used ? x.taps_of_bin(bin) + tap : 0;
          places[to] = used ? static_cast<int32_t>(table.offsets[from] - plan.column_begin) : 0;
          weights[to] = used ? table.weights[from] : Real{0};
        }
      }
    }
  }
};

// Pools one row of bins of one channel.
template <typename T>
void pool_lanes(const DirectPoolJob<T>& job, const RoiPlan& plan, const T* plane, int32_t bin_y,
                const ColumnSteps<Vector<ComputeType<T>>::kLanes>& steps, const LaneTaps<ComputeType<T>>& lanes,
                ComputeType<T>* line, ComputeType<T>* bins) {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  const AxisPlan& y = plan.y;
  const AxisPlan& x = plan.x;
  const int32_t width = plan.column_end - plan.column_begin;
  for (int32_t point = 0; point < y.points; ++point) {
    const int64_t first_tap = y.taps_of_bin(bin_y) + point * y.taps;
    for (int32_t step = 0; step < steps.count; ++step) {
      const int32_t start = steps.starts[step];
      const int32_t count = smaller(width - start, V::kLanes);
      V sum = V::broadcast(0);
      for (int64_t tap = first_tap; tap < first_tap + y.taps; ++tap) {
        const T* from = plane + job.taps.offsets[tap] + start;
        const V row = count == V::kLanes ? V::load(from) : V::load_some(from, count);
        sum = multiply_add(row, V::broadcast(job.taps.weights[tap]), sum);
      }
      sum.store(line + start);
    }
    int32_t place = 0;
    for (int32_t first = 0; first < job.output_width; first += V::kLanes) {
      V pooled = V::load(bins + first);
      for (int32_t column = 0; column < x.points; ++column) {
        V sum = V::broadcast(0);
        for (int32_t tap = 0; tap < x.taps; ++tap, place += V::kLanes) {
          sum = multiply_add(V::pick(line, width, lanes.places + place), V::load(lanes.weights + place), sum);
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
  const ColumnSteps<V::kLanes> steps(job.taps, plan);
  const LaneTaps<Real> lanes(job.taps, plan, job.output_width);
  alignas(kLineBytes) Real line[kWidestDirect + 2 * V::kLanes];
  alignas(kLineBytes) Real bins[kMostDirectBins + V::kLanes];
  for (int i = 0; i < 2; ++i) V::broadcast(0).store(line + i * V::kLanes);
  // Lanes after the last bin are computed too, and not stored.
  V::broadcast(0).store(bins + job.output_width);
  for (int64_t channel = channel_begin; channel < channel_end; ++channel) {
    const T* plane = job.planes + channel * job.plane_size + plan.column_begin;
    T* output = job.output + (plan.roi * job.channels + channel) * job.output_height * job.output_width;
    for (int32_t bin_y = 0; bin_y < job.output_height; ++bin_y, output += job.output_width) {
      for (int32_t bin = 0; bin < job.output_width; ++bin) {
        bins[bin] = start_of_bin<Real>(job.maximum, plan, bin_y, bin);
      }
      if (y.has_samples(bin_y)) {
        pool_lanes(job, plan, plane, bin_y, steps, lanes, line, bins);
        // What a lane without a bin of the map has picked.
        for (int32_t bin = 0; bin < x.bin_begin; ++bin) bins[bin] = 0;
        for (int32_t bin = x.bin_end; bin < job.output_width; ++bin) bins[bin] = 0;
      }
      for (int32_t bin = 0; bin < job.output_width; bin += V::kLanes) {
        V::load(bins + bin).store_some(output + bin, smaller(job.output_width - bin, V::kLanes));
      }
    }
  }
}

}  // namespace
}  // namespace ort_roialign::cpu
