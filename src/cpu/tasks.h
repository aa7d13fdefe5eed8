// How a call's work is cut into tasks, and which threads run them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/cost_model.h"
#include "ops/kernel_table.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// Of RoIs, planes, channels or bins: [begin, end).
struct Range64 {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
};

// The session's threads where it is worth waking them, else the one that calls.
inline const ParallelFor& threads_where(bool worth, const KernelCall& call) {
  // Never destroyed: a session may outlive static objects at the process's end.
  static const auto& this_thread = *new ParallelFor([](int64_t count, const std::function<void(int64_t)>& task) {
    for (int64_t number = 0; number < count; ++number) task(number);
  });
  return worth ? call.parallel_for : this_thread;
}

// Cuts [begin, end) where a task costs enough; `cost_of(index)` is in nanoseconds of one thread.
template <typename Cost>
std::vector<Range64> cut_by_cost(int64_t begin, int64_t end, Cost cost_of) {
  std::vector<Range64> tasks;
  double cost = kNanosecondsPerTask;
  for (int64_t index = begin; index < end; ++index) {
    if (cost >= kNanosecondsPerTask) {
      tasks.push_back({index, index});
      cost = 0;
    }
    cost += cost_of(index);
    tasks.back().end = index + 1;
  }
  return tasks;
}

constexpr int64_t kRoisPerTask = 32;  // of what is laid once for each RoI

inline int64_t count_roi_tasks(int64_t num_rois) { return divide_up(num_rois, kRoisPerTask); }

// Calls lay(task, begin, end) for all RoIs. Few tasks take less time than waking the threads.
template <typename Lay>
void run_roi_tasks(const KernelCall& call, int64_t num_rois, Lay lay) {
  constexpr int64_t kFewTasks = 3;
  const int64_t tasks = count_roi_tasks(num_rois);
  threads_where(tasks > kFewTasks, call)(
      tasks, [&](int64_t task) { lay(task, task * kRoisPerTask, std::min((task + 1) * kRoisPerTask, num_rois)); });
}

}  // namespace ort_roialign::cpu
