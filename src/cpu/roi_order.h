// The order in which a call's RoIs are pooled.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/isa_kernels.h"
#include "cpu/scratch_array.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// Where a RoI comes: by map and image, and where a block of the map does not fit the nearest caches by place, so that
// RoIs that lie close together follow one another.
struct RoiTurn {
  int64_t page;
  int32_t band;
  int32_t column;
  int64_t roi;

  bool operator<(const RoiTurn& other) const {
    if (page != other.page) return page < other.page;
    if (band != other.band) return band < other.band;
    if (column != other.column) return column < other.column;
    return roi < other.roi;
  }
};

template <typename Op, typename T>
void put_in_order(const Problem<Op, T>& problem, const typename Problem<Op, T>::Region* regions,
                  ScratchArray<RoiTurn>& turns) {
  constexpr int64_t kNearCacheBytes = int64_t{1} << 19;
  constexpr int32_t kRowsPerBand = 16;
  const int64_t cell_bytes =
      std::min<int64_t>(problem.channels * sizeof(typename Problem<Op, T>::Real), kWidestBlockBytes);
  for (int64_t roi = 0; roi < turns.size(); ++roi) {
    const auto& region = regions[roi];
    const bool near = problem.map(region.map_number).plane_size() * cell_bytes <= kNearCacheBytes;
    const int32_t band = near ? 0 : region.y.middle_cell(problem.params.output_height) / kRowsPerBand;
    const int32_t column = near ? 0 : region.x.middle_cell(problem.params.output_width);
    turns[roi] = {problem.page(roi, region), band, band % 2 == 0 ? column : -column, roi};
  }
  if (!std::is_sorted(turns.begin(), turns.end())) std::sort(turns.begin(), turns.end());
}

}  // namespace ort_roialign::cpu
