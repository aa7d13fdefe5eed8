// How threads share what is laid once for each RoI.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/kernel_table.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

constexpr int64_t kRoisPerTask = 32;

inline int64_t count_roi_tasks(int64_t num_rois) { return divide_up(num_rois, kRoisPerTask); }

// Calls lay(task, begin, end) for all RoIs. Few tasks take less time than waking the threads.
template <typename Lay>
void run_roi_tasks(const ParallelFor& parallel_for, int64_t num_rois, Lay lay) {
  constexpr int64_t kFewTasks = 3;
  const int64_t tasks = count_roi_tasks(num_rois);
  const auto lay_task = [&](int64_t task) {
    lay(task, task * kRoisPerTask, std::min((task + 1) * kRoisPerTask, num_rois));
  };
  if (tasks > kFewTasks) return parallel_for(tasks, lay_task);
  for (int64_t task = 0; task < tasks; ++task) lay_task(task);
}

}  // namespace ort_roialign::cpu
