// The gradient of what moves the bins: of the RoI's numbers, summed over its bins, or of each bin's offset.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/channel_blocks.h"
#include "cpu/list_blocks.h"
#include "cpu/scratch_array.h"
#include "cpu/settings.h"
#include "cpu/touched_cells.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// A cell adds one product, of its channels with the gradient of the bin's. For it the map is repacked with all channels
// of a cell side by side, or with some of them at a time; where even that took much memory, planes are read as they
// are.
template <typename Op, typename T>
class SlopeGradient {
 public:
  using ProblemType = Problem<Op, T>;
  using Real = typename ProblemType::Real;
  using Region = typename ProblemType::Region;
  static constexpr int kNumbers = Op::kRoiSlopes + Op::kOffsetSlopes;
  static_assert(!Op::kChannelPerBin && Op::kMostMaps == 1, "a bin reads all channels of the one map");

  SlopeGradient(const KernelCall& call, const ProblemType& problem, const Region* regions)
      : call_(call),
        problem_(problem),
        regions_(regions),
        kernels_(kernels_for<T>(*call.cpu_settings)),
        output_gradient_(static_cast<const T*>(call.inputs[0].data)),
        per_roi_(Op::kRoiSlopes > 0 ? kNumbers : kNumbers * problem.bins()),
        sums_(*call.scratch, problem.num_rois * per_roi_) {}

  void run() {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    if (problem_.num_rois > 0 && problem_.channels > 0) add_all();
    store();
  }

 private:
  static constexpr int64_t kLine = kLineBytes / sizeof(Real);

  void add_all() {
    const int64_t cells = problem_.num_images * problem_.map(0).plane_size();
    const int64_t line_bytes = cells * kLineBytes;  // of all cells
    const int64_t of_map = cells * problem_.channels * int64_t{sizeof(T)} / line_bytes;
    const int64_t lines = std::max(kMostPackedBytes / line_bytes, std::min(of_map, kManyLines));
    const int64_t lanes = std::min(lines, divide_up(problem_.channels, kLine)) * kLine;
    if (lanes == 0 || !pays(static_cast<double>(cells))) {
      return call_.parallel_for(problem_.num_rois, [&](int64_t roi) { add_plain(roi); });
    }
    ScratchArray<Real> packed(*call_.scratch, cells * lanes);
    for (int64_t first = 0; first < problem_.channels; first += lanes) {
      const int64_t channels = std::min(lanes, problem_.channels - first);
      pack_map(first, channels, lanes, packed.data());
      call_.parallel_for(problem_.num_rois, [&](int64_t roi) { add(roi, first, channels, lanes, packed.data()); });
    }
  }

  // Whether the map is worth repacking: a cell costs as much then as some lines of a RoI's cells, else all its
  // channels.
  bool pays(double cells) const {
    const std::optional<Path> forced = call_.cpu_settings->path;
    if (forced == Path::kPacked || forced == Path::kPlain) return forced == Path::kPacked;
    double read = 0;
    for (int64_t roi = 0; roi < problem_.num_rois; ++roi) read += count_cells(problem_, regions_[roi]);
    return cells * kCellsPerRepacked < read * kLine;
  }

  void pack_map(int64_t first, int64_t channels, int64_t lanes, Real* packed) const {
    const FeatureMap<T>& map = problem_.map(0);
    const int64_t per_run = std::max<int64_t>(kRunReals / lanes, 1);
    const int64_t runs = divide_up(map.plane_size(), per_run);
    call_.parallel_for(problem_.num_images * runs, [&](int64_t task) {
      const int64_t image = task / runs;
      const int64_t at = task % runs * per_run;
      PackJob<T> job;
      job.planes = map.data + problem_.plane_offset(map, image, first);
      job.plane_stride = map.plane_size();
      job.channels = static_cast<int32_t>(channels);
      job.block_channels = static_cast<int32_t>(lanes);
      job.packed = packed + image * map.plane_size() * lanes;
      kernels_.pack(job, {at, at, std::min(per_run, map.plane_size() - at)});
    });
  }

  // Adds what some channels contribute to a RoI's sums.
  void add(int64_t roi, int64_t first, int64_t channels, int64_t lanes, const Real* packed) {
    const int64_t bins_at_once = std::max<int64_t>(kStagedReals / lanes, 1);
    std::vector<Real> staged(std::min(bins_at_once, problem_.bins()) * lanes);
    const Real* image = packed + problem_.image(roi) * problem_.map(0).plane_size() * lanes;
    for (int64_t begin = 0; begin < problem_.bins(); begin += bins_at_once) {
      const int64_t end = std::min(begin + bins_at_once, problem_.bins());
      pack_gradient(kernels_, problem_, output_gradient_, roi, first, static_cast<int32_t>(channels),
                    static_cast<int32_t>(lanes), begin, end, staged.data());
      for (int64_t bin = begin; bin < end; ++bin) {
        const Real* gradient = staged.data() + (bin - begin) * lanes;
        add_bin(roi, bin, [&](int64_t cell) { return kernels_.dot(gradient, image + cell * lanes, lanes); });
      }
    }
  }

  // Adds what all channels contribute.
  void add_plain(int64_t roi) {
    const FeatureMap<T>& map = problem_.map(0);
    const T* image = map.data + problem_.plane_offset(map, problem_.image(roi), 0);
    const T* gradient = output_gradient_ + roi * problem_.channels * problem_.bins();
    for (int64_t bin = 0; bin < problem_.bins(); ++bin) {
      add_bin(roi, bin, [&](int64_t cell) {
        double sum = 0;
        for (int64_t channel = 0; channel < problem_.channels; ++channel) {
          sum += static_cast<double>(widen(gradient[channel * problem_.bins() + bin])) *
                 static_cast<double>(widen(image[channel * map.plane_size() + cell]));
        }
        return sum;
      });
    }
  }

  // `product(cell)` is that of the channels of a cell with the gradient of the bin's.
  template <typename Product>
  void add_bin(int64_t roi, int64_t bin, Product product) {
    const auto [bin_y, bin_x] = problem_.bin_place(bin);
    double* sums = sums_.data() + roi * per_roi_ + (Op::kRoiSlopes > 0 ? 0 : bin * kNumbers);
    regions_[roi].visit_slopes(bin_y, bin_x, [&](int64_t cell, const auto& slopes) {
      const double sum = product(cell);
      for (int number = 0; number < kNumbers; ++number) sums[number] += static_cast<double>(slopes[number]) * sum;
    });
  }

  void store() {
    void* output = call_.outputs[1].data;
    if constexpr (Op::kRoiSlopes > 0) {
      for (int64_t place = 0; place < sums_.size(); ++place) {
        problem_.store_like_rois(output, place, static_cast<Real>(sums_[place]));
      }
    } else {
      for (int64_t roi = 0; roi < problem_.num_rois; ++roi) {
        for (int64_t bin = 0; bin < problem_.bins(); ++bin) {
          for (int number = 0; number < kNumbers; ++number) {
            const double sum = sums_[roi * per_roi_ + bin * kNumbers + number];
            static_cast<T*>(output)[(roi * kNumbers + number) * problem_.bins() + bin] =
                narrow<T>(static_cast<Real>(sum));
          }
        }
      }
    }
  }

  static constexpr int64_t kStagedReals = int64_t{1} << 15;
  static constexpr int64_t kManyLines = 4;                // of a cell, that share the work on its slopes
  static constexpr int64_t kRunReals = int64_t{1} << 15;  // stay in the near caches
  static constexpr double kCellsPerRepacked = 4;          // that cost as much, in a plane, as repacking one

  const KernelCall& call_;
  const ProblemType& problem_;
  const Region* regions_;
  const PoolingKernels<T>& kernels_;
  const T* output_gradient_;
  int64_t per_roi_;  // numbers
  ScratchArray<double> sums_;
};

}  // namespace ort_roialign::cpu
