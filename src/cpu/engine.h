// The CPU kernels of every operator: which of the ways to pool, or to spread a gradient, a call takes.
//
// A result is computed by one task in one order of additions, so it does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/cell_lists.h"
#include "cpu/list_blocks.h"
#include "cpu/listed_forward.h"
#include "cpu/listed_gradient.h"
#include "cpu/plain_passes.h"
#include "cpu/pool_all.h"
#include "cpu/slope_gradient.h"
#include "ops/error.h"
#include "ops/problem.h"
#include "semantics/sample_grid.h"

namespace ort_roialign::cpu {

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
    if constexpr (kHasStrips) {
      if (call.cpu_settings->path != Path::kPlain) {
        const std::vector<int64_t> others = pool_all<Op, T>(call, problem, regions.data());
        if (others.empty()) return;
        return PlainPasses<Op, T>::forward(call, problem, regions.data(), &others);
      }
    }
    ListBlocks<Op, T> blocks(problem, regions.data());
    const bool packed = blocks.cut(call.cpu_settings->path, 1, kForwardListPrices);
    count_call(call.cpu_settings->isa, packed ? Path::kPacked : Path::kPlain);
    if (!packed) return PlainPasses<Op, T>::forward(call, problem, regions.data(), nullptr);
    const CellTable<Op, T> table(call, problem, regions.data());
    ListedForward(call, problem, table, blocks).run();
  }

  static void backward(const KernelCall& call) {
    const ProblemType problem = make_problem<Op, T>(call, 1);
    ScratchArray<Region> regions(*call.scratch, problem.num_rois);
    locate_all(problem, call.operator_name, regions.data());
    backward_of_maps(call, problem, regions.data());
    if constexpr (Op::kRoiSlopes + Op::kOffsetSlopes > 0) {
      if (call.outputs[1].data != nullptr) SlopeGradient<Op, T>(call, problem, regions.data()).run();
    }
  }

 private:
  static constexpr bool takes_samples() {
    if constexpr (Op::kHasMaximum) return Region::kCellsPerSample == 1 || Region::kCellsPerSample == 4;
    return true;
  }
  static constexpr bool winners_are_cells() {
    if constexpr (Op::kHasWinnerOutput) return Region::kCellsPerSample == 1;
    return true;
  }
  static_assert(takes_samples(), "the kernels take the maximum of samples of one cell or of four");
  static_assert(winners_are_cells(), "what is put out as the winner is a cell");

  // Whether bins can be pooled out of strips, which knows SampleGrid's axes.
  static constexpr bool kHasStrips = std::is_base_of_v<SampleGrid<Real>, Region> && !Op::kChannelPerBin;

  static void backward_of_maps(const KernelCall& call, const ProblemType& problem, const Region* regions) {
    const bool wanted = std::any_of(call.outputs.begin(), call.outputs.begin() + problem.num_maps,
                                    [](const OutputTensor& output) { return output.data != nullptr; });
    if (!wanted || problem.channels == 0) return;
    ListBlocks<Op, T> blocks(problem, regions);
    const bool packed =
        blocks.cut(call.cpu_settings->path, ListedGradient<Op, T>::blocks_per_buffer(problem), kBackwardListPrices);
    count_call(call.cpu_settings->isa, packed ? Path::kPacked : Path::kPlain);
    if (packed) {
      const CellTable<Op, T> table(call, problem, regions);
      return ListedGradient(call, problem, table, blocks).run();
    }
    for (int32_t number = 0; number < problem.num_maps; ++number) {
      if (call.outputs[number].data != nullptr)
        PlainPasses<Op, T>::backward(call, problem, regions, number, blocks.pages());
    }
  }

  // Throws for the first RoI that breaks the contract.
  static void locate_all(const ProblemType& problem, const std::string& op, Region* regions) {
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
      switch (problem.fault(roi)) {
        case RoiFault::kBatchIndex:
          if (problem.batch_indices != nullptr) {
            throw InvalidArgument(text(op, ": batch_indices[", roi, "] must be in [0, ", problem.num_images, "); got ",
                                       problem.batch_indices[roi]));
          }
          throw InvalidArgument(text(op, ": rois[", roi, "] must begin with an image's number in [0, ",
                                     problem.num_images, "); got ", problem.roi_number(roi * problem.roi_columns)));
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
};

}  // namespace ort_roialign::cpu
