// The plans of some RoIs: laid once a call, for all channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/isa_kernels.h"
#include "cpu/pooling_plan.h"
#include "cpu/scratch_array.h"
#include "cpu/tasks.h"
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
    const bool maximum = is_maximum(problem);
    return {bound_bin(region.y, maximum), bound_bin(region.x, maximum)};
  }

  // Plans without taps. `rois` numbers the RoIs, `bounds` and `regions` are those of all RoIs of the problem.
  RoiPlans(const KernelCall& call, const ProblemType& problem, const int64_t* rois, int64_t num_rois,
           const RoiBound* bounds, const Region* regions)
      : problem_(problem),
        regions_(regions),
        bounds_(bounds),
        size_(num_rois),
        plans_(*call.scratch, num_rois),
        cells_(*call.scratch, place_tables(rois)),
        weights_(*call.scratch, cells_.size()),
        columns_(*call.scratch, cells_.size()) {}

  // Lays the taps of all RoIs.
  void lay_all(const KernelCall& call) {
    run_roi_tasks(call, size_, [&](int64_t, int64_t begin, int64_t end) { lay(begin, end); });
  }

  // Lays the taps of some RoIs.
  void lay(int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) lay(plans_[index]);
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
  TapTable<Real> table() { return {cells_.data(), weights_.data(), columns_.data()}; }
  const RoiBound& bound_of(int64_t index) const { return bounds_[plans_[index].roi]; }
  const FeatureMap<T>& map(int64_t index) const { return problem_.map(regions_[plans_[index].roi].map_number); }
  // The planes of the image that a RoI is pooled from.
  const T* planes(int64_t index) const {
    return map(index).data + problem_.plane_offset(map(index), problem_.image(plans_[index].roi), 0);
  }
  int64_t page(int64_t index) const { return problem_.page(plans_[index].roi, regions_[plans_[index].roi]); }

  // Calls body(cell) for all taps of an axis.
  template <typename Body>
  void for_each_tap(const AxisPlan& axis, Body body) {
    const int64_t end = axis.taps_of_bin(axis.bin_end);
    for (int64_t tap = axis.first_tap; tap < end; ++tap) body(cells_[tap]);
  }

 private:
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
    if (is_maximum(problem_)) {
      plan.y = y.maximum();
      plan.x = x.maximum();
    } else {
      plan.y = y.average(1 / region.divisor());
      plan.x = x.average(1);
    }
    plan.fits = y.fits() && x.fits();
    if (plan.y.empty() || plan.x.empty()) plan.y.bin_end = plan.y.bin_begin;  // no bin has samples
    plan.num_columns = plan.column_begin = plan.column_end = 0;
    if (!plan.fits) return;  // the tables are not laid to their end
    list_columns(plan, region.x.ascending());
    plan.fits = plan.num_columns <= kMostColumns;
  }

  // Lists the columns that a RoI reads, each once (or again, where coordinates are so coarse that samples step back),
  // and replaces the cells of its taps by positions in that list. From one point to the next columns hardly ever step
  // back, so what has been listed is found at the list's end.
  void list_columns(RoiPlan& plan, bool ascending) {
    const AxisPlan& x = plan.x;
    int32_t* const columns = columns_.data() + x.first_tap;
    const int64_t points = static_cast<int64_t>(x.bin_end - x.bin_begin) * x.points;
    for (int64_t step = 0; step < points; ++step) {
      int64_t* const cells = cells_.data() + x.first_tap + (ascending ? step : points - 1 - step) * x.taps;
      for (int32_t tap = 0; tap < x.taps; ++tap) {
        const int32_t column = static_cast<int32_t>(cells[tap]);
        int32_t position = plan.num_columns;
        while (position > 0 && columns[position - 1] > column) --position;
        if (position == 0 || columns[position - 1] != column) {
          position = ++plan.num_columns;
          columns[position - 1] = column;
        }
        cells[tap] = position - 1;
      }
    }
    if (plan.num_columns == 0) return;
    const auto [least, most] = std::minmax_element(columns, columns + plan.num_columns);
    plan.column_begin = *least;
    plan.column_end = *most + 1;
  }

  const ProblemType& problem_;
  const Region* regions_;
  const RoiBound* bounds_;
  int64_t size_;
  ScratchArray<RoiPlan> plans_;
  ScratchArray<int64_t> cells_;
  ScratchArray<Real> weights_;
  ScratchArray<int32_t> columns_;
};

}  // namespace ort_roialign::cpu
