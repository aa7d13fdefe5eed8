// The CUDA kernels of every operator: forward and backward over the same taps or the same samples as on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "cuda/forward.cuh"
#include "cuda/map_gradient.cuh"
#include "cuda/slope_gradient.cuh"
#include "cuda/tasks.cuh"
#include "ops/problem.h"

namespace ort_roialign::cuda {

template <typename Op, typename T>
struct Engine {
  using ProblemType = Problem<Op, T>;

  static void forward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 0);
    T* output = static_cast<T*>(call.outputs[0].data);
    if (is_maximum(problem)) {
      int64_t* winners = nullptr;
      if constexpr (Op::kHasWinnerOutput) winners = static_cast<int64_t*>(call.outputs[1].data);
      if constexpr (Op::kHasMaximum) {
        launch_tasks(pool_maximum<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, output, winners);
      }
    } else {
      if constexpr (Op::kHasAverage) {
        launch_tasks(pool_average<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, output);
      }
    }
  }

  static void backward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 1);
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    if (is_maximum(problem)) {
      if constexpr (Op::kHasMaximum) backward_of_maximum(call, problem, output_gradient);
    } else {
      if constexpr (Op::kHasAverage) gather(call, problem, AverageGradient<Op, T>{output_gradient});
    }
    if constexpr (Op::kRoiSlopes + Op::kOffsetSlopes > 0) {
      void* wanted = call.outputs[1].data;
      if (wanted != nullptr) backward_of_slopes(call, problem, output_gradient, wanted);
    }
  }

 private:
  static void backward_of_maximum(const KernelCall& call, const ProblemType& problem, const T* output_gradient) {
    const int64_t bins = problem.num_rois * problem.channels * problem.bins();
    if (bins == 0) return gather(call, problem, MaximumGradient<Op, T>{output_gradient, nullptr});
    StreamMemory scratch(bins * sizeof(int64_t), call.cuda_stream);
    int64_t* winners = static_cast<int64_t*>(scratch.data());
    launch_tasks(pool_maximum<Op, T>, count_bin_tasks(problem), call.cuda_stream, problem, static_cast<T*>(nullptr),
                 winners);
    gather(call, problem, MaximumGradient<Op, T>{output_gradient, winners});
  }

  static void backward_of_slopes(const KernelCall& call, const ProblemType& problem, const T* output_gradient,
                                 void* gradient) {
    const int64_t bins = problem.num_rois * problem.bins();
    if (bins == 0) return;
    if constexpr (Op::kRoiSlopes > 0) {
      StreamMemory scratch(bins * Op::kRoiSlopes * sizeof(double), call.cuda_stream);
      double* shares = static_cast<double*>(scratch.data());
      launch_tasks(sum_slopes<Op, T>, bins, call.cuda_stream, problem, output_gradient, static_cast<T*>(nullptr),
                   shares);
      launch_tasks(sum_shares<Op, T>, problem.num_rois * Op::kRoiSlopes, call.cuda_stream, problem, shares, gradient);
    } else {
      launch_tasks(sum_slopes<Op, T>, bins, call.cuda_stream, problem, output_gradient, static_cast<T*>(gradient),
                   static_cast<double*>(nullptr));
    }
  }

  // A thread a task.
  template <typename Kernel, typename... Arguments>
  static void launch_tasks(Kernel kernel, int64_t tasks, void* stream, Arguments... arguments) {
    if (tasks == 0) return;
    launch(kernel, std::min(divide_up(tasks, kThreads), kMostBlocks), kThreads, stream, arguments...);
  }

  // A block a tile.
  template <typename Gradient>
  static void gather(const KernelCall& call, const ProblemType& problem, Gradient gradient) {
    for (int32_t number = 0; number < problem.num_maps; ++number) {
      T* map_gradient = static_cast<T*>(call.outputs[number].data);
      const FeatureMap<T>& map = problem.map(number);
      const int64_t tiles = divide_up(map.width, kTileWidth) * divide_up(map.height, kTileHeight);
      const int64_t groups = problem.channels_per_channel() * divide_up(problem.channels, kChannels);
      const int64_t tasks = problem.num_images * groups * tiles;
      if (tasks == 0 || map_gradient == nullptr) continue;
      launch(gather_gradient<Op, T, Gradient>, std::min(tasks, kMostBlocks), kThreads, call.cuda_stream, problem,
             number, gradient, map_gradient);
    }
  }
};

}  // namespace ort_roialign::cuda
