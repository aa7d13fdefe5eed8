// The CPU kernels of every operator: forward and backward over the same taps or the same samples.
//
// A result is computed by one task in one order of additions, so it does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/pool_all.h"
#include "ops/error.h"
#include "ops/problem.h"
#include "semantics/element_types.h"
#include "semantics/sample.h"

namespace ort_roialign::cpu {

// Channels that share one computation of a RoI's taps or samples.
constexpr int64_t kChannelsPerTask = 32;

// Float16 gradients are summed in float32 planes of at most this many cells a task.
constexpr int64_t kScratchCells = int64_t{1} << 22;

// The taps of all bins along one axis, laid once for all channels.
template <typename Real>
class TapLists {
 public:
  struct Tap {
    int32_t cell;
    Real weight;
  };

  // `taps_of(bin)` walks over the taps of a bin.
  template <typename TapsOf>
  TapLists(int32_t bins, TapsOf taps_of) {
    ends_.reserve(bins);
    for (int32_t bin = 0; bin < bins; ++bin) {
      for (auto taps = taps_of(bin); taps.next();) taps_.push_back({taps.cell, taps.weight});
      ends_.push_back(taps_.size());
    }
  }

  const Tap* begin(int32_t bin) const { return taps_.data() + (bin == 0 ? 0 : ends_[bin - 1]); }
  const Tap* end(int32_t bin) const { return taps_.data() + ends_[bin]; }

 private:
  std::vector<Tap> taps_;
  std::vector<size_t> ends_;
};

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
    if constexpr (Op::kHasAverage) {
      if (call.cpu_settings->path != Path::kPlain) {
        const std::vector<int64_t> others = pool_all<Op, T>(call, problem, regions.data());
        return forward_plain(call, problem, regions.data(), others.data(), static_cast<int64_t>(others.size()));
      }
      count_call(call.cpu_settings->isa, Path::kPlain);
    }
    forward_plain(call, problem, regions.data(), nullptr, problem.num_rois);
  }

  static void backward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 1);
    ScratchArray<Region> regions(*call.scratch, problem.num_rois);
    locate_all(problem, call.operator_name, regions.data());
    const T* output_gradient = static_cast<const T*>(call.inputs[0].data);
    T* map_gradient = static_cast<T*>(call.outputs[0].data);
    const int64_t per_task =
        std::clamp<int64_t>(kScratchCells / std::max<int64_t>(problem.plane_size(), 1), 1, kChannelsPerTask);
    const int64_t groups = divide_up(problem.channels, per_task);
    call.parallel_for(problem.num_images * groups, [&](int64_t task) {
      const int64_t image = task / groups;
      const Range64 channels = channel_range(problem, task % groups, per_task);
      PlaneSums sums(problem, image, channels, map_gradient);
      for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
        if (problem.batch_indices[roi] != image) continue;
        scatter(problem, regions[roi], roi, channels, output_gradient, sums);
      }
      sums.store();
    });
  }

 private:
  using SampleType = typename Region::SampleType;

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
      if constexpr (Op::kHasAverage) {
        if (problem.params.reduction == Reduction::kAverage) {
          return pool_average(problem, regions[roi], roi, channels, output);
        }
      }
      pool_maximum(problem, regions[roi], roi, channels, output, winners);
    });
  }

  struct Range64 {
    int64_t begin;
    int64_t end;
  };

  static Range64 channel_range(const ProblemType& problem, int64_t group, int64_t per_group) {
    return {group * per_group, std::min((group + 1) * per_group, problem.channels)};
  }

  // The sums of the gradient for some channels of one image: in place where T can hold them, else in float32.
  class PlaneSums {
   public:
    PlaneSums(const ProblemType& problem, int64_t image, Range64 channels, T* map_gradient)
        : output_(map_gradient + problem.plane_offset(image, channels.begin)),
          plane_size_(problem.plane_size()),
          count_((channels.end - channels.begin) * plane_size_) {
      if constexpr (std::is_same_v<T, Real>) {
        sums_ = output_;
        std::fill_n(sums_, count_, Real{0});
      } else {
        scratch_.resize(count_);
        sums_ = scratch_.data();
      }
    }

    Real* plane(int64_t channel_in_task) { return sums_ + channel_in_task * plane_size_; }

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

  // Throws for the first RoI that breaks the contract.
  static void locate_all(const ProblemType& problem, const std::string& op, Region* regions) {
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
      switch (problem.fault(roi)) {
        case RoiFault::kBatchIndex:
          throw InvalidArgument(text(op, ": batch_indices[", roi, "] must be in [0, ", problem.num_images, "); got ",
                                     problem.batch_indices[roi]));
        case RoiFault::kCoordinate:
          throw InvalidArgument(text(op, ": rois[", roi, "] must have finite coordinates; got [",
                                     problem.coordinate(roi, 0), ", ", problem.coordinate(roi, 1), ", ",
                                     problem.coordinate(roi, 2), ", ", problem.coordinate(roi, 3), "]"));
        case RoiFault::kNone:
          regions[roi] = problem.region(roi);
      }
    }
  }

  static TapLists<Real> row_taps(const ProblemType& problem, const Region& region) {
    return {problem.params.output_height, [&](int32_t bin) { return region.row_taps(bin); }};
  }

  static TapLists<Real> column_taps(const ProblemType& problem, const Region& region) {
    return {problem.params.output_width, [&](int32_t bin) { return region.column_taps(bin); }};
  }

  // Calls body(channel, bin_y, bin_x) for all bins of a RoI on some channels.
  template <typename Body>
  static void for_each_bin(const ProblemType& problem, Range64 channels, Body body) {
    for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
      for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
        for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) body(channel, bin_y, bin_x);
      }
    }
  }

  static void pool_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels, T* output) {
    const TapLists<Real> rows = row_taps(problem, region);
    const TapLists<Real> columns = column_taps(problem, region);
    const Real divisor = region.divisor();
    const int64_t image = problem.batch_indices[roi];
    for_each_bin(problem, channels, [&](int64_t channel, int32_t bin_y, int32_t bin_x) {
      const T* plane = problem.map + problem.plane_offset(image, channel);
      Real sum = 0;
      for (auto row = rows.begin(bin_y); row != rows.end(bin_y); ++row) {
        const T* cells = plane + static_cast<int64_t>(row->cell) * problem.width;
        Real row_sum = 0;
        for (auto column = columns.begin(bin_x); column != columns.end(bin_x); ++column) {
          row_sum += column->weight * widen(cells[column->cell]);
        }
        sum += row->weight * row_sum;
      }
      output[problem.bin_offset(roi, channel, bin_y, bin_x)] = narrow<T>(sum / divisor);
    });
  }

  static void scatter_average(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                              const T* output_gradient, PlaneSums& sums) {
    const TapLists<Real> rows = row_taps(problem, region);
    const TapLists<Real> columns = column_taps(problem, region);
    const Real divisor = region.divisor();
    for_each_bin(problem, channels, [&](int64_t channel, int32_t bin_y, int32_t bin_x) {
      Real* plane = sums.plane(channel - channels.begin);
      const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]) / divisor;
      for (auto row = rows.begin(bin_y); row != rows.end(bin_y); ++row) {
        Real* cells = plane + static_cast<int64_t>(row->cell) * problem.width;
        const Real row_gradient = row->weight * gradient;
        for (auto column = columns.begin(bin_x); column != columns.end(bin_x); ++column) {
          cells[column->cell] += column->weight * row_gradient;
        }
      }
    });
  }

  // Calls body(channel, bin_y, bin_x, maximum) for all bins of a RoI on some channels. A sample is laid once for all of
  // them.
  template <typename Body>
  static void for_each_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                               Body body) {
    const T* first_plane = problem.map + problem.plane_offset(problem.batch_indices[roi], channels.begin);
    const int64_t count = channels.end - channels.begin;
    for (int32_t bin_y = 0; bin_y < problem.params.output_height; ++bin_y) {
      for (int32_t bin_x = 0; bin_x < problem.params.output_width; ++bin_x) {
        std::array<Maximum<Real>, kChannelsPerTask> maxima{};
        region.visit_samples(bin_y, bin_x, [&](const SampleType& sample) {
          for (int64_t channel = 0; channel < count; ++channel) {
            const T* plane = first_plane + channel * problem.plane_size();
            maxima[channel].take(ProblemType::interpolate(sample, plane), sample.id);
          }
        });
        for (int64_t channel = 0; channel < count; ++channel) {
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

  static void scatter_maximum(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                              const T* output_gradient, PlaneSums& sums) {
    for_each_maximum(problem, region, roi, channels,
                     [&](int64_t channel, int32_t bin_y, int32_t bin_x, const Maximum<Real>& maximum) {
                       if (maximum.winner == Maximum<Real>::kNoWinner) return;
                       const SampleType winner = region.sample(bin_y, bin_x, maximum.winner);
                       if (!winner.inside) return;
                       const Real gradient = widen(output_gradient[problem.bin_offset(roi, channel, bin_y, bin_x)]);
                       Real* plane = sums.plane(channel - channels.begin);
                       for (int cell = 0; cell < Region::kCellsPerSample; ++cell) {
                         plane[winner.offset[cell]] += winner.weight[cell] * gradient;
                       }
                     });
  }

  static void scatter(const ProblemType& problem, const Region& region, int64_t roi, Range64 channels,
                      const T* output_gradient, PlaneSums& sums) {
    if constexpr (Op::kHasAverage) {
      if (problem.params.reduction == Reduction::kAverage) {
        return scatter_average(problem, region, roi, channels, output_gradient, sums);
      }
    }
    scatter_maximum(problem, region, roi, channels, output_gradient, sums);
  }
};

}  // namespace ort_roialign::cpu
