// Forward and backward pass out of the map's own planes, in C++ for any processor: where repacking does not pay, or
// takes too much memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/cell_lists.h"
#include "cpu/list_blocks.h"
#include "cpu/tasks.h"
#include "ops/problem.h"
#include "semantics/element_types.h"
#include "semantics/sample.h"

namespace ort_roialign::cpu {

template <typename Op, typename T>
class PlainPasses {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;
  using Walker = BinCellWalker<Op, T>;

  // Pools some RoIs: those that `rois` numbers, or all where it is null.
  static void forward(const KernelCall& call, const ProblemType& problem, const Region* regions,
                      const std::vector<int64_t>* rois) {
    const int64_t num_rois = rois != nullptr ? static_cast<int64_t>(rois->size()) : problem.num_rois;
    T* output = static_cast<T*>(call.outputs[0].data);
    int64_t* winners = nullptr;
    if constexpr (Op::kHasWinnerOutput) winners = static_cast<int64_t*>(call.outputs[1].data);
    const int64_t per_task = kChannelsPerTask * problem.channels_per_channel();
    const int64_t groups = divide_up(problem.map_channels(), per_task);
    call.parallel_for(num_rois * groups, [&](int64_t task) {
      const int64_t roi = rois != nullptr ? (*rois)[task / groups] : task / groups;
      const Range64 planes = plane_range(problem, task % groups, per_task);
      if (is_maximum(problem)) {
        if constexpr (Op::kHasMaximum) pool_maximum(problem, regions[roi], roi, planes, output, winners);
      } else {
        if constexpr (Op::kHasAverage) pool_average(problem, regions[roi], roi, planes, output);
      }
    });
  }

  // The gradient of one map. A task owns some planes of one image. `pages` are those that have RoIs.
  static void backward(const KernelCall& call, const ProblemType& problem, const Region* regions, int32_t number,
                       const std::vector<ListPage>& pages) {
    const FeatureMap<T>& map = problem.map(number);
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    T* map_gradient = static_cast<T*>(call.outputs[number].data);
    const int64_t per_task = std::clamp<int64_t>(kScratchCells / std::max<int64_t>(map.plane_size(), 1), 1,
                                                 kChannelsPerTask * problem.channels_per_channel());
    const int64_t groups = divide_up(problem.map_channels(), per_task);
    std::vector<const ListPage*> page_of_image(problem.num_images, nullptr);
    for (const ListPage& page : pages) {
      if (page.map_number == number) page_of_image[page.image] = &page;
    }
    call.parallel_for(problem.num_images * groups, [&](int64_t task) {
      const int64_t image = task / groups;
      const Range64 planes = plane_range(problem, task % groups, per_task);
      PlaneSums sums(map_gradient + problem.plane_offset(map, image, planes.begin), map.plane_size(), planes.size());
      const auto plane = [&](int64_t channel, int32_t bin_y, int32_t bin_x) {
        return sums.plane(problem.map_channel(channel, bin_y, bin_x) - planes.begin);
      };
      if (page_of_image[image] == nullptr) return sums.store();
      for (const int64_t roi : page_of_image[image]->rois) {
        if (is_maximum(problem)) {
          if constexpr (Op::kHasMaximum) scatter_maximum(problem, regions[roi], roi, planes, output_gradient, plane);
        } else {
          if constexpr (Op::kHasAverage) scatter_average(problem, regions[roi], roi, planes, output_gradient, plane);
        }
      }
      sums.store();
    });
  }

 private:
  // Channels that share one computation of a RoI's taps or samples.
  static constexpr int64_t kChannelsPerTask = 32;

  // Float16 gradients are summed in float32 planes of at most this many cells a task, or in one plane.
  static constexpr int64_t kScratchCells = int64_t{1} << 22;

  // Some planes of an image. Those of operators whose bins have a channel of their own come channel by channel.
  static Range64 plane_range(const ProblemType& problem, int64_t group, int64_t per_group) {
    return {group * per_group, std::min((group + 1) * per_group, problem.map_channels())};
  }

  // The channels of the output whose bin reads one of some planes; no more than kChannelsPerTask.
  static Range64 channels_of(const ProblemType& problem, Range64 planes, int64_t bin) {
    if constexpr (!Op::kChannelPerBin) return planes;
    const auto first_from = [&](int64_t plane) { return divide_up(std::max<int64_t>(plane - bin, 0), problem.bins()); };
    return {first_from(planes.begin), first_from(planes.end)};
  }

  struct Cell {
    int64_t offset;  // in a plane
    Real weight;
  };

  // Calls use(begin, end) for the cells of a bin's average, some at a time: a bin can have any number of them.
  template <typename Use>
  static void for_each_run_of_cells(const Walker& walker, int64_t bin, Use use) {
    constexpr int64_t kCellsAtOnce = 1024;
    Cell cells[kCellsAtOnce];
    int64_t count = 0;
    walker.visit_average(bin, [&](int64_t offset, Real weight) {
      if (count == kCellsAtOnce) {
        use(cells, cells + count);
        count = 0;
      }
      cells[count++] = {offset, weight};
    });
    if (count > 0) use(cells, cells + count);
  }

  static void pool_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 planes, T* output) {
    const FeatureMap<T>& map = problem.map(region.map_number);
    const T* image = map.data + problem.plane_offset(map, problem.image(roi), 0);
    const Walker walker(problem, region, 0, problem.bins());
    for (int64_t bin = 0; bin < problem.bins(); ++bin) {
      const Range64 channels = channels_of(problem, planes, bin);
      if (channels.size() == 0) continue;
      const auto [bin_y, bin_x] = problem.bin_place(bin);
      std::array<Real, kChannelsPerTask> sums{};
      for_each_run_of_cells(walker, bin, [&](const Cell* begin, const Cell* end) {
        for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
          const T* plane = image + problem.map_channel(channel, bin_y, bin_x) * map.plane_size();
          Real sum = sums[channel - channels.begin];
          for (const Cell* cell = begin; cell < end; ++cell) sum += cell->weight * widen(plane[cell->offset]);
          sums[channel - channels.begin] = sum;
        }
      });
      for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
        output[problem.bin_offset(roi, channel, bin_y, bin_x)] = narrow<T>(sums[channel - channels.begin]);
      }
    }
  }

  // Calls body(channel, bin_y, bin_x, maximum) for all bins of a RoI on some channels. A sample is laid once for all of
  // them.
  template <typename Body>
  static void for_each_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 planes,
                               Body body) {
    static_assert(!Op::kChannelPerBin, "a plane is a channel, and all channels of a bin have the same samples");
    const FeatureMap<T>& map = problem.map(region.map_number);
    const T* first_plane = map.data + problem.plane_offset(map, problem.image(roi), planes.begin);
    for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
      for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) {
        std::array<Maximum<Real>, kChannelsPerTask> maxima{};
        region.visit_samples(bin_y, bin_x, [&](const auto& sample) {
          for (int64_t channel = 0; channel < planes.size(); ++channel) {
            const T* plane = first_plane + channel * map.plane_size();
            maxima[channel].take(ProblemType::interpolate(sample, plane), sample.id);
          }
        });
        for (int64_t channel = 0; channel < planes.size(); ++channel) {
          body(planes.begin + channel, bin_y, bin_x, maxima[channel]);
        }
      }
    }
  }

  static void pool_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 planes, T* output,
                           int64_t* winners) {
    for_each_maximum(problem, region, roi, planes,
                     [&](int64_t channel, int32_t bin_y, int32_t bin_x, const Maximum<Real>& maximum) {
                       const int64_t bin = problem.bin_offset(roi, channel, bin_y, bin_x);
                       output[bin] = narrow<T>(maximum.value);
                       if (winners != nullptr) winners[bin] = maximum.winner;
                     });
  }

  // The sums of the gradient for some planes of one image: in place where T can hold them, else in float32.
  class PlaneSums {
   public:
    PlaneSums(T* output, int64_t plane_size, int64_t planes)
        : output_(output), plane_size_(plane_size), count_(planes * plane_size) {
      if constexpr (std::is_same_v<T, Real>) {
        sums_ = output_;
        std::fill_n(sums_, count_, Real{0});
      } else {
        scratch_.resize(count_);
        sums_ = scratch_.data();
      }
    }

    Real* plane(int64_t number) { return sums_ + number * plane_size_; }

    void store() {
      if constexpr (!std::is_same_v<T, Real>) std::transform(sums_, sums_ + count_, output_, narrow<T>);
    }

   private:
    T* output_;
    int64_t plane_size_;
    int64_t count_;
    Real* sums_;
    std::vector<Real> scratch_;
  };

  template <typename Plane>
  static void scatter_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 planes,
                              const T* output_gradient, Plane plane) {
    const Walker walker(problem, region, 0, problem.bins());
    for (int64_t bin = 0; bin < problem.bins(); ++bin) {
      const Range64 channels = channels_of(problem, planes, bin);
      if (channels.size() == 0) continue;
      const auto [bin_y, bin_x] = problem.bin_place(bin);
      for_each_run_of_cells(walker, bin, [&](const Cell* begin, const Cell* end) {
        for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
          const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]);
          Real* cells = plane(channel, bin_y, bin_x);
          for (const Cell* cell = begin; cell < end; ++cell) cells[cell->offset] += cell->weight * gradient;
        }
      });
    }
  }

  template <typename Plane>
  static void scatter_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 planes,
                              const T* output_gradient, Plane plane) {
    for_each_maximum(problem, region, roi, planes,
                     [&](int64_t channel, int32_t bin_y, int32_t bin_x, const Maximum<Real>& maximum) {
                       if (maximum.winner == Maximum<Real>::kNoWinner) return;
                       const auto winner = region.sample(bin_y, bin_x, maximum.winner);
                       if (!winner.inside) return;
                       const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]);
                       Real* cells = plane(channel, bin_y, bin_x);
                       for (int cell = 0; cell < winner.kCells; ++cell) {
                         cells[winner.offset[cell]] += winner.weight[cell] * gradient;
                       }
                     });
  }
};

}  // namespace ort_roialign::cpu
