// The plans of some RoIs: laid once a call, for all channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/isa_kernels.h"
#include "cpu/pooling_plan.h"
#include "cpu/scratch_array.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// Upper bounds of what one RoI needs.
struct RoiBound {
  BinBound y;
  BinBound x;

  // Taps along both axes. A double, because a RoI may be beyond every table.
  double taps(int32_t bins_y, int32_t bins_x) const {
    return static_cast<double>(bins_y) * y.points * y.taps + static_cast<double>(bins_x) * x.points * x.taps;
  }
};

template <typename Op, typename T>
class RoiPlans {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;

  static RoiBound bound(const ProblemType& problem, const Region& region) {
    const bool maximum = problem.params.reduction == Reduction::kMaximum;
    return {bound_bin(region.y, maximum), bound_bin(region.x, maximum)};
  }

  // `rois` numbers the RoIs, `bounds` and `regions` are those of all RoIs of the problem.
  RoiPlans(const KernelCall& call, const ProblemType& problem, const int64_t* rois, int64_t num_rois,
           const RoiBound* bounds, const Region* regions)
      : problem_(problem),
        regions_(regions),
        bounds_(bounds),
        size_(num_rois),
        plans_(*call.scratch, num_rois),
        offsets_(*call.scratch, place_tables(rois)),
        weights_(*call.scratch, offsets_.size()) {
    const auto lay_some = [&](int64_t task) {
      const int64_t end = std::min((task + 1) * kRoisPerTask, num_rois);
      for (int64_t index = task * kRoisPerTask; index < end; ++index) lay(plans_[index]);
    };
    const int64_t tasks = divide_up(num_rois, kRoisPerTask);
    if (tasks > kLeastParallelTasks) {
      call.parallel_for(tasks, lay_some);
    } else {
      for (int64_t task = 0; task < tasks; ++task) lay_some(task);
    }
  }

  // Removes the RoIs that do not `fit(plan)`, after a call of `other(roi)` for each.
  template <typename Fit, typename Other>
  void keep(Fit fit, Other other) {
    int64_t kept = 0;
    for (int64_t index = 0; index < size_; ++index) {
      if (fit(plans_[index])) {
        plans_[kept++] = plans_[index];
      } else {
        other(plans_[index].roi);
      }
    }
    size_ = kept;
  }

  int64_t size() const { return size_; }
  const RoiPlan* data() { return plans_.data(); }
  RoiPlan& operator[](int64_t index) { return plans_[index]; }
  TapTable<Real> table() { return {offsets_.data(), weights_.data()}; }
  int64_t image(int64_t index) const { return problem_.batch_indices[plans_[index].roi]; }

  // Calls body(offset) for all taps of an axis.
  template <typename Body>
  void for_each_tap(const AxisPlan& axis, Body body) {
    const int64_t end = axis.taps_of_bin(axis.bin_end);
    for (int64_t tap = axis.first_tap; tap < end; ++tap) body(offsets_[tap]);
  }

 private:
  static constexpr int64_t kRoisPerTask = 32;
  static constexpr int64_t kLeastParallelTasks = 3;  // fewer take less time than waking the threads

  // Gives each RoI its part of the tables, and returns their size.
  int64_t place_tables(const int64_t* rois) {
    int64_t taps = 0;
    for (int64_t index = 0; index < plans_.size(); ++index) {
      RoiPlan& plan = plans_[index];
      plan.roi = rois[index];
      const RoiBound& bound = bounds_[plan.roi];
      plan.y.first_tap = taps;
      taps += problem_.params.output_height * bound.y.points * bound.y.taps;
      plan.x.first_tap = taps;
      taps += problem_.params.output_width * bound.x.points * bound.x.taps;
    }
    return taps;
  }

  void lay(RoiPlan& plan) {
    const Region& region = regions_[plan.roi];
    const RoiBound& bound = bounds_[plan.roi];
    AxisLayer<Real> y(region.y, problem_.params.output_height, bound.y, table(), plan.y.first_tap);
    AxisLayer<Real> x(region.x, problem_.params.output_width, bound.x, table(), plan.x.first_tap);
    if (problem_.params.reduction == Reduction::kMaximum) {
      plan.y = y.maximum();
      plan.x = x.maximum();
    } else {
      plan.y = y.average(1 / region.divisor());
      plan.x = x.average(1);
    }
    plan.fits = y.fits() && x.fits();
    if (plan.y.empty() || plan.x.empty()) plan.y.bin_end = plan.y.bin_begin;  // no bin has samples
    plan.column_begin = plan.column_end = 0;
    if (!plan.fits) return;  // the tables are not laid to their end
    for_each_tap(plan.x, [&](int64_t column) {
      const int32_t cell = static_cast<int32_t>(column);
      plan.column_begin = plan.column_end == 0 ? cell : std::min(plan.column_begin, cell);
      plan.column_end = std::max(plan.column_end, cell + 1);
    });
  }

  const ProblemType& problem_;
  const Region* regions_;
  const RoiBound* bounds_;
  int64_t size_;
  ScratchArray<RoiPlan> plans_;
  ScratchArray<int64_t> offsets_;
  ScratchArray<Real> weights_;
};

}  // namespace ort_roialign::cpu
