// Pools out of the map's own planes.
#pragma once

#include "cpu/isa/strips.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

// The map's columns that a RoI reads, in steps of a vector.
template <int kLanes>
struct ColumnSteps {
  int32_t count = 0;
  int32_t starts[kMostColumns / kLanes + 1];

  ColumnSteps(const int32_t* columns, const RoiPlan& plan) {
    const int32_t width = plan.column_end - plan.column_begin;
    bool read[kMostColumns / kLanes + 1] = {};
    for (int32_t i = 0; i < plan.num_columns; ++i) read[(columns[i] - plan.column_begin) / kLanes] = true;
    for (int32_t start = 0; start < width; start += kLanes) {
      if (read[start / kLanes]) starts[count++] = static_cast<int32_t>(step_start<kLanes>(start, width));
    }
  }
};

// A strip of as many channels as a vector has lanes, with a cell for every column between the first and the last.
template <typename T>
struct PlaneStrip {
  using Real = ComputeType<T>;
  using V = Vector<Real>;
  static constexpr int kVectors = 1;

  const DirectPoolJob<T>& job;
  const ColumnSteps<V::kLanes>& steps;
  const int32_t* columns;
  int32_t column_begin;
  int32_t width;
  const T* planes;  // of the first channel, from `column_begin` on
  int32_t channels;
  alignas(kLineBytes) Real cells[kStripBytes / sizeof(Real) + V::kLanes * V::kLanes];

  PlaneStrip(const DirectPoolJob<T>& job_, const RoiPlan& plan, const ColumnSteps<V::kLanes>& steps_)
      : job(job_),
        steps(steps_),
        columns(job_.taps.columns_of(plan)),
        column_begin(plan.column_begin),
        width(plan.column_end - plan.column_begin),
        planes(nullptr),
        channels(0) {}

  const Real* cell(int64_t column) const { return cells + (columns[column] - column_begin) * V::kLanes; }

  void fill(Taps<Real> rows) {
    for (int32_t step = 0; step < steps.count; ++step) {
      const int32_t start = steps.starts[step];
      const int32_t count = smaller(width - start, V::kLanes);
      V square[V::kLanes];
      if (channels == V::kLanes) {
        sum_rows<V::kLanes>(rows, planes + start, count, square);
      } else {
        sum_rows<0>(rows, planes + start, count, square);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < V::kLanes; ++i) square[i].store(cells + (start + i) * V::kLanes);
    }
  }

 private:
  // Sums rows of `count` cells, a vector for each channel. The number of channels is a constant where they fill a
  // vector, so that the sums stay in registers.
  template <int kChannels>
  void sum_rows(Taps<Real> rows, const T* first_row, int32_t count, V (&sums)[V::kLanes]) const {
    const int32_t used = kChannels > 0 ? kChannels : channels;
#pragma GCC unroll 16
    for (int i = 0; i < V::kLanes; ++i) sums[i] = V::broadcast(0);
    for (int32_t row = 0; row < rows.count; ++row) {
      const V weight = V::broadcast(rows.weights[row]);
      const T* from = first_row + rows.cells[row] * job.width;
      if (count == V::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < used; ++i) sums[i] = multiply_add(V::load(from + i * job.plane_size), weight, sums[i]);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < used; ++i) {
          sums[i] = multiply_add(V::load_some(from + i * job.plane_size, count), weight, sums[i]);
        }
      }
    }
  }
};

template <typename T>
void pool_planes(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end) {
  constexpr int kLanes = Vector<ComputeType<T>>::kLanes;
  const ColumnSteps<kLanes> steps(job.taps.columns_of(plan), plan);
  PlaneStrip<T> strip(job, plan, steps);
  const int64_t bins = static_cast<int64_t>(job.output_height) * job.output_width;
  for (int64_t channel = channel_begin; channel < channel_end; channel += kLanes) {
    strip.channels = channel_end - channel < kLanes ? static_cast<int32_t>(channel_end - channel) : kLanes;
    strip.planes = job.planes + channel * job.plane_size + plan.column_begin;
    T* const output = job.output + (plan.roi * job.channels + channel) * bins;
    pool_roi<T>(job, plan, strip, BinTarget<T>{output, strip.channels, bins, job.stream});
  }
  if (job.stream) stream_end();
}

}  // namespace
}  // namespace ort_roialign::cpu
