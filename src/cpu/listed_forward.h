// The forward pass cell by cell, out of repacked blocks. Any operator has it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "cpu/block_queue.h"
#include "cpu/list_blocks.h"
#include "cpu/tasks.h"

namespace ort_roialign::cpu {

template <typename Op, typename T>
class ListedForward {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;
  using Blocks = ListBlocks<Op, T>;

  // `blocks` are cut.
  ListedForward(const KernelCall& call, const ProblemType& problem, const CellTable<Op, T>& table, const Blocks& blocks)
      : call_(call),
        problem_(problem),
        table_(table),
        blocks_(blocks),
        kernels_(kernels_for<T>(*call.cpu_settings)),
        output_(static_cast<T*>(call.outputs[0].data)),
        bytes_of_output_(problem.num_rois * problem.channels * problem.bins() * int64_t{sizeof(T)}) {
    if constexpr (Op::kHasWinnerOutput) winners_ = static_cast<int64_t*>(call.outputs[1].data);
  }

  void run() {
    std::vector<std::vector<Range64>> parts(blocks_.pages().size());
    std::vector<int64_t> tasks;
    for (const ListBlock& block : blocks_.blocks()) {
      std::vector<Range64>& part = parts[number_of(block)];
      if (part.empty()) part = cut_rois(*block.page);
      tasks.push_back(static_cast<int64_t>(part.size()));
    }
    ScratchArray<Real> packed(*call_.scratch, blocks_.buffers() * blocks_.buffer_size());
    const auto memory = [&](int64_t buffer) { return packed.data() + buffer * blocks_.buffer_size(); };
    const auto pack = [&](int64_t number, int64_t buffer) {
      const ListBlock& block = blocks_.blocks()[number];
      pack_block(kernels_, blocks_, block, problem_.map(block.page->map_number).data, memory(buffer));
    };
    // A list that is laid anew takes memory; but what throws in a queue would leave other threads waiting.
    std::exception_ptr failure;
    std::once_flag failed;
    const auto pool_part = [&](int64_t number, int64_t buffer, int64_t task) {
      const ListBlock& block = blocks_.blocks()[number];
      try {
        pool(block, parts[number_of(block)][task], memory(buffer));
      } catch (...) {
        std::call_once(failed, [&] { failure = std::current_exception(); });
      }
    };
    BlockQueue queue(tasks, blocks_.buffers());
    queue.run(threads_where(blocks_.worth_threads(), call_), pack, pool_part);
    if (failure) std::rethrow_exception(failure);
  }

 private:
  size_t number_of(const ListBlock& block) const { return block.page - blocks_.pages().data(); }

  // Cuts a page's RoIs into tasks for one block.
  std::vector<Range64> cut_rois(const ListPage& page) const {
    const double bins = static_cast<double>(problem_.bins());
    const double part_of_bins = 1 / static_cast<double>(problem_.channels_per_channel());
    return cut_by_cost(0, static_cast<int64_t>(page.rois.size()), [&](int64_t index) {
      const ListWork work{0, page.listed_cells[index] * part_of_bins, bins * part_of_bins};
      return packed_list_cost(kForwardListPrices, work, blocks_.lines_of_block());
    });
  }

  void pool(const ListBlock& block, Range64 rois, const Real* packed) const {
    for (int64_t index = rois.begin; index < rois.end; ++index) {
      blocks_.for_each_run_of_bins(
          block, [&](int64_t begin, int64_t end) { pool_bins(block, block.page->rois[index], begin, end, packed); });
    }
  }

  void pool_bins(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, const Real* packed) const {
    alignas(kLineBytes) Real staged[kStagingBytes / sizeof(Real)];
    std::fill_n(staged, (end - begin) * blocks_.lanes(), Real{0});
    if (is_maximum(problem_)) {
      if constexpr (Op::kHasMaximum) take_maxima(block, roi, begin, end, packed, staged);
    } else {
      table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
        kernels_.sum_cells(portion.lists, blocks_.block_at(block, portion, packed), staged_bin(staged, portion, begin));
      });
    }
    write(block, roi, begin, end, staged);
  }

  Real* staged_bin(Real* staged, const Portion<Real>& portion, int64_t begin) const {
    return staged + (portion.first_bin - begin) * blocks_.lanes();
  }

  void take_maxima(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, const Real* packed,
                   Real* values) const {
    alignas(kLineBytes) Real winners[kStagingBytes / sizeof(Real)];
    if (winners_ != nullptr) clear_winners(block, roi, begin, end);
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      std::fill_n(winners, int64_t{portion.lists.bins} * blocks_.lanes(), Real{-1});
      kernels_.take_samples(portion.lists, Region::kCellsPerSample, blocks_.block_at(block, portion, packed),
                            portion.first_sample == 0, staged_bin(values, portion, begin), winners);
      if (winners_ != nullptr) write_winners(block, roi, portion, winners);
    });
  }

  template <typename Body>
  void for_each_output(const ListBlock& block, int64_t roi, int64_t bin_begin, int64_t num_bins, Body body) const {
    for (int64_t bin = 0; bin < num_bins; ++bin) {
      const auto [bin_y, bin_x] = problem_.bin_place(bin_begin + bin);
      for (int32_t channel = 0; channel < block.channels; ++channel) {
        body(bin * blocks_.lanes() + channel, bin,
             problem_.bin_offset(roi, block.first_channel + channel, bin_y, bin_x));
      }
    }
  }

  void clear_winners(const ListBlock& block, int64_t roi, int64_t begin, int64_t end) const {
    for_each_output(block, roi, begin, end - begin,
                    [&](int64_t, int64_t, int64_t place) { winners_[place] = Maximum<Real>::kNoWinner; });
  }

  // A sample of an operator that has this output is a cell.
  void write_winners(const ListBlock& block, int64_t roi, const Portion<Real>& portion, const Real* winners) const {
    const CellLists<Real>& lists = portion.lists;
    for_each_output(block, roi, portion.first_bin, lists.bins, [&](int64_t lane, int64_t bin, int64_t place) {
      if (winners[lane] < 0) return;
      const int32_t cell = lists.begin_of(static_cast<int32_t>(bin)) + static_cast<int32_t>(winners[lane]);
      winners_[place] = portion.base + lists.cells[cell].cell;
    });
  }

  void write(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, const Real* staged) const {
    if constexpr (Op::kChannelPerBin) {
      for_each_output(block, roi, begin, end - begin,
                      [&](int64_t lane, int64_t, int64_t place) { output_[place] = narrow<T>(staged[lane]); });
    } else {
      const auto [bin_y, bin_x] = problem_.bin_place(begin);
      UnpackJob<T> job;
      job.packed = staged;
      job.block_channels = blocks_.lanes();
      job.planes = output_ + problem_.bin_offset(roi, block.first_channel, bin_y, bin_x);
      job.plane_stride = problem_.bins();
      job.channels = block.channels;
      job.stream = bytes_of_output_ > kLeastStreamedBytes;
      kernels_.unpack(job, end - begin);
    }
  }

  const KernelCall& call_;
  const ProblemType& problem_;
  const CellTable<Op, T>& table_;
  const Blocks& blocks_;
  const PoolingKernels<T>& kernels_;
  T* output_;
  int64_t* winners_ = nullptr;
  int64_t bytes_of_output_;
};

}  // namespace ort_roialign::cpu
