// Forward and backward pass cell by cell out of the map's own planes, in C++ for any processor: where repacking does
// not pay, or takes too much memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/cell_lists.h"
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

  PlainPasses(const KernelCall& call, const ProblemType& problem, const CellTable<Op, T>& table)
      : call_(call), problem_(problem), table_(table) {}

  // Pools some RoIs: those that `rois` numbers, or all where it is null.
  void forward(const std::vector<int64_t>* rois) const {
    const int64_t num_rois = rois != nullptr ? static_cast<int64_t>(rois->size()) : problem_.num_rois;
    const int64_t groups = divide_up(problem_.channels, kChannelsPerTask);
    call_.parallel_for(num_rois * groups, [&](int64_t task) {
      const int64_t roi = rois != nullptr ? (*rois)[task / groups] : task / groups;
      const Channels channels = channel_range(task % groups, kChannelsPerTask);
      for_each_step([&](int64_t begin, int64_t end) {
        if (is_maximum(problem_)) {
          if constexpr (Op::kHasMaximum) pool_maxima(roi, channels, begin, end);
        } else {
          if constexpr (Op::kHasAverage) pool_averages(roi, channels, begin, end);
        }
      });
    });
  }

  // The gradient of one map, into the plain planes.
  void backward(int32_t map_number) const {
    const FeatureMap<T>& map = problem_.map(map_number);
    T* map_gradient = static_cast<T*>(call_.outputs[map_number].data);
    const int64_t planes = problem_.channels_per_channel();  // of a channel
    const int64_t channel_cells = std::max<int64_t>(map.plane_size() * planes, 1);
    const int64_t per_task = std::clamp<int64_t>(kScratchCells / channel_cells, 1, kChannelsPerTask);
    const int64_t groups = divide_up(problem_.channels, per_task);
    const std::vector<std::vector<int64_t>> rois = rois_of_images(map_number);
    call_.parallel_for(problem_.num_images * groups, [&](int64_t task) {
      const int64_t image = task / groups;
      const Channels channels = channel_range(task % groups, per_task);
      PlaneSums sums(map_gradient + problem_.plane_offset(map, image, channels.begin * planes), map.plane_size(),
                     channels.size() * planes);
      for (const int64_t roi : rois[image]) {
        for_each_step([&](int64_t begin, int64_t end) {
          if (is_maximum(problem_)) {
            if constexpr (Op::kHasMaximum) spread_maxima(roi, channels, begin, end, sums);
          } else {
            if constexpr (Op::kHasAverage) spread_averages(roi, channels, begin, end, sums);
          }
        });
      }
      sums.store();
    });
  }

 private:
  // Channels that share one walk over a RoI's lists.
  static constexpr int64_t kChannelsPerTask = 32;
  // Bins at a time.
  static constexpr int64_t kBins = 64;
  // Float16 gradients are summed in float32 planes of at most this many cells a task.
  static constexpr int64_t kScratchCells = int64_t{1} << 22;

  struct Channels {
    int64_t begin;
    int64_t end;

    int64_t size() const { return end - begin; }
  };

  template <typename Value>
  using OfBins = std::array<std::array<Value, kChannelsPerTask>, kBins>;

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

  Channels channel_range(int64_t group, int64_t per_group) const {
    return {group * per_group, std::min((group + 1) * per_group, problem_.channels)};
  }

  template <typename Step>
  void for_each_step(Step step) const {
    for (int64_t begin = 0; begin < problem_.bins(); begin += kBins) {
      step(begin, std::min(begin + kBins, problem_.bins()));
    }
  }

  // Calls body(bin, channel, first cell, cell after the last one) for a portion; `bin` counts from `begin`, `channel`
  // from the first one.
  template <typename Body>
  static void for_each_list(const Portion<Real>& portion, int64_t begin, Channels channels, Body body) {
    const CellLists<Real>& lists = portion.lists;
    for (int32_t bin = 0; bin < lists.bins; ++bin) {
      const WeightedCell<Real>* first = lists.cells + (bin == 0 ? lists.begin : lists.ends[bin - 1]);
      for (int64_t channel = 0; channel < channels.size(); ++channel) {
        body(portion.first_bin - begin + bin, channel, first, lists.cells + lists.ends[bin]);
      }
    }
  }

  // The plane that a bin of a channel reads, as numbered among those of an image.
  int64_t plane_number(int64_t channel, int64_t bin) const {
    const auto [bin_y, bin_x] = problem_.bin_place(bin);
    return problem_.map_channel(channel, bin_y, bin_x);
  }

  const T* plane(int64_t roi, int64_t channel, int64_t bin) const {
    const FeatureMap<T>& map = problem_.map(table_.region(roi).map_number);
    return map.data + problem_.plane_offset(map, problem_.batch_indices[roi], plane_number(channel, bin));
  }

  int64_t place(int64_t roi, int64_t channel, int64_t bin) const {
    return (roi * problem_.channels + channel) * problem_.bins() + bin;
  }

  Real gradient(int64_t roi, int64_t channel, int64_t bin) const {
    return widen(static_cast<const T*>(call_.inputs[0].data)[place(roi, channel, bin)]);
  }

  void pool_averages(int64_t roi, Channels channels, int64_t begin, int64_t end) const {
    OfBins<Real> sums{};
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      for_each_list(portion, begin, channels, [&](int64_t bin, int64_t channel, const auto* cell, const auto* last) {
        const T* cells = plane(roi, channels.begin + channel, begin + bin) + portion.base;
        Real sum = sums[bin][channel];
        for (; cell < last; ++cell) sum += cell->weight * widen(cells[cell->cell]);
        sums[bin][channel] = sum;
      });
    });
    T* output = static_cast<T*>(call_.outputs[0].data);
    for (int64_t channel = 0; channel < channels.size(); ++channel) {
      for (int64_t bin = begin; bin < end; ++bin) {
        output[place(roi, channels.begin + channel, bin)] = narrow<T>(sums[bin - begin][channel]);
      }
    }
  }

  void spread_averages(int64_t roi, Channels channels, int64_t begin, int64_t end, PlaneSums& sums) const {
    const int64_t first_plane = channels.begin * problem_.channels_per_channel();
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      for_each_list(portion, begin, channels, [&](int64_t bin, int64_t channel, const auto* cell, const auto* last) {
        const Real share = gradient(roi, channels.begin + channel, begin + bin);
        Real* cells = sums.plane(plane_number(channels.begin + channel, begin + bin) - first_plane) + portion.base;
        for (; cell < last; ++cell) cells[cell->cell] += cell->weight * share;
      });
    });
  }

  // The winner is the number of the sample among its bin's.
  void find_maxima(int64_t roi, Channels channels, int64_t begin, int64_t end, OfBins<Maximum<Real>>& maxima) const {
    static_assert(!Op::kHasMaximum || !Op::kChannelPerBin, "all channels of a bin have the same samples");
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      for_each_list(portion, begin, channels, [&](int64_t bin, int64_t channel, const auto* cell, const auto* last) {
        const T* cells = plane(roi, channels.begin + channel, begin + bin) + portion.base;
        Maximum<Real> maximum = maxima[bin][channel];
        for (int64_t number = portion.first_sample; cell < last; cell += Region::kCellsPerSample, ++number) {
          Real value = 0;
          for (int i = 0; i < Region::kCellsPerSample && cell->cell != kOutside; ++i) {
            value += cell[i].weight * widen(cells[cell[i].cell]);
          }
          maximum.take(value, number);
        }
        maxima[bin][channel] = maximum;
      });
    });
  }

  // Calls body(bin, channel, the first cell of the winning sample, its portion's base) for all bins and channels that
  // have one.
  template <typename Body>
  void for_each_winner(int64_t roi, Channels channels, int64_t begin, int64_t end, const OfBins<Maximum<Real>>& maxima,
                       Body body) const {
    table_.for_each_portion(roi, begin, end, [&](const Portion<Real>& portion) {
      for_each_list(portion, begin, channels, [&](int64_t bin, int64_t channel, const auto* cell, const auto* last) {
        const int64_t number = maxima[bin][channel].winner - portion.first_sample;
        const int64_t samples = (last - cell) / Region::kCellsPerSample;
        if (number >= 0 && number < samples) {
          body(bin, channel, cell + number * Region::kCellsPerSample, portion.base);
        }
      });
    });
  }

  void pool_maxima(int64_t roi, Channels channels, int64_t begin, int64_t end) const {
    OfBins<Maximum<Real>> maxima{};
    find_maxima(roi, channels, begin, end, maxima);
    T* output = static_cast<T*>(call_.outputs[0].data);
    for (int64_t channel = 0; channel < channels.size(); ++channel) {
      for (int64_t bin = begin; bin < end; ++bin) {
        output[place(roi, channels.begin + channel, bin)] = narrow<T>(maxima[bin - begin][channel].value);
      }
    }
    if constexpr (Op::kHasWinnerOutput) {
      int64_t* winners = static_cast<int64_t*>(call_.outputs[1].data);
      if (winners == nullptr) return;
      for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
        std::fill(winners + place(roi, channel, begin), winners + place(roi, channel, end), Maximum<Real>::kNoWinner);
      }
      for_each_winner(roi, channels, begin, end, maxima,
                      [&](int64_t bin, int64_t channel, const auto* cell, int64_t base) {
                        winners[place(roi, channels.begin + channel, begin + bin)] = base + cell->cell;
                      });
    }
  }

  void spread_maxima(int64_t roi, Channels channels, int64_t begin, int64_t end, PlaneSums& sums) const {
    OfBins<Maximum<Real>> maxima{};
    find_maxima(roi, channels, begin, end, maxima);
    for_each_winner(roi, channels, begin, end, maxima,
                    [&](int64_t bin, int64_t channel, const auto* cell, int64_t base) {
                      if (cell->cell == kOutside) return;
                      const Real share = gradient(roi, channels.begin + channel, begin + bin);
                      Real* cells = sums.plane(channel) + base;
                      for (int i = 0; i < Region::kCellsPerSample; ++i) {
                        cells[cell[i].cell] += cell[i].weight * share;
                      }
                    });
  }

  // The RoIs that are pooled from one map, by image, in order.
  std::vector<std::vector<int64_t>> rois_of_images(int32_t map_number) const {
    std::vector<std::vector<int64_t>> rois(problem_.num_images);
    for (int64_t roi = 0; roi < problem_.num_rois; ++roi) {
      if (table_.region(roi).map_number == map_number) rois[problem_.batch_indices[roi]].push_back(roi);
    }
    return rois;
  }

  const KernelCall& call_;
  const ProblemType& problem_;
  const CellTable<Op, T>& table_;
};

}  // namespace ort_roialign::cpu
