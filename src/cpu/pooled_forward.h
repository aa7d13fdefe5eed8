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

#include "cpu/block_queue.h"
#include "cpu/channel_blocks.h"
#include "cpu/cost_model.h"
#include "cpu/packed_layout.h"
#include "cpu/roi_plans.h"
#include "cpu/settings.h"
#include "cpu/tasks.h"

namespace ort_roialign::cpu {

template <typename Op, typename T>
class PooledForward {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Plans = RoiPlans<Op, T>;

  // `plans` are sorted by page.
  PooledForward(const KernelCall& call, const ProblemType& problem, Plans& plans)
      : call_(call),
        problem_(problem),
        plans_(plans),
        kernels_(kernels_for<T>(*call.cpu_settings)),
        prices_(is_maximum(problem) ? kMaximumPrices : kAveragePrices),
        groups_(static_cast<double>(divide_up(problem.channels, kGroup))) {}

  // Pools the RoIs but those that neither way is open to, which it takes out of the plans after `other(roi)` for each.
  // Returns the path that it took, if there was a RoI to pool.
  template <typename Other>
  std::optional<Path> run(Other other) {
    const bool few = problem_.channels <= kFewChannels && call_.cpu_settings->path != Path::kPacked;
    if (few) {
      run_few_channels();
    } else {
      plans_.lay_all(call_);
    }
    plans_.keep([&](const RoiPlan& plan) { return plan.fits && (!few || fits_direct(plan)); }, other);
    if (plans_.size() == 0) return std::nullopt;
    if (few) return Path::kDirect;
    find_pages();
    const Path path = choose_path();
    if (path == Path::kPacked) {
      run_packed();
    } else {
      plans_.keep([&](const RoiPlan& plan) { return fits_direct(plan); }, other);
      run_direct();
    }
    return plans_.size() > 0 ? std::optional(path) : std::nullopt;
  }

 private:
  static constexpr double kLeastTasks = 4;

  // One image of one map.
  struct Page {
    FeatureMap<T> map;
    const T* planes;  // of the image's first channel
    int64_t plan_begin;
    int64_t plan_end;
    std::unique_ptr<PackedLayout> cells;
  };

  static int64_t round_up(int64_t value, int64_t step) { return divide_up(value, step) * step; }

  // Channels of a cache line.
  static constexpr int64_t kGroup = kLineBytes / sizeof(Real);

  static double bin_taps(const AxisPlan& axis) {
    return static_cast<double>(axis.bin_end - axis.bin_begin) * axis.points * axis.taps;
  }

  void find_pages() {
    for (int64_t begin = 0; begin < plans_.size();) {
      const int64_t page = plans_.page(begin);
      int64_t end = begin + 1;
      while (end < plans_.size() && plans_.page(end) == page) ++end;
      pages_.push_back({plans_.map(begin), plans_.planes(begin), begin, end, nullptr});
      begin = end;
    }
  }

  // Of all maps that any RoI is pooled from.
  int64_t bytes_of_maps() const {
    int64_t cells = 0;
    const T* last = nullptr;
    for (const Page& page : pages_) {
      if (page.map.data != last) cells += problem_.num_images * page.map.plane_size();
      last = page.map.data;
    }
    return cells * problem_.channels * int64_t{sizeof(T)};
  }

  // What the RoIs read of each page.
  void lay_cells() {
    for (Page& page : pages_) {
      int64_t row_begin = page.map.height;
      int64_t row_end = 0;
      for (int64_t index = page.plan_begin; index < page.plan_end; ++index) {
        plans_.for_each_tap(plans_[index].y, [&](int64_t row) {
          row_begin = std::min(row_begin, row);
          row_end = std::max(row_end, row + 1);
        });
      }
      row_begin = std::min(row_begin, row_end);  // where no RoI reads anything
      page.cells = std::make_unique<PackedLayout>(*call_.scratch, row_begin, row_end, page.map.width);
      for (int64_t index = page.plan_begin; index < page.plan_end; ++index) {
        const RoiPlan& plan = plans_[index];
        plans_.for_each_tap(plan.y, [&](int64_t row) { page.cells->add(row, plan.column_begin, plan.column_end); });
      }
      page.cells->close();
      repacked_.most_cells = std::max(repacked_.most_cells, page.cells->cells());
      repacked_.all_cells += page.cells->cells();
    }
    repacked_.pages = static_cast<int64_t>(pages_.size());
    repacked_.channels = problem_.channels;
    repacked_.element_bytes = sizeof(T);
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
    work.row_cells = rows * plan.num_columns;
    work.strip_cells = strips * plan.num_columns;
    work.row_steps = rows * steps;
    work.strip_steps = strips * steps;
    work.strip_taps = strips * columns;
    return work;
  }

  bool fits_direct(const RoiPlan& plan) const {
    return problem_.params.output_width <= kMostDirectBins && plan.column_end - plan.column_begin <= kMostColumns;
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
      most_cells = std::max(most_cells, std::min<double>(bin_taps(plan.y), plans_.map(index).height) * width);
      work.add(work_of(plan));
    }
    const double far = far_part(static_cast<double>(bytes_of_maps()));
    const auto packed = [&](double cells) {
      work.cells = cells;
      return packed_cost(prices_, work, groups_, far);
    };
    const double channels = static_cast<double>(problem_.channels);
    const double direct = direct_cost(prices_, work, groups_, far, channels);
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
    const double cells = static_cast<double>(repacked_.all_cells);
    blocks_ = cut_channels<Real>(repacked_);
    if (blocks_ && (!all_fit_direct || forced == Path::kPacked || packed(cells) < direct)) {
      return choose(Path::kPacked, packed(cells));
    }
    return choose(Path::kDirect, direct);
  }

  void fill_pool_job(PoolJob<T>& job) {
    job.taps = plans_.table();
    job.maximum = is_maximum(problem_);
    job.output_height = problem_.params.output_height;
    job.output_width = problem_.params.output_width;
    job.channels = problem_.channels;
    job.output = static_cast<T*>(call_.outputs[0].data);
    job.stream = problem_.num_rois * problem_.channels * problem_.bins() * int64_t{sizeof(T)} > kLeastStreamedBytes;
  }

  bool worth_threads() const { return cost_ >= kLeastParallelNanoseconds; }

  // Once the cost is known.
  const ParallelFor& threads() const { return threads_where(worth_threads(), call_); }

  DirectPoolJob<T> direct_job() {
    DirectPoolJob<T> job;
    fill_pool_job(job);
    return job;
  }

  void pool_direct(DirectPoolJob<T>& job, int64_t index, int64_t channel_begin, int64_t channel_end) {
    job.planes = plans_.planes(index);
    job.plane_size = plans_.map(index).plane_size();
    job.width = plans_.map(index).width;
    kernels_.pool_direct(job, plans_[index], channel_begin, channel_end);
  }

  // Pools the RoIs that `fits_direct`. With few channels a RoI's taps cost as much as its bins, so they are laid where
  // they are used, and no path is chosen by them.
  void run_few_channels() {
    cost_ = 0;
    for (int64_t index = 0; index < plans_.size(); ++index) {
      const RoiBound& bound = plans_.bound_of(index);
      const double rows = static_cast<double>(problem_.params.output_height) * bound.y.points * bound.y.taps;
      const double columns = static_cast<double>(problem_.params.output_width) * bound.x.points * bound.x.taps;
      const double steps = std::min<double>(columns, plans_.map(index).width) / kGroup + 1;
      cost_ +=
          few_channels_cost(static_cast<double>(problem_.bins()), rows * steps, static_cast<double>(problem_.channels));
    }
    const double each = cost_ / static_cast<double>(plans_.size());
    const int64_t rois = static_cast<int64_t>(kNanosecondsPerTask / each) + 1;
    threads()(divide_up(plans_.size(), rois), [&](int64_t task) {
      const int64_t begin = task * rois;
      const int64_t end = std::min(begin + rois, plans_.size());
      plans_.lay(begin, end);
      DirectPoolJob<T> job = direct_job();
      for (int64_t index = begin; index < end; ++index) {
        if (plans_[index].fits && fits_direct(plans_[index])) pool_direct(job, index, 0, problem_.channels);
      }
    });
  }

  void run_direct() {
    if (plans_.size() == 0) return;
    // A task is some RoIs on some groups of channels: whole RoIs where they are cheap.
    const double each = cost_ / (static_cast<double>(plans_.size()) * groups_);
    const double per_task = std::min(kNanosecondsPerTask, cost_ / kLeastTasks);
    const int64_t most = static_cast<int64_t>(per_task / each) + 1;  // pairs of a RoI and a group
    const int64_t channels = std::min(most * kGroup, round_up(problem_.channels, kGroup));
    const int64_t parts = divide_up(problem_.channels, channels);
    const int64_t rois = std::max<int64_t>(most / divide_up(channels, kGroup), 1);
    threads()(divide_up(plans_.size(), rois) * parts, [&](int64_t task) {
      const int64_t begin = task % parts * channels;
      const int64_t end = std::min(begin + channels, problem_.channels);
      const int64_t first = task / parts * rois;
      DirectPoolJob<T> job = direct_job();
      for (int64_t index = first; index < std::min(first + rois, plans_.size()); ++index) {
        pool_direct(job, index, begin, end);
      }
    });
  }

  // One block of channels of one page.
  struct Block {
    const Page* page;
    int64_t number;
    const std::vector<Range64>* parts;  // of the page's RoIs, one for each task
  };

  void run_packed() {
    std::vector<std::vector<Range64>> parts;
    for (const Page& page : pages_) {
      place_rows(page);
      parts.push_back(cut_rois(page));
    }
    std::vector<Block> blocks;
    std::vector<int64_t> tasks;
    for (size_t page = 0; page < pages_.size(); ++page) {
      for (int64_t number = 0; number < blocks_->count; ++number) {
        blocks.push_back({&pages_[page], number, &parts[page]});
        tasks.push_back(parts[page].size());
      }
    }
    const int64_t buffers = worth_threads() ? count_buffers<Real>(repacked_, *blocks_) : 1;
    const int64_t buffer_size = repacked_.most_cells * blocks_->channels;
    ScratchArray<Real> packed(*call_.scratch, buffers * buffer_size);
    const auto memory = [&](int64_t buffer) { return packed.data() + buffer * buffer_size; };
    const auto pack_block = [&](int64_t block, int64_t buffer) { pack(blocks[block], memory(buffer)); };
    const auto pool_part = [&](int64_t block, int64_t buffer, int64_t task) {
      pool(blocks[block], (*blocks[block].parts)[task], memory(buffer));
    };
    BlockQueue queue(tasks, buffers);
    queue.run(threads(), pack_block, pool_part);
  }

  // Replaces rows of the map by their places in a block.
  void place_rows(const Page& page) {
    for (int64_t index = page.plan_begin; index < page.plan_end; ++index) {
      const RoiPlan& plan = plans_[index];
      plans_.for_each_tap(plan.y,
                          [&](int64_t& row) { row = page.cells->base(row, plan.column_begin) * blocks_->channels; });
    }
  }

  // Cuts a page's RoIs into tasks for one block.
  std::vector<Range64> cut_rois(const Page& page) const {
    return cut_by_cost(page.plan_begin, page.plan_end, [&](int64_t index) {
      return packed_pool_cost(prices_, work_of(plans_[index]), static_cast<double>(blocks_->channels / kGroup));
    });
  }

  int32_t used_channels(int64_t block) const {
    return static_cast<int32_t>(std::min(blocks_->channels, problem_.channels - block * blocks_->channels));
  }

  void pack(const Block& block, Real* packed) {
    PackJob<T> job;
    job.plane_stride = block.page->map.plane_size();
    job.planes = block.page->planes + block.number * blocks_->channels * job.plane_stride;
    job.channels = used_channels(block.number);
    job.block_channels = static_cast<int32_t>(blocks_->channels);
    job.packed = packed;
    for (const PackedRun& run : block.page->cells->runs()) kernels_.pack(job, run);
  }

  void pool(const Block& block, Range64 rois, const Real* packed) {
    PackedPoolJob<T> job;
    fill_pool_job(job);
    job.plans = plans_.data();
    job.packed = packed;
    job.block_channels = static_cast<int32_t>(blocks_->channels);
    job.channel_begin = block.number * blocks_->channels;
    job.block_used = used_channels(block.number);
    kernels_.pool_packed(job, rois.begin, rois.end);
  }

  const KernelCall& call_;
  const ProblemType& problem_;
  Plans& plans_;
  const PoolingKernels<T>& kernels_;
  const Prices& prices_;
  double groups_;                        // of channels
  Repacked repacked_;                    // once the cells are laid
  std::optional<ChannelBlocks> blocks_;  // likewise; none where memory does not allow them

  std::vector<Page> pages_;
  double cost_ = 0;  // of the chosen path, in nanoseconds of one thread
};

}  // namespace ort_roialign::cpu
