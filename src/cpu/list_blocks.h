// What the passes that pool cell by cell out of repacked blocks share: the pages, how their channels are cut into
// blocks, and whether repacking pays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "cpu/cell_lists.h"
#include "cpu/channel_blocks.h"
#include "cpu/cost_model.h"
#include "cpu/settings.h"
#include "cpu/touched_cells.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// One image of one map, with the RoIs that are pooled from it.
struct ListPage {
  int64_t number;  // among all
  int32_t map_number;
  int64_t image;
  std::vector<int64_t> rois;
  std::vector<double> listed_cells = {};  // about as many, for each RoI
  int64_t cell_begin = 0;                 // the RoIs read cells in here
  int64_t cell_end = 0;

  int64_t cells() const { return cell_end - cell_begin; }
};

// Some channels of a page that lie side by side in a block, and the bins that read them.
struct ListBlock {
  const ListPage* page;
  int64_t first_channel;  // of the output
  int32_t channels;       // that exist
  int64_t bin_begin;
  int64_t bin_end;
};

template <typename Op, typename T>
class ListBlocks {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;

  // `regions` are those of all RoIs.
  ListBlocks(const ProblemType& problem, const Region* regions) : problem_(problem) {
    std::vector<std::pair<int64_t, int64_t>> order;  // page and RoI
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) order.push_back({problem.page(roi, regions[roi]), roi});
    std::sort(order.begin(), order.end());
    for (const auto& [number, roi] : order) {
      if (pages_.empty() || pages_.back().number != number) {
        pages_.push_back({number, regions[roi].map_number, problem.image(roi), {}});
      }
      pages_.back().rois.push_back(roi);
      pages_.back().listed_cells.push_back(count_cells(problem, regions[roi]));
      work_.listed_cells += pages_.back().listed_cells.back();
    }
    work_.bins = static_cast<double>(problem.num_rois) * static_cast<double>(problem.bins());
    for (ListPage& page : pages_) find_cells(page, regions);
  }

  // Those that have RoIs, by number.
  const std::vector<ListPage>& pages() const { return pages_; }

  // Cuts the channels of the pages into blocks, where memory allows it and it pays or is forced. A
  // buffer holds `per_buffer` blocks; `prices` are those of the pass.
  bool cut(const std::optional<Path>& forced, int64_t per_buffer, const ListPrices& prices) {
    if (problem_.channels == 0) return false;
    Repacked repacked;
    for (const ListPage& page : pages_) {
      ++repacked.pages;
      repacked.most_cells = std::max(repacked.most_cells, page.cells() * per_buffer);
      repacked.all_cells += page.cells() * per_buffer;
    }
    repacked.pages *= problem_.channels_per_channel();
    repacked.channels = problem_.channels;
    repacked.element_bytes = static_cast<int64_t>(sizeof(T)) * problem_.channels_per_channel();
    const std::optional<ChannelBlocks> blocks = cut_channels<Real>(repacked);
    if (!blocks || forced == Path::kPlain) return false;
    work_.cells = static_cast<double>(repacked.all_cells) * static_cast<double>(problem_.channels_per_channel());
    cost_ = packed_list_cost(prices, work_, lines(problem_.channels));
    if (forced != Path::kPacked && cost_ > plain_list_cost(prices, work_, static_cast<double>(problem_.channels))) {
      return false;
    }
    lanes_ = static_cast<int32_t>(blocks->channels);
    buffers_ = worth_threads() ? count_buffers<Real>(repacked, *blocks) : 1;
    buffer_size_ = repacked.most_cells * lanes_;
    list_blocks();
    return true;
  }

  // Once they are cut:
  const std::vector<ListBlock>& blocks() const { return blocks_; }
  int32_t lanes() const { return lanes_; }  // of a cell of a block
  int64_t buffers() const { return buffers_; }
  int64_t buffer_size() const { return buffer_size_; }
  bool worth_threads() const { return cost_ >= kLeastParallelNanoseconds; }
  double lines_of_block() const { return lines(lanes_); }

  // A block as the lists of a portion number its cells.
  template <typename Element>
  Block<Element> block_at(const ListBlock& block, const Portion<Real>& portion, Element* cells) const {
    return {cells + (portion.base - block.page->cell_begin) * lanes_, lanes_};
  }

  // Calls body(begin, end) for a block's bins, as many at once as a kernel stages.
  template <typename Body>
  void for_each_run_of_bins(const ListBlock& block, Body body) const {
    const int64_t at_once = kStagingBytes / (lanes_ * int64_t{sizeof(Real)});
    for (int64_t bin = block.bin_begin; bin < block.bin_end; bin += at_once) {
      body(bin, std::min(bin + at_once, block.bin_end));
    }
  }

  // Of the plane of a block's first channel, in a map or its gradient; planes of one block are `plane_stride` apart.
  int64_t first_plane(const ListBlock& block) const {
    const auto [bin_y, bin_x] = problem_.bin_place(block.bin_begin);
    return problem_.plane_offset(map_of(block), block.page->image,
                                 problem_.map_channel(block.first_channel, bin_y, bin_x));
  }
  int64_t plane_stride(const ListBlock& block) const {
    return map_of(block).plane_size() * problem_.channels_per_channel();
  }

 private:
  static double lines(int64_t channels) {
    return static_cast<double>(divide_up(channels, kLineBytes / int64_t{sizeof(Real)}));
  }

  const FeatureMap<T>& map_of(const ListBlock& block) const { return problem_.map(block.page->map_number); }

  // Of few RoIs those that they touch, of many all.
  void find_cells(ListPage& page, const Region* regions) const {
    constexpr size_t kFewRois = 64;
    const FeatureMap<T>& map = problem_.map(page.map_number);
    page.cell_end = map.plane_size();
    if (page.rois.size() > kFewRois) return;
    int64_t first = page.cell_end;
    int64_t end = 0;
    for (const int64_t roi : page.rois) {
      for_each_touched(problem_, regions[roi], [&](CellRectangle cells) {
        first = std::min(first, int64_t{cells.rows.begin} * map.width + cells.columns.begin);
        end = std::max(end, int64_t{cells.rows.end - 1} * map.width + cells.columns.end);
      });
    }
    page.cell_begin = std::min(first, end);
    page.cell_end = end;
  }

  // Blocks of the same channels and neighbouring bins follow one another, because what they write does.
  void list_blocks() {
    const int64_t bins = problem_.bins();
    for (const ListPage& page : pages_) {
      for (int64_t first = 0; first < problem_.channels; first += lanes_) {
        const int32_t channels = static_cast<int32_t>(std::min<int64_t>(lanes_, problem_.channels - first));
        if constexpr (Op::kChannelPerBin) {
          for (int64_t bin = 0; bin < bins; ++bin) blocks_.push_back({&page, first, channels, bin, bin + 1});
        } else {
          blocks_.push_back({&page, first, channels, 0, bins});
        }
      }
    }
  }

  const ProblemType& problem_;
  std::vector<ListPage> pages_;
  std::vector<ListBlock> blocks_;
  ListWork work_;
  double cost_ = 0;
  int32_t lanes_ = 0;
  int64_t buffers_ = 0;
  int64_t buffer_size_ = 0;
};

// Repacks what a block's RoIs read, of a map.
template <typename Op, typename T>
void pack_block(const PoolingKernels<T>& kernels, const ListBlocks<Op, T>& blocks, const ListBlock& block,
                const T* planes, ComputeType<T>* packed) {
  PackJob<T> job;
  job.planes = planes + blocks.first_plane(block) + block.page->cell_begin;
  job.plane_stride = blocks.plane_stride(block);
  job.channels = block.channels;
  job.block_channels = blocks.lanes();
  job.packed = packed;
  for (int64_t at = 0; at < block.page->cells(); at += kCellsPerRun) {
    kernels.pack(job, {at, at, std::min(kCellsPerRun, block.page->cells() - at)});
  }
}

// Repacks the gradient of bins [begin, end) of some channels of a RoI, to [bins, lanes].
template <typename Op, typename T>
void pack_gradient(const PoolingKernels<T>& kernels, const Problem<Op, T>& problem, const T* output_gradient,
                   int64_t roi, int64_t first_channel, int32_t channels, int32_t lanes, int64_t begin, int64_t end,
                   ComputeType<T>* packed) {
  const auto [bin_y, bin_x] = problem.bin_place(begin);
  PackJob<T> job;
  job.planes = output_gradient + problem.bin_offset(roi, first_channel, bin_y, bin_x);
  job.plane_stride = problem.bins();
  job.channels = channels;
  job.block_channels = lanes;
  job.packed = packed;
  kernels.pack(job, {0, 0, end - begin});
}

}  // namespace ort_roialign::cpu
