// The CPU kernels of every operator: forward and backward over the same taps or the same samples.
//
// A result is computed by one task in one order of additions, so it does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/bin_lists.h"
#include "cpu/pool_all.h"
#include "ops/error.h"
#include "ops/problem.h"
#include "semantics/element_types.h"
#include "semantics/sample.h"
#include "semantics/sample_grid.h"

namespace ort_roialign::cpu {

// Channels that share one computation of a RoI's taps or samples.
constexpr int64_t kChannelsPerTask = 32;

// Float16 gradients are summed in float32 planes of at most this many cells a task.
constexpr int64_t kScratchCells = int64_t{1} << 22;

template <typename Op, typename T>
class Engine {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;

  static void forward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 0);
    ScratchArray<Region> regions(*call.scratch, problem.num_rois);
    locate_all(problem, call.operator_name, regions.data());
    if (problem.num_rois == 0 || problem.channels == 0) return;
    if constexpr (kPooledFast) {
      if (call.cpu_settings->path != Path::kPlain) {
        const std::vector<int64_t> others = pool_all<Op, T>(call, problem, regions.data());
        return forward_plain(call, problem, regions.data(), others.data(), static_cast<int64_t>(others.size()));
      }
    }
    count_call(call.cpu_settings->isa, Path::kPlain);
    forward_plain(call, problem, regions.data(), nullptr, problem.num_rois);
  }

  static void backward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 1);
    ScratchArray<Region> regions(*call.scratch, problem.num_rois);
    locate_all(problem, call.operator_name, regions.data());
    for (int32_t number = 0; number < problem.num_maps; ++number) {
      if (call.outputs[number].data != nullptr) backward_of_map(call, problem, regions.data(), number);
    }
    if constexpr (Op::kRoiSlopes + Op::kOffsetSlopes > 0) {
      if (call.outputs[1].data != nullptr) backward_of_slopes(call, problem, regions.data());
    }
  }

 private:
  // Whether the fast forward pass knows how an operator's samples lie.
  static constexpr bool kPooledFast = std::is_base_of_v<SampleGrid<Real>, Region> && !Op::kChannelPerBin;

  struct Range64 {
    int64_t begin;
    int64_t end;

    int64_t size() const { return end - begin; }
  };

  // Pools some RoIs: those that `rois` numbers, or the first ones where it is null.
  static void forward_plain(const KernelCall& call, const ProblemType& problem, const Region* regions,
                            const int64_t* rois, int64_t num_rois) {
    T* output = static_cast<T*>(call.outputs[0].data);
    int64_t* winners = nullptr;
    if constexpr (Op::kHasWinnerOutput) winners = static_cast<int64_t*>(call.outputs[1].data);
    const int64_t groups = divide_up(problem.channels, kChannelsPerTask);
    call.parallel_for(num_rois * groups, [&](int64_t task) {
      const int64_t roi = rois != nullptr ? rois[task / groups] : task / groups;
      const Range64 channels = channel_range(problem, task % groups, kChannelsPerTask);
      if (is_maximum(problem)) {
        if constexpr (Op::kHasMaximum) pool_maximum(problem, regions[roi], roi, channels, output, winners);
      } else {
        if constexpr (Op::kHasAverage) pool_average(problem, regions[roi], roi, channels, output);
      }
    });
  }

  static Range64 channel_range(const ProblemType& problem, int64_t group, int64_t per_group) {
    return {group * per_group, std::min((group + 1) * per_group, problem.channels)};
  }

  // Throws for the first RoI that breaks the contract.
  static void locate_all(const ProblemType& problem, const std::string& op, Region* regions) {
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
      switch (problem.fault(roi)) {
        case RoiFault::kBatchIndex:
          throw InvalidArgument(text(op, ": batch_indices[", roi, "] must be in [0, ", problem.num_images, "); got ",
                                     problem.batch_indices[roi]));
        case RoiFault::kCoordinate: {
          std::string values;
          for (int column = 0; column < ProblemType::kColumns; ++column) {
            values += text(column == 0 ? "" : ", ", problem.coordinate(roi, column));
          }
          throw InvalidArgument(text(op, ": rois[", roi, "] must have finite coordinates; got [", values, "]"));
        }
        case RoiFault::kNone:
          regions[roi] = problem.region(roi);
      }
    }
  }

  // Calls body(channel, bin_y, bin_x, plane) for all bins of a RoI on some channels.
  template <typename Body>
  static void for_each_bin(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels, Body body) {
    const FeatureMap<T>& map = problem.map(region.map_number);
    const int64_t image = problem.batch_indices[roi];
    for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
      for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
        for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) {
          const int64_t plane = problem.plane_offset(map, image, problem.map_channel(channel, bin_y, bin_x));
          body(channel, bin_y, bin_x, map.data + plane);
        }
      }
    }
  }

  static void pool_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels, T* output) {
    const BinLists<Region, Real> bins(region, problem.params.output_height, problem.params.output_width,
                                      problem.map(region.map_number).width);
    for_each_bin(problem, region, roi, channels, [&](int64_t channel, int32_t bin_y, int32_t bin_x, const T* plane) {
      const Real sum = bins.weighted_sum(bin_y, bin_x, plane);
      output[problem.bin_offset(roi, channel, bin_y, bin_x)] = narrow<T>(sum / bins.divisor(bin_y, bin_x));
    });
  }

  // Calls body(channel, bin_y, bin_x, maximum) for all bins of a RoI on some channels. A sample is laid once for all of
  // them.
  template <typename Body>
  static void for_each_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                               Body body) {
    static_assert(!Op::kChannelPerBin, "all channels of a bin have the same samples");
    const FeatureMap<T>& map = problem.map(region.map_number);
    const T* first_plane = map.data + problem.plane_offset(map, problem.batch_indices[roi], channels.begin);
    for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
      for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) {
        std::array<Maximum<Real>, kChannelsPerTask> maxima{};
        region.visit_samples(bin_y, bin_x, [&](const auto& sample) {
          for (int64_t channel = 0; channel < channels.size(); ++channel) {
            const T* plane = first_plane + channel * map.plane_size();
            maxima[channel].take(ProblemType::interpolate(sample, plane), sample.id);
          }
        });
        for (int64_t channel = 0; channel < channels.size(); ++channel) {
          body(channels.begin + channel, bin_y, bin_x, maxima[channel]);
        }
      }
    }
  }

  static void pool_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels, T* output,
                           int64_t* winners) {
    for_each_maximum(problem, region, roi, channels,
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

  // A task owns some channels of one image.
  static void backward_of_map(const KernelCall& call, const ProblemType& problem, const Region* regions,
                              int32_t number) {
    const FeatureMap<T>& map = problem.map(number);
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    T* map_gradient = static_cast<T*>(call.outputs[number].data);
    const int64_t channel_cells = std::max<int64_t>(map.plane_size() * problem.channels_per_channel(), 1);
    const int64_t per_task = std::clamp<int64_t>(kScratchCells / channel_cells, 1, kChannelsPerTask);
    const int64_t groups = divide_up(problem.channels, per_task);
    const std::vector<std::vector<int64_t>> rois = rois_of_images(problem, regions, number);
    call.parallel_for(problem.num_images * groups, [&](int64_t task) {
      const int64_t image = task / groups;
      const Range64 channels = channel_range(problem, task % groups, per_task);
      const int64_t first_plane = channels.begin * problem.channels_per_channel();
      PlaneSums sums(map_gradient + problem.plane_offset(map, image, first_plane), map.plane_size(),
                     channels.size() * problem.channels_per_channel());
      const auto plane = [&](int64_t channel, int32_t bin_y, int32_t bin_x) {
        return sums.plane(problem.map_channel(channel, bin_y, bin_x) - first_plane);
      };
      for (const int64_t roi : rois[image]) {
        if (is_maximum(problem)) {
          if constexpr (Op::kHasMaximum) scatter_maximum(problem, regions[roi], roi, channels, output_gradient, plane);
        } else {
          if constexpr (Op::kHasAverage) scatter_average(problem, regions[roi], roi, channels, output_gradient, plane);
        }
      }
      sums.store();
    });
  }

  // The RoIs that are pooled from one map, by image, in order.
  static std::vector<std::vector<int64_t>> rois_of_images(const ProblemType& problem, const Region* regions,
                                                          int32_t map_number) {
    std::vector<std::vector<int64_t>> rois(problem.num_images);
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
      if (regions[roi].map_number == map_number) rois[problem.batch_indices[roi]].push_back(roi);
    }
    return rois;
  }

  template <typename Plane>
  static void scatter_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                              const T* output_gradient, Plane plane) {
    const BinLists<Region, Real> bins(region, problem.params.output_height, problem.params.output_width,
                                      problem.map(region.map_number).width);
    for_each_bin(problem, region, roi, channels, [&](int64_t channel, int32_t bin_y, int32_t bin_x, const T*) {
      const Real gradient =
          widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]) / bins.divisor(bin_y, bin_x);
      bins.scatter(bin_y, bin_x, gradient, plane(channel, bin_y, bin_x));
    });
  }

  template <typename Plane>
  static void scatter_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                              const T* output_gradient, Plane plane) {
    for_each_maximum(problem, region, roi, channels,
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

  // The gradient of what moves the bins: of the RoI's numbers, summed over its bins, or of each bin's offset.
  static void backward_of_slopes(const KernelCall& call, const ProblemType& problem, const Region* regions) {
    constexpr int kNumbers = Op::kRoiSlopes + Op::kOffsetSlopes;
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    const int64_t num_bins = problem.bins();
    call.parallel_for(problem.num_rois, [&](int64_t roi) {
      const Region& region = regions[roi];
      std::array<double, kNumbers> of_roi{};
      for (int64_t bin = 0; bin < num_bins; ++bin) {
        const std::array<double, kNumbers> of_bin = slopes_of_bin(problem, region, roi, bin, output_gradient);
        for (int number = 0; number < kNumbers; ++number) {
          if constexpr (Op::kRoiSlopes > 0) {
            of_roi[number] += of_bin[number];
          } else {
            const int64_t place = (roi * kNumbers + number) * num_bins + bin;
            static_cast<T*>(call.outputs[1].data)[place] = narrow<T>(static_cast<Real>(of_bin[number]));
          }
        }
      }
      if constexpr (Op::kRoiSlopes > 0) {
        for (int number = 0; number < kNumbers; ++number) {
          problem.store_like_rois(call.outputs[1].data, roi * kNumbers + number, static_cast<Real>(of_roi[number]));
        }
      }
    });
  }

  template <size_t kNumbers = Op::kRoiSlopes + Op::kOffsetSlopes>
  static std::array<double, kNumbers> slopes_of_bin(const ProblemType& problem, const Region& region, int64_t roi,
                                                    int64_t bin, const T* output_gradient) {
    const auto bin_y = static_cast<int32_t>(bin / problem.params.output_width);
    const auto bin_x = static_cast<int32_t>(bin % problem.params.output_width);
    const FeatureMap<T>& map = problem.map(region.map_number);
    const int64_t image = problem.batch_indices[roi];
    std::array<double, kNumbers> sums{};
    region.visit_slopes(bin_y, bin_x, [&](int64_t cell, const auto& slopes) {
      double sum = 0;
      for (int64_t channel = 0; channel < problem.channels; ++channel) {
        const int64_t plane = problem.plane_offset(map, image, problem.map_channel(channel, bin_y, bin_x));
        const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]);
        sum += static_cast<double>(gradient) * static_cast<double>(widen(map.data[plane + cell]));
      }
      for (size_t number = 0; number < kNumbers; ++number) sums[number] += static_cast<double>(slopes[number]) * sum;
    });
    return sums;
  }
};

}  // namespace ort_roialign::cpu
