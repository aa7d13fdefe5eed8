// Which cells of an image's planes are repacked, and where they lie in a block: of each row the parts that any RoI
// reads, in pieces of whole cache lines of the map.
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
      : height_(height),
        width_(width),
        pieces_((width + kCellsPerPiece - 1) / kCellsPerPiece),
        words_((pieces_ + kBits - 1) / kBits),
        read_(memory, height * words_),
        base_(memory, height * pieces_) {
    std::fill(read_.begin(), read_.end(), 0);
  }

  // Adds cells that one RoI reads of a row.
  void add(int64_t row, int32_t column_begin, int32_t column_end) {
    const int64_t first = column_begin / kCellsPerPiece;
    const int64_t last = (column_end - 1) / kCellsPerPiece;
    for (int64_t word = first / kBits; word <= last / kBits; ++word) {
      const int64_t from = std::max(first - word * kBits, int64_t{0});
      const int64_t to = std::min(last - word * kBits, kBits - 1);
      read_[row * words_ + word] |= ~uint64_t{0} >> (kBits - 1 - (to - from)) << from;
    }
  }

  // Cuts the cells into runs and gives each its place, after all rows are added.
  void close() {
    for (int64_t row = 0; row < height_; ++row) {
      for (int64_t piece = 0; piece < pieces_; ++piece) {
        if ((read_[row * words_ + piece / kBits] >> (piece % kBits) & 1) == 0) continue;
        const int64_t column = piece * kCellsPerPiece;
        base_[row * pieces_ + piece] = cells_ - column;
        append(row * width_ + column, std::min(kCellsPerPiece, width_ - column));
      }
    }
  }

  // What is added to a column to give a cell's place in a block, for the cells that one RoI reads of a row: they lie in
  // pieces side by side, so that it is the same for all of them.
  int64_t base(int64_t row, int32_t column_begin) const { return base_[row * pieces_ + column_begin / kCellsPerPiece]; }

  int64_t cells() const { return cells_; }
  const std::vector<PackedRun>& runs() const { return runs_; }

 private:
  static constexpr int64_t kCellsPerPiece = 16;
  static constexpr int64_t kCellsPerRun = 1024;  // of one task, but for the last rest
  static constexpr int64_t kBits = 64;

  void append(int64_t plane_cell, int64_t count) {
    const bool goes_on = !runs_.empty() && runs_.back().plane_cell + runs_.back().cells == plane_cell &&
                         runs_.back().cells < kCellsPerRun;
    if (!goes_on) runs_.push_back({plane_cell, cells_, 0});
    runs_.back().cells += count;
    cells_ += count;
  }

  int64_t height_;
  int64_t width_;
  int64_t pieces_;  // of a row
  int64_t words_;   // of a row, with a bit for each piece
  ScratchArray<uint64_t> read_;
  ScratchArray<int64_t> base_;
  std::vector<PackedRun> runs_;
  int64_t cells_ = 0;
};

}  // namespace ort_roialign::cpu
