// The CUDA kernels of the gradients of RoIs and offsets, again without atomic additions. Those of a RoI that breaks the
// contract are NaN.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/tasks.cuh"
#include "semantics/element_types.h"

namespace ort_roialign::cuda {

// The gradient of what moves the bins: a thread sums one bin's share over all channels. It writes the offset's gradient
// into `offset_gradient`, or what a RoI's numbers get from this bin into `shares`, [num_rois, bins, numbers].
template <typename Op, typename T>
__global__ void sum_slopes(Problem<Op, T> problem, const T* output_gradient, T* offset_gradient, double* shares) {
  using Real = typename Problem<Op, T>::Real;
  constexpr int kNumbers = Op::kRoiSlopes + Op::kOffsetSlopes;
  const int64_t tasks = problem.num_rois * problem.bins();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const int64_t roi = index / problem.bins();
    const int64_t bin = index % problem.bins();
    const int32_t bin_y = problem.bin_place(bin).y;
    const int32_t bin_x = problem.bin_place(bin).x;
    const bool valid = problem.fault(roi) == RoiFault::kNone;
    double sums[kNumbers] = {};
    if (valid) {
      const auto region = problem.region(roi);
      const auto planes = planes_of(problem, region, roi, 0, bin_y, bin_x);
      region.visit_slopes(bin_y, bin_x, [&](int64_t cell, const auto& slopes) {
        double sum = 0;
        for (int64_t channel = 0; channel < problem.channels; ++channel) {
          const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]);
          sum +=
              static_cast<double>(gradient) * static_cast<double>(widen(planes.first[channel * planes.stride + cell]));
        }
        for (int number = 0; number < kNumbers; ++number) sums[number] += static_cast<double>(slopes[number]) * sum;
      });
    }
    for (int number = 0; number < kNumbers; ++number) {
      const double value = valid ? sums[number] : static_cast<double>(NAN);
      if (shares != nullptr) {
        shares[index * kNumbers + number] = value;
      } else {
        offset_gradient[(roi * kNumbers + number) * problem.bins() + bin] = narrow<T>(static_cast<Real>(value));
      }
    }
  }
}

// A thread sums one number of one RoI over the bins.
template <typename Op, typename T>
__global__ void sum_shares(Problem<Op, T> problem, const double* shares, void* rois_gradient) {
  constexpr int kNumbers = Op::kRoiSlopes + Op::kOffsetSlopes;
  const int64_t tasks = problem.num_rois * kNumbers;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < tasks; index += stride) {
    const double* first = shares + index / kNumbers * problem.bins() * kNumbers + index % kNumbers;
    double sum = 0;
    for (int64_t bin = 0; bin < problem.bins(); ++bin) sum += first[bin * kNumbers];
    problem.store_like_rois(rois_gradient, index, static_cast<typename Problem<Op, T>::Real>(sum));
  }
}

}  // namespace ort_roialign::cuda
