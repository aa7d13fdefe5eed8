// Which cells a RoI touches, and about how many it reads: without a look at each of its samples.
#pragma once

#include <cstdint>

#include "ops/problem.h"
#include "semantics/region.h"
#include "semantics/sample.h"

namespace ort_roialign::cpu {

// Calls body(rectangle) for rectangles that hold all that a RoI's bins read, none of them empty.
template <typename Op, typename T, typename Body>
void for_each_touched(const Problem<Op, T>& problem, const typename Problem<Op, T>::Region& region, Body body) {
  const auto visit = [&](CellRectangle cells) {
    if (!cells.rows.empty() && !cells.columns.empty()) body(cells);
  };
  if constexpr (Problem<Op, T>::Region::kSeparable) {
    CellRectangle all{{0, 0}, {0, 0}};
    for (int32_t bin = 0; bin < problem.params.output_height; ++bin) join(all.rows, region.touched_rows(bin));
    for (int32_t bin = 0; bin < problem.params.output_width; ++bin) join(all.columns, region.touched_columns(bin));
    visit(all);
  } else {
    for (int64_t bin = 0; bin < problem.bins(); ++bin) {
      visit(touched_by_bin(region, problem.bin_place(bin).y, problem.bin_place(bin).x));
    }
  }
}

// About how many cells all bins of a RoI read together: as many as if all were like the one in the middle.
template <typename Op, typename T>
double count_cells(const Problem<Op, T>& problem, const typename Problem<Op, T>::Region& region) {
  const CellRectangle middle =
      touched_by_bin(region, problem.params.output_height / 2, problem.params.output_width / 2);
  return static_cast<double>(middle.rows.size()) * middle.columns.size() * static_cast<double>(problem.bins());
}

}  // namespace ort_roialign::cpu
