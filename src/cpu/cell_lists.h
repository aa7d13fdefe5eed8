// What the bins of each RoI read and what it weighs, as lists of cells: laid once a call for all channels, as far as
// the table has room, and else anew where they are used.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/bin_lists.h"
#include "cpu/isa_kernels.h"
#include "cpu/scratch_array.h"
#include "cpu/tasks.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// The cells of consecutive bins of a RoI, or some of the cells of one bin.
template <typename Real>
struct Portion {
  CellLists<Real> lists;  // of cells counted from `base`
  int64_t base;           // in a plane
  int64_t first_bin;      // of the RoI
  int64_t first_sample;   // of a maximum: of its bin, in the order of visit; 0 where the bins are whole
};

// Cells relative to a base, so that a list takes half of the memory.
template <typename Real>
class CellBuffer {
 public:
  CellBuffer(WeightedCell<Real>* cells, int64_t room) : cells_(cells), room_(room) {}

  bool has_room(int64_t cells) const { return size_ + cells <= room_; }
  bool is_near(int64_t offset) const {
    return !has_base_ || (offset >= base_ && offset - base_ <= std::numeric_limits<int32_t>::max());
  }

  // Only where there is room, and near.
  void add(int64_t offset, Real weight) {
    if (!has_base_) base_ = std::max(offset - kBefore, int64_t{0});
    has_base_ = true;
    cells_[size_++] = {static_cast<int32_t>(offset - base_), weight};
  }
  void add_outside() { cells_[size_++] = {kOutside, 0}; }

  // Adds to the weight of a cell that is among the last ones from `begin` on. Returns whether there is one.
  bool merge(int64_t begin, int64_t offset, Real weight) {
    const int64_t cell = offset - base_;
    for (int64_t at = size_ - 1; at >= std::max(begin, size_ - kLookBack); --at) {
      if (cells_[at].cell == cell) {
        cells_[at].weight += weight;
        return true;
      }
    }
    return false;
  }

  void clear() {
    size_ = 0;
    has_base_ = false;
  }
  int64_t size() const { return size_; }
  int64_t base() const { return base_; }
  const WeightedCell<Real>* cells() const { return cells_; }

 private:
  static constexpr int64_t kBefore = int64_t{1} << 29;  // later cells may lie before the first one
  static constexpr int64_t kLookBack = 8;               // neighbouring samples share cells

  WeightedCell<Real>* cells_;
  int64_t room_;
  int64_t size_ = 0;
  bool has_base_ = false;
  int64_t base_ = 0;
};

// Walks over the cells of some bins of a RoI: of an average each with its share, of a maximum sample by sample.
template <typename Op, typename T>
class BinCellWalker {
 public:
  using Real = ComputeType<T>;
  using Region = typename Problem<Op, T>::Region;

  // Bins [begin, end).
  BinCellWalker(const Problem<Op, T>& problem, const Region& region, int64_t begin, int64_t end)
      : problem_(problem),
        region_(region),
        bins_(region, rows_of(problem, begin, end), columns_of(problem, begin, end),
              problem.map(region.map_number).width) {}

  // Calls put(offset, weight) for the cells of an average; those of samples may come again.
  template <typename Put>
  void visit_average(int64_t bin, Put put) const {
    const auto [bin_y, bin_x] = problem_.bin_place(bin);
    const Real share = 1 / region_.divisor(bin_y, bin_x);
    bins_.for_each_cell(bin_y, bin_x, [&](int64_t offset, Real weight) { put(offset, weight * share); });
  }

  template <typename Visit>
  void visit_samples(int64_t bin, Visit visit) const {
    const auto [bin_y, bin_x] = problem_.bin_place(bin);
    region_.visit_samples(bin_y, bin_x, visit);
  }

 private:
  static Range rows_of(const Problem<Op, T>& problem, int64_t begin, int64_t end) {
    if (begin == end || is_maximum(problem)) return {0, 0};  // a maximum is visited by its samples
    return {problem.bin_place(begin).y, problem.bin_place(end - 1).y + 1};
  }

  static Range columns_of(const Problem<Op, T>& problem, int64_t begin, int64_t end) {
    const Range rows = rows_of(problem, begin, end);
    if (rows.size() != 1) return {0, rows.empty() ? 0 : problem.params.output_width};
    return {problem.bin_place(begin).x, problem.bin_place(end - 1).x + 1};
  }

  const Problem<Op, T>& problem_;
  const Region& region_;
  BinCells<Region, Real> bins_;
};

template <typename Op, typename T>
class CellTable {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;
  using Walker = BinCellWalker<Op, T>;

  // `regions` are those of all RoIs.
  CellTable(const KernelCall& call, const ProblemType& problem, const Region* regions)
      : problem_(problem),
        regions_(regions),
        room_(room_of_task(problem)),
        cells_(*call.scratch, count_roi_tasks(problem.num_rois) * room_),
        ends_(*call.scratch, room_ > 0 ? problem.num_rois * problem.bins() : 0),
        rois_(*call.scratch, problem.num_rois) {
    run_roi_tasks(call, problem.num_rois,
                  [&](int64_t task, int64_t begin, int64_t end) { lay(cells_.data() + task * room_, begin, end); });
  }

  bool has(int64_t roi) const { return rois_[roi].cells != nullptr; }

  // Calls use(portion) for all cells of bins [begin, end) of a RoI, in order.
  template <typename Use>
  void for_each_portion(int64_t roi, int64_t begin, int64_t end, Use use) const {
    if (!has(roi)) return for_each_new_portion(roi, begin, end, use);
    const int32_t first = begin == 0 ? 0 : end_of(roi, begin - 1);
    const int32_t* ends = &ends_[roi * problem_.bins() + begin];
    use(Portion<Real>{{rois_[roi].cells, ends, first, static_cast<int32_t>(end - begin)}, rois_[roi].base, begin, 0});
  }

 private:
  static constexpr int64_t kMostCells = int64_t{1} << 20;  // 8 MB in float32
  static constexpr int64_t kLeastCells = int64_t{1} << 16;
  static constexpr int64_t kCellsPerBin = 32;  // that there is room for; few RoIs need more
  static constexpr int64_t kCellsPerPortion = 1024;

  struct ListedRoi {
    const WeightedCell<Real>* cells;  // null: not in the table
    int64_t base;
  };

  static int64_t room_of_task(const ProblemType& problem) {
    if (problem.num_rois == 0 || problem.bins() > kMostCells / problem.num_rois) return 0;
    const int64_t tasks = count_roi_tasks(problem.num_rois);
    const int64_t rois = std::min(problem.num_rois, kRoisPerTask);
    return std::min(std::max(rois * problem.bins() * kCellsPerBin, kLeastCells), kMostCells / tasks);
  }

  int32_t end_of(int64_t roi, int64_t bin) const { return ends_[roi * problem_.bins() + bin]; }

  // Lays RoIs [begin, end) from `cells` on, as many as there is room for.
  void lay(WeightedCell<Real>* cells, int64_t begin, int64_t end) {
    int64_t room = room_;
    for (int64_t roi = begin; roi < end; ++roi) {
      CellBuffer<Real> buffer(cells, room);
      rois_[roi] = {nullptr, 0};
      if (room_ == 0 || !lay_roi(roi, buffer)) continue;
      rois_[roi] = {cells, buffer.base()};
      cells += buffer.size();
      room -= buffer.size();
    }
  }

  // Returns whether the RoI's lists fit.
  bool lay_roi(int64_t roi, CellBuffer<Real>& buffer) {
    const Walker walker(problem_, regions_[roi], 0, problem_.bins());
    const bool maximum = is_maximum(problem_);
    bool fits = true;
    for (int64_t bin = 0; bin < problem_.bins() && fits; ++bin) {
      const int64_t begin = buffer.size();
      if (maximum) {
        if constexpr (Op::kHasMaximum) {
          walker.visit_samples(bin, [&](const auto& sample) { fits = fits && add_sample(buffer, sample); });
        }
      } else {
        if constexpr (Op::kHasAverage) {
          walker.visit_average(
              bin, [&](int64_t offset, Real weight) { fits = fits && add_cell(buffer, begin, offset, weight); });
        }
      }
      ends_[roi * problem_.bins() + bin] = static_cast<int32_t>(buffer.size());
    }
    return fits;
  }

  // These return whether there was room.
  static bool add_cell(CellBuffer<Real>& buffer, int64_t begin, int64_t offset, Real weight) {
    if (!Region::kSeparable && buffer.merge(begin, offset, weight)) return true;
    if (!buffer.has_room(1) || !buffer.is_near(offset)) return false;
    buffer.add(offset, weight);
    return true;
  }

  template <typename SampleType>
  static bool add_sample(CellBuffer<Real>& buffer, const SampleType& sample) {
    if (!buffer.has_room(SampleType::kCells)) return false;
    for (int cell = 0; cell < SampleType::kCells; ++cell) {
      if (sample.inside && !buffer.is_near(sample.offset[cell])) return false;
    }
    for (int cell = 0; cell < SampleType::kCells; ++cell) {
      if (sample.inside) {
        buffer.add(sample.offset[cell], sample.weight[cell]);
      } else {
        buffer.add_outside();
      }
    }
    return true;
  }

  template <typename Use>
  void for_each_new_portion(int64_t roi, int64_t begin, int64_t end, Use use) const {
    const Walker walker(problem_, regions_[roi], begin, end);
    WeightedCell<Real> cells[kCellsPerPortion];
    CellBuffer<Real> buffer(cells, kCellsPerPortion);
    for (int64_t bin = begin; bin < end; ++bin) {
      int64_t first_sample = 0;
      const auto flush = [&] {
        const int32_t size = static_cast<int32_t>(buffer.size());
        if (size > 0) use(Portion<Real>{{cells, &size, 0, 1}, buffer.base(), bin, first_sample});
        if constexpr (Op::kHasMaximum) first_sample += size / Region::kCellsPerSample;
        buffer.clear();
      };
      if (is_maximum(problem_)) {
        if constexpr (Op::kHasMaximum) {
          walker.visit_samples(bin, [&](const auto& sample) {
            if (add_sample(buffer, sample)) return;
            flush();
            add_sample(buffer, sample);
          });
        }
      } else {
        if constexpr (Op::kHasAverage) {
          walker.visit_average(bin, [&](int64_t offset, Real weight) {
            if (add_cell(buffer, 0, offset, weight)) return;
            flush();
            add_cell(buffer, 0, offset, weight);
          });
        }
      }
      flush();
    }
  }

  const ProblemType& problem_;
  const Region* regions_;
  int64_t room_;  // of a task
  ScratchArray<WeightedCell<Real>> cells_;
  ScratchArray<int32_t> ends_;  // [num_rois, bins]
  ScratchArray<ListedRoi> rois_;
};

}  // namespace ort_roialign::cpu
