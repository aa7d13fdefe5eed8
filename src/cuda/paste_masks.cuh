// PasteMasks on CUDA: a thread writes one pixel of one mask after another.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/device.cuh"
#include "cuda/tasks.cuh"
#include "ops/paste_masks.h"

namespace ort_roialign::cuda {

// The value of a pixel; NaN, which reaches no threshold, for a box that is not finite.
template <typename T>
ORT_ROIALIGN_HD ComputeType<T> pasted_value(const PasteProblem<T>& problem, int64_t mask, int64_t y, int64_t x) {
  using Real = ComputeType<T>;
  if (!problem.is_finite(mask)) return static_cast<Real>(NAN);
  const auto y_axis = problem.y_axis(mask);
  const auto x_axis = problem.x_axis(mask);
  if (y < y_axis.first_pixel || y >= y_axis.end_pixel || x < x_axis.first_pixel || x >= x_axis.end_pixel) return 0;
  const MaskTap<Real> row = y_axis.tap(y);
  const MaskTap<Real> column = x_axis.tap(x);
  Real value = 0;
  for (int corner = 0; corner < 2; ++corner) {
    const Real low = problem.framed_cell(mask, row.cell[corner], column.cell[0]);
    const Real high = problem.framed_cell(mask, row.cell[corner], column.cell[1]);
    const Real stretched = low * column.weight[0] + high * column.weight[1];
    value = corner == 0 ? stretched * row.weight[0] : value + stretched * row.weight[1];
  }
  return value;
}

template <typename T, typename Output>
__global__ void paste_masks(PasteProblem<T> problem, Output* output) {
  const int64_t pixels = problem.num_masks * problem.height * problem.width;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < pixels; index += stride) {
    const int64_t row = index / problem.width;
    problem.store(pasted_value(problem, row / problem.height, row % problem.height, index % problem.width),
                  output + index);
  }
}

template <typename T>
struct PasteMasks {
  static void forward(const KernelCall& call) {
    const PasteProblem<T> problem = make_paste_problem<T>(call);
    const int64_t pixels = problem.num_masks * problem.height * problem.width;
    if (pixels == 0) return;
    const int64_t blocks = std::min(divide_up(pixels, kThreads), kMostBlocks);
    if (problem.params.has_threshold) {
      launch(paste_masks<T, uint8_t>, blocks, kThreads, call.cuda_stream, problem,
             static_cast<uint8_t*>(call.outputs[0].data));
    } else {
      launch(paste_masks<T, T>, blocks, kThreads, call.cuda_stream, problem, static_cast<T*>(call.outputs[0].data));
    }
  }
};

}  // namespace ort_roialign::cuda
