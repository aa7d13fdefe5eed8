// The gradient of the feature maps cell by cell, in blocks that are unpacked at the end. Any operator has it.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "cpu/list_blocks.h"
#include "cpu/tasks.h"

namespace ort_roialign::cpu {

template <typename Op, typename T>
class ListedGradient {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;
  using Blocks = ListBlocks<Op, T>;

  // A maximum also needs the map.
  static int64_t blocks_per_buffer(const ProblemType& problem) { return is_maximum(problem) ? 2 : 1; }

  // `blocks` are cut, with as many in a buffer.
  ListedGradient(const KernelCall& call, const ProblemType& problem, const CellTable<Op, T>& table,
                 const Blocks& blocks)
      : call_(call),
        problem_(problem),
        table_(table),
        blocks_(blocks),
        kernels_(kernels_for<T>(*call.cpu_settings)),
        output_gradient_(static_cast<const T*>(call.inputs[0].data)) {}

  // A thread owns a block, and adds the RoIs' shares in their order.
  void run() {
    clear_other_pages();
    ScratchArray<Real> memory(*call_.scratch, blocks_.buffers() * blocks_.buffer_size());
    std::atomic<size_t> next{0};
    const auto work = [&](int64_t buffer) {
      for (size_t number = next++; number < blocks_.blocks().size(); number = next++) {
        const ListBlock& block = blocks_.blocks()[number];
        if (output_of(block.page->map_number) != nullptr) spread(block, memory.data() + buffer * blocks_.buffer_size());
      }
    };
    threads_where(blocks_.worth_threads(), call_)(blocks_.buffers(), work);
  }

 private:
  T* output_of(int32_t map_number) const { return static_cast<T*>(call_.outputs[map_number].data); }

  // The pages without RoIs have no gradient.
  void clear_other_pages() const {
    auto next = blocks_.pages().begin();
    for (int64_t number = 0; number < problem_.num_maps * problem_.num_images; ++number) {
      if (next != blocks_.pages().end() && next->number == number) {
        ++next;
        continue;
      }
      const int32_t map_number = static_cast<int32_t>(number / problem_.num_images);
      const FeatureMap<T>& map = problem_.map(map_number);
      if (output_of(map_number) == nullptr) continue;
      std::fill_n(output_of(map_number) + problem_.plane_offset(map, number % problem_.num_images, 0),
                  problem_.map_channels() * map.plane_size(), T{});
    }
  }

  void spread(const ListBlock& block, Real* memory) const {
    const int64_t size = block.page->cells() * blocks_.lanes();
    std::fill_n(memory, size, Real{0});
    Real* const values = memory + size;
    if (is_maximum(problem_)) {
      pack_block(kernels_, blocks_, block, problem_.map(block.page->map_number).data, values);
    }
    for (const int64_t roi : block.page->rois) {
      blocks_.for_each_run_of_bins(
          block, [&](int64_t begin, int64_t end) { spread_bins(block, roi, begin, end, values, memory); });
    }
    unpack(block, memory);
  }

  void spread_bins(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, const Real* values,
                   Real* gradient) const {
    alignas(kLineBytes) Real staged[kStagingBytes / sizeof(Real)];
    stage(block, roi, begin, end, staged);
    if (is_maximum(problem_)) {
      if constexpr (Op::kHasMaximum) spread_maxima(block, roi, begin, end, values, staged, gradient);
    } else {
      table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
        kernels_.spread_sums(portion.lists, staged + (portion.first_bin - begin) * blocks_.lanes(),
                             blocks_.block_at(block, portion, gradient));
      });
    }
  }

  // The gradient of some bins, [bins, lanes].
  void stage(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, Real* staged) const {
    if constexpr (Op::kChannelPerBin) {
      const auto [bin_y, bin_x] = problem_.bin_place(begin);
      const T* first = output_gradient_ + problem_.bin_offset(roi, block.first_channel, bin_y, bin_x);
      std::fill_n(staged, blocks_.lanes(), Real{0});
      for (int32_t channel = 0; channel < block.channels; ++channel) {
        staged[channel] = widen(first[channel * problem_.bins()]);
      }
    } else {
      pack_gradient(kernels_, problem_, output_gradient_, roi, block.first_channel, block.channels, blocks_.lanes(),
                    begin, end, staged);
    }
  }

  void spread_maxima(const ListBlock& block, int64_t roi, int64_t begin, int64_t end, const Real* values,
                     const Real* staged, Real* gradient) const {
    if (!table_.has(roi)) {
      for (int64_t bin = begin; bin < end; ++bin) {
        spread_maximum(block, roi, bin, values, staged + (bin - begin) * blocks_.lanes(), gradient);
      }
      return;
    }
    alignas(kLineBytes) Real maxima[kStagingBytes / sizeof(Real)];
    alignas(kLineBytes) Real winners[kStagingBytes / sizeof(Real)];
    std::fill_n(maxima, (end - begin) * blocks_.lanes(), Real{0});
    std::fill_n(winners, (end - begin) * blocks_.lanes(), Real{-1});
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      kernels_.take_samples(portion.lists, Region::kCellsPerSample, blocks_.block_at(block, portion, values), true,
                            maxima, winners);
      kernels_.spread_maxima(portion.lists, Region::kCellsPerSample, winners, staged,
                             blocks_.block_at(block, portion, gradient));
    });
  }

  // Of one bin, whose samples come in portions: which of them wins is known only after all.
  void spread_maximum(const ListBlock& block, int64_t roi, int64_t bin, const Real* values, const Real* staged,
                      Real* gradient) const {
    constexpr int32_t kMostLanes = kWidestBlockBytes / static_cast<int32_t>(sizeof(Real));
    alignas(kLineBytes) std::array<Real, kMostLanes> maxima{};
    alignas(kLineBytes) std::array<Real, kMostLanes> winners{};  // of a portion
    std::array<int64_t, kMostLanes> samples{};                   // that have won
    table_.for_each_portion(roi, bin, bin + 1, [&](const Portion<Real>& portion) {
      winners.fill(-1);
      kernels_.take_samples(portion.lists, Region::kCellsPerSample, blocks_.block_at(block, portion, values),
                            portion.first_sample == 0, maxima.data(), winners.data());
      for (int32_t lane = 0; lane < blocks_.lanes(); ++lane) {
        if (winners[lane] >= 0) samples[lane] = portion.first_sample + static_cast<int64_t>(winners[lane]);
      }
    });
    table_.for_each_portion(roi, bin, bin + 1, [&](const Portion<Real>& portion) {
      const int64_t count = portion.lists.ends[0] / Region::kCellsPerSample;
      for (int32_t lane = 0; lane < blocks_.lanes(); ++lane) {
        const int64_t number = samples[lane] - portion.first_sample;
        winners[lane] = number >= 0 && number < count ? static_cast<Real>(number) : Real{-1};
      }
      kernels_.spread_maxima(portion.lists, Region::kCellsPerSample, winners.data(), staged,
                             blocks_.block_at(block, portion, gradient));
    });
  }

  // Writes whole planes: what no RoI reads has no gradient.
  void unpack(const ListBlock& block, const Real* packed) const {
    const ListPage& page = *block.page;
    UnpackJob<T> job;
    job.packed = packed;
    job.block_channels = blocks_.lanes();
    job.plane_stride = blocks_.plane_stride(block);
    job.channels = block.channels;
    job.stream = false;
    T* const planes = output_of(block.page->map_number) + blocks_.first_plane(block);
    for (int32_t channel = 0; channel < block.channels; ++channel) {
      T* const plane = planes + channel * job.plane_stride;
      std::fill(plane, plane + page.cell_begin, T{});
      std::fill(plane + page.cell_end, plane + problem_.map(page.map_number).plane_size(), T{});
    }
    job.planes = planes + page.cell_begin;
    kernels_.unpack(job, page.cells());
  }

  const KernelCall& call_;
  const ProblemType& problem_;
  const CellTable<Op, T>& table_;
  const Blocks& blocks_;
  const PoolingKernels<T>& kernels_;
  const T* output_gradient_;
};

}  // namespace ort_roialign::cpu
