// What every RoI's region answers, be its bins' weights products of taps along both axes or those of samples.
#pragma once

#include <cstdint>

#include "semantics/host_device.h"
#include "semantics/sample.h"

namespace ort_roialign {

// Calls body(offset in a plane, weight) for the cells that a bin's average reads, on a map of `width` cells; a cell
// that several samples read comes as often.
template <typename Region, typename Body>
ORT_ROIALIGN_HD void visit_cells(const Region& region, int32_t bin_y, int32_t bin_x, int32_t width, Body&& body) {
  if constexpr (Region::kSeparable) {
    for (auto row = region.row_taps(bin_y); row.next();) {
      const int64_t first = static_cast<int64_t>(row.cell) * width;
      for (auto column = region.column_taps(bin_x); column.next();) {
        body(first + column.cell, row.weight * column.weight);
      }
    }
  } else {
    region.visit_samples(bin_y, bin_x, [&](const auto& sample) {
      for (int cell = 0; sample.inside && cell < sample.kCells; ++cell) body(sample.offset[cell], sample.weight[cell]);
    });
  }
}

// A rectangle that holds all that a bin reads; empty where it reads nothing.
template <typename Region>
ORT_ROIALIGN_HD CellRectangle touched_by_bin(const Region& region, int32_t bin_y, int32_t bin_x) {
  if constexpr (Region::kSeparable) {
    return {region.touched_rows(bin_y), region.touched_columns(bin_x)};
  } else {
    return region.touched(bin_y, bin_x);
  }
}

}  // namespace ort_roialign
