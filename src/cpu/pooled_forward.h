// The fast forward pass of the operators whose samples lie on a grid along both axes: it lays the taps of all RoIs,
// chooses between the two ways to pool, and runs them on the session's threads.
//
// Work is cut by the problem's shapes and RoIs and a bin is computed by one task in one order of operations, so a
// result does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "cpu/cost_model.h"
#include "cpu/packed_layout.h"
#include "cpu/roi_order.h"
#include "cpu/roi_plans.h"
#include "cpu/settings.h"

namespace ort_roialign::cpu {

template <typename T>
const PoolingKernels<T>& kernels_for(const IsaKernels& isa) {
  if constexpr (std::is_same_v<T, float>) return isa.float32;
  if constexpr (std::is_same_v<T, double>) return isa.float64;
  if constexpr (std::is_same_v<T, Float16>) return isa.float16;
  if constexpr (std::is_same_v<T, BFloat16>) return isa.bfloat16;
}

template <typename Op, typename T>
class PooledForward {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Plans = RoiPlans<Op, T>;

  // `plans` are sorted by image.
  PooledForward(const KernelCall& call, const ProblemType& problem, Plans& plans)
      : call_(call),
        problem_(problem),
        plans_(plans),
        kernels_(kernels_for<T>(*all_isas()[call.cpu_settings->isa].kernels)),
        prices_(problem.params.reduction == Reduction::kMaximum ? kMaximumPrices : kAveragePrices),
        groups_(static_cast<double>(divide_up(problem.channels, kGroup))) {
    for (int64_t begin = 0; begin < plans.size();) {
      int64_t end = begin + 1;
      while (end < plans.size() && plans.image(end) == plans.image(begin)) ++end;
      images_.push_back({begin, end, nullptr});
      begin = end;
    }
  }

  // Pools the RoIs but those that neither way is open to, which it takes out of the plans after `other(roi)` for each.
  // Returns the path that it took.
  template <typename Other>
  Path run(Other other) {
    const Path path = choose_path();
    if (path == Path::kPacked) {
      run_packed();
    } else {
      plans_.keep([&](const RoiPlan& plan) { return fits_direct(plan); }, other);
      run_direct();
    }
    return plans_.size() > 0 ? path : Path::kPlain;
  }

 private:
  // Repacked blocks at a time, unless one is larger.
  static constexpr int64_t kMostPackedBytes = int64_t{8} << 20;
  // Output that would push the blocks out of the caches.
  static constexpr int64_t kLeastStreamedBytes = int64_t{4} << 20;
  static constexpr double kNanosecondsPerTask = 20e3;

  struct Image {
    int64_t plan_begin;
    int64_t plan_end;
    std::unique_ptr<PackedLayout> cells;
  };

  // A part of the work on one block of an image.
  struct Task {
    int64_t image;
    int64_t block;
    Real* packed;
    int64_t begin;  // of runs or of plans
    int64_t end;
  };

  static int64_t round_up(int64_t value, int64_t step) { return divide_up(value, step) * step; }

  // Channels of a cache line.
  static constexpr int64_t kGroup = kLineBytes / sizeof(Real);
  static_assert(2 * kGroup * sizeof(Real) == kWidestBlockBytes, "a block is one or two lines of channels wide");

  static double bin_taps(const AxisPlan& axis) {
    return static_cast<double>(axis.bin_end - axis.bin_begin) * axis.points * axis.taps;
  }

  // What the RoIs read of each image.
  void lay_cells() {
    for (Image& image : images_) {
      int64_t row_begin = problem_.height;
      int64_t row_end = 0;
      for (int64_t index = image.plan_begin; index < image.plan_end; ++index) {
        plans_.for_each_tap(plans_[index].y, [&](int64_t row) {
          row_begin = std::min(row_begin, row);
          row_end = std::max(row_end, row + 1);
        });
      }
      row_begin = std::min(row_begin, row_end);  // where no RoI reads anything
      image.cells = std::make_unique<PackedLayout>(*call_.scratch, row_begin, row_end, problem_.width);
      for (int64_t index = image.plan_begin; index < image.plan_end; ++index) {
        const RoiPlan& plan = plans_[index];
        plans_.for_each_tap(plan.y, [&](int64_t row) { image.cells->add(row, plan.column_begin, plan.column_end); });
      }
      image.cells->close();
    }
  }

  // The work of one RoI, without the cells, which RoIs share.
  Work work_of(const RoiPlan& plan) const {
    const double rows = bin_taps(plan.y);
    const double columns = bin_taps(plan.x);
    const double strips = rows / std::max(plan.y.taps, 1);
    const double steps = std::min<double>(divide_up(plan.column_end - plan.column_begin, kGroup), columns);
    Work work;
    work.rois = 1;
    work.bins = static_cast<double>(problem_.bins());
    work.squares = static_cast<double>(divide_up(problem_.bins(), kGroup));
    work.taps = rows * columns;
    work.row_steps = rows * steps;
    work.strip_steps = strips * steps;
    work.strip_taps = strips * columns;
    const double vectors =
        static_cast<double>(divide_up(problem_.params.output_width, kGroup)) * plan.x.points * plan.x.taps;
    work.lane_taps = vectors * kGroup;
    work.picks = strips * vectors;
    return work;
  }

  // Cuts the channels into blocks: as wide as may be, but a block of an image takes no more memory than what the RoIs
  // read of the image's map, or no more than kMostPackedBytes.
  bool choose_blocks() {
    for (const int64_t most : {2 * kGroup, kGroup}) {
      channel_blocks_ = divide_up(problem_.channels, most);
      block_channels_ = round_up(divide_up(problem_.channels, channel_blocks_), kGroup);
      const int64_t block_bytes = block_channels_ * int64_t{sizeof(Real)};  // a cell
      const int64_t map_bytes = problem_.channels * int64_t{sizeof(T)};     // likewise
      const bool small = std::all_of(images_.begin(), images_.end(), [&](const Image& image) {
        return image.cells->cells() * block_bytes <= kMostPackedBytes;
      });
      if (small || block_bytes <= map_bytes) return true;
    }
    return false;
  }

  bool fits_direct(const RoiPlan& plan) const {
    return problem_.params.output_width <= kMostDirectBins && plan.column_end - plan.column_begin <= kWidestDirect;
  }

  // Also sets `cost_`.
  Path choose_path() {
    Work work;
    double most_cells = 0;
    bool all_fit_direct = true;
    for (int64_t index = 0; index < plans_.size(); ++index) {
      const RoiPlan& plan = plans_[index];
      const int32_t width = plan.column_end - plan.column_begin;
      all_fit_direct = all_fit_direct && fits_direct(plan);
      most_cells = std::max(most_cells, std::min<double>(bin_taps(plan.y), problem_.height) * width);
      work.add(work_of(plan));
    }
    const auto packed = [&](double cells) {
      work.cells = cells;
      return packed_cost(prices_, work, groups_);
    };
    const double channels = static_cast<double>(problem_.channels);
    const double direct = problem_.channels <= kFewChannels ? few_channels_cost(work, channels)
                                                            : direct_cost(prices_, work, groups_, channels);
    const auto choose = [&](Path path, double cost) {
      cost_ = cost;
      return path;
    };
    // The cells are laid only where the largest RoI's do not settle it.
    const std::optional<Path> forced = call_.cpu_settings->path;
    if (all_fit_direct && (forced == Path::kDirect || (!forced && direct <= packed(most_cells)))) {
      return choose(Path::kDirect, direct);
    }
    lay_cells();
    double cells = 0;
    for (const Image& image : images_) cells += static_cast<double>(image.cells->cells());
    const bool fits_packed = choose_blocks();
    if (fits_packed && (!all_fit_direct || forced == Path::kPacked || packed(cells) < direct)) {
      return choose(Path::kPacked, packed(cells));
    }
    return choose(Path::kDirect, direct);
  }

  void fill_pool_job(PoolJob<T>& job) {
    job.taps = plans_.table();
    job.plans = plans_.data();
    job.maximum = problem_.params.reduction == Reduction::kMaximum;
    job.output_height = problem_.params.output_height;
    job.output_width = problem_.params.output_width;
    job.channels = problem_.channels;
    job.output = static_cast<T*>(call_.outputs[0].data);
    job.stream = problem_.num_rois * problem_.channels * problem_.bins() * int64_t{sizeof(T)} > kLeastStreamedBytes;
  }

  // Runs task(0) … task(count - 1), on the session's threads where they cost enough to be worth waking them.
  template <typename Body>
  void for_tasks(int64_t count, double nanoseconds, Body body) {
    if (nanoseconds < kLeastParallelNanoseconds) {
      for (int64_t task = 0; task < count; ++task) body(task);
    } else {
      call_.parallel_for(count, body);
    }
  }

  // Replaces cells of the map by offsets, for RoIs [begin, end): `row_offset(plan, row)`, `column_offset(column)`.
  template <typename RowOffset, typename ColumnOffset>
  void place(int64_t begin, int64_t end, RowOffset row_offset, ColumnOffset column_offset) {
    constexpr int64_t kRoisPerTask = 64;
    constexpr double kNanosecondsPerRoi = 200;
    for_tasks(divide_up(end - begin, kRoisPerTask), kNanosecondsPerRoi * static_cast<double>(end - begin),
              [&](int64_t task) {
                const int64_t first = begin + task * kRoisPerTask;
                for (int64_t index = first; index < std::min(first + kRoisPerTask, end); ++index) {
                  const RoiPlan& plan = plans_[index];
                  plans_.for_each_tap(plan.y, [&](int64_t& row) { row = row_offset(plan, row); });
                  plans_.for_each_tap(plan.x, [&](int64_t& column) { column = column_offset(column); });
                }
              });
  }

  void run_direct() {
    if (plans_.size() == 0) return;
    DirectPoolJob<T> job;
    fill_pool_job(job);
    job.plane_size = problem_.plane_size();
    const int64_t width = problem_.width;
    place(
        0, plans_.size(), [&](const RoiPlan&, int64_t row) { return row * width; },
        [](int64_t column) { return column; });
    // A task is some RoIs on some groups of channels: whole RoIs where they are cheap.
    const double each = cost_ / (static_cast<double>(plans_.size()) * groups_);
    const int64_t most = static_cast<int64_t>(kNanosecondsPerTask / each) + 1;  // pairs of a RoI and a group
    const int64_t channels = std::min(most * kGroup, round_up(problem_.channels, kGroup));
    const int64_t parts = divide_up(problem_.channels, channels);
    const int64_t rois = std::max<int64_t>(most / divide_up(channels, kGroup), 1);
    for_tasks(divide_up(plans_.size(), rois) * parts, cost_, [&](int64_t task) {
      const int64_t begin = task % parts * channels;
      const int64_t end = std::min(begin + channels, problem_.channels);
      const int64_t first = task / parts * rois;
      DirectPoolJob<T> own = job;
      for (int64_t index = first; index < std::min(first + rois, plans_.size()); ++index) {
        own.planes = problem_.map + problem_.plane_offset(plans_.image(index), 0);
        kernels_.pool_direct(own, plans_[index], begin, end);
      }
    });
  }

  void run_packed() {
    for (const Image& image : images_) {
      place(
          image.plan_begin, image.plan_end,
          [&](const RoiPlan& plan, int64_t row) { return image.cells->base(row, plan.column_begin) * block_channels_; },
          [&](int64_t column) { return column * block_channels_; });
    }
    const int64_t units = images_.size() * channel_blocks_;
    int64_t most_cells = 0;
    int64_t all_cells = 0;
    for (const Image& image : images_) {
      most_cells = std::max(most_cells, image.cells->cells());
      all_cells += image.cells->cells() * channel_blocks_;
    }
    const int64_t capacity = std::max<int64_t>(
        most_cells, std::min<int64_t>(all_cells, kMostPackedBytes / (block_channels_ * sizeof(Real))));
    ScratchArray<Real> packed(*call_.scratch, capacity * block_channels_);
    for (int64_t unit = 0; unit < units;) {
      std::vector<Task> packing;
      std::vector<Task> pooling;
      int64_t cells = 0;
      for (; unit < units; ++unit) {
        const Image& image = images_[unit / channel_blocks_];
        if (cells + image.cells->cells() > capacity) break;
        add_tasks(unit, packed.data() + cells * block_channels_, packing, pooling);
        cells += image.cells->cells();
      }
      const double part = cost_ * static_cast<double>(cells) / static_cast<double>(std::max<int64_t>(all_cells, 1));
      for_tasks(packing.size(), part, [&](int64_t task) { pack(packing[task]); });
      for_tasks(pooling.size(), part, [&](int64_t task) { pool(pooling[task]); });
    }
  }

  void add_tasks(int64_t unit, Real* packed, std::vector<Task>& packing, std::vector<Task>& pooling) {
    const int64_t number = unit / channel_blocks_;
    const Image& image = images_[number];
    Task task{number, unit % channel_blocks_, packed, 0, 0};
    const int64_t runs = image.cells->runs().size();
    for (int64_t run = 0; run < runs; ++run) packing.push_back({number, task.block, packed, run, run + 1});
    for (int64_t begin = image.plan_begin; begin < image.plan_end; begin = task.end) {
      task.begin = begin;
      task.end = begin;
      for (double cost = 0; task.end < image.plan_end && cost < kNanosecondsPerTask; ++task.end) {
        cost += packed_cost(prices_, work_of(plans_[task.end]), static_cast<double>(block_channels_ / kGroup));
      }
      pooling.push_back(task);
    }
  }

  int32_t used_channels(int64_t block) const {
    return static_cast<int32_t>(std::min(block_channels_, problem_.channels - block * block_channels_));
  }

  void pack(const Task& task) {
    const Image& image = images_[task.image];
    PackJob<T> job;
    job.planes = problem_.map + problem_.plane_offset(plans_.image(image.plan_begin), task.block * block_channels_);
    job.plane_size = problem_.plane_size();
    job.channels = used_channels(task.block);
    job.block_channels = static_cast<int32_t>(block_channels_);
    job.packed = task.packed;
    for (int64_t run = task.begin; run < task.end; ++run) kernels_.pack(job, image.cells->runs()[run]);
  }

  void pool(const Task& task) {
    PackedPoolJob<T> job;
    fill_pool_job(job);
    job.packed = task.packed;
    job.block_channels = static_cast<int32_t>(block_channels_);
    job.channel_begin = task.block * block_channels_;
    job.block_used = used_channels(task.block);
    kernels_.pool_packed(job, task.begin, task.end);
  }

  const KernelCall& call_;
  const ProblemType& problem_;
  Plans& plans_;
  const PoolingKernels<T>& kernels_;
  const Prices& prices_;
  double groups_;  // of channels
  int64_t channel_blocks_ = 0;
  int64_t block_channels_ = 0;  // of each

  std::vector<Image> images_;
  double cost_ = 0;  // of the chosen path, in nanoseconds of one thread
};

}  // namespace ort_roialign::cpu
