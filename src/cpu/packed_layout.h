// Which cells of an image's planes are repacked: of each row the part that any RoI reads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/isa_kernels.h"
#include "cpu/scratch_array.h"

namespace ort_roialign::cpu {

class PackedLayout {
 public:
  PackedLayout(ScratchMemory& memory, int32_t height, int32_t width)
      : width_(width), rows_(memory, height), row_base_(memory, height) {
    std::fill(rows_.begin(), rows_.end(), Columns{width, 0});
  }

  void add(int64_t row, int32_t column_begin, int32_t column_end) {
    Columns& columns = rows_[row];
    columns.begin = std::min(columns.begin, column_begin);
    columns.end = std::max(columns.end, column_end);
  }

  // Cuts the cells into runs and gives each its place, after all rows are added.
  void close() {
    for (int64_t row = 0; row < rows_.size(); ++row) {
      const Columns columns = rows_[row];
      if (columns.begin >= columns.end) continue;
      // Whole lines of the map, as far as its rows are whole lines.
      const int64_t begin = columns.begin / kCellsPerLine * kCellsPerLine;
      const int64_t end = std::min<int64_t>((columns.end + kCellsPerLine - 1) / kCellsPerLine * kCellsPerLine, width_);
      row_base_[row] = cells_ - begin;
      append(row * width_ + begin, end - begin);
    }
  }

  // Of a cell's row: its place in a block is this plus its column.
  int64_t row_base(int64_t row) const { return row_base_[row]; }
  int64_t cells() const { return cells_; }
  const std::vector<PackedRun>& runs() const { return runs_; }

 private:
  static constexpr int64_t kCellsPerLine = 16;
  static constexpr int64_t kCellsPerRun = 1024;  // of one task, but for the last rest

  struct Columns {
    int32_t begin;
    int32_t end;
  };

  void append(int64_t plane_cell, int64_t count) {
    while (count > 0) {
      const bool goes_on = !runs_.empty() && runs_.back().plane_cell + runs_.back().cells == plane_cell &&
                           runs_.back().cells < kCellsPerRun;
      if (!goes_on) runs_.push_back({plane_cell, cells_, 0});
      const int64_t taken = std::min(count, kCellsPerRun - runs_.back().cells);
      runs_.back().cells += taken;
      cells_ += taken;
      plane_cell += taken;
      count -= taken;
    }
  }

  int64_t width_;
  ScratchArray<Columns> rows_;
  ScratchArray<int64_t> row_base_;
  std::vector<PackedRun> runs_;
  int64_t cells_ = 0;
};

}  // namespace ort_roialign::cpu
