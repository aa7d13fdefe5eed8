// The forward CUDA kernels: a thread owns one bin of one RoI on a few channels. A RoI that breaks the contract cannot
// fail the call without stopping the stream: its outputs are NaN.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/tasks.cuh"
#include "semantics/element_types.h"
#include "semantics/region.h"
#include "semantics/sample.h"

namespace ort_roialign::cuda {

template <typename Op, typename T>
__global__ void pool_average(Problem<Op, T> problem, T* output) {
  using Real = typename Problem<Op, T>::Real;
  using Region = typename Problem<Op, T>::Region;
  const int64_t tasks = count_bin_tasks(problem);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const BinTask task = bin_task(problem, index);
    const bool valid = problem.fault(task.roi) == RoiFault::kNone;
    Real sums[kChannels] = {};
    Real divisor = 1;
    if (valid) {
      const Region region = problem.region(task.roi);
      const auto planes = planes_of(problem, region, task.roi, task.channels.first, task.bin_y, task.bin_x);
      divisor = region.divisor(task.bin_y, task.bin_x);
      visit_cells(region, task.bin_y, task.bin_x, problem.map(region.map_number).width,
                  [&](int64_t cell, Real weight) { add_cell(planes, cell, weight, task.channels.count, sums); });
    }
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel < task.channels.count) {
        const Real value = valid ? sums[channel] / divisor : static_cast<Real>(NAN);
        output[problem.bin_offset(task.roi, task.channels.first + channel, task.bin_y, task.bin_x)] = narrow<T>(value);
      }
    }
  }
}

// `output` and `winners` may each be null.
template <typename Op, typename T>
__global__ void pool_maximum(Problem<Op, T> problem, T* output, int64_t* winners) {
  using Real = typename Problem<Op, T>::Real;
  const int64_t tasks = count_bin_tasks(problem);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const BinTask task = bin_task(problem, index);
    const bool valid = problem.fault(task.roi) == RoiFault::kNone;
    Maximum<Real> maxima[kChannels];
    if (valid) {
      const auto region = problem.region(task.roi);
      const auto planes = planes_of(problem, region, task.roi, task.channels.first, task.bin_y, task.bin_x);
      region.visit_samples(task.bin_y, task.bin_x, [&](const auto& sample) {
        for (int channel = 0; channel < kChannels; ++channel) {
          if (channel < task.channels.count) {
            const T* cells = planes.first + channel * planes.stride;
            maxima[channel].take(Problem<Op, T>::interpolate(sample, cells), sample.id);
          }
        }
      });
    }
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel < task.channels.count) {
        const int64_t bin = problem.bin_offset(task.roi, task.channels.first + channel, task.bin_y, task.bin_x);
        const Real value = valid ? maxima[channel].value : static_cast<Real>(NAN);
        if (output != nullptr) output[bin] = narrow<T>(value);
        if (winners != nullptr) winners[bin] = maxima[channel].winner;
      }
    }
  }
}

}  // namespace ort_roialign::cuda
