// Which cells of an image's planes are repacked, and where they lie in a block: of each row the parts that any RoI
// reads, in pieces of whole cache lines of the map.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/isa_kernels.h"
#include "cpu/scratch_array.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

class PackedLayout {
 public:
  // Rows [row_begin, row_end) hold all that the RoIs read of maps `width` cells wide.
  PackedLayout(ScratchMemory& memory, int64_t row_begin, int64_t row_end, int32_t width)
      : first_row_(row_begin),
        width_(width),
        words_(divide_up(divide_up(width, kCellsPerPiece), kBits)),
        read_(memory, (row_end - row_begin) * words_),
        row_places_(memory, row_end - row_begin) {
    std::fill(read_.begin(), read_.end(), 0);
  }

  // Adds cells that one RoI reads of a row.
  void add(int64_t row, int32_t column_begin, int32_t column_end) {
    const int64_t first = column_begin / kCellsPerPiece;
    const int64_t last = (column_end - 1) / kCellsPerPiece;
    uint64_t* words = words_of(row);
    for (int64_t word = first / kBits; word <= last / kBits; ++word) {
      const int64_t from = std::max(first - word * kBits, int64_t{0});
      const int64_t to = std::min(last - word * kBits, kBits - 1);
      words[word] |= ~uint64_t{0} >> (kBits - 1 - (to - from)) << from;
    }
  }

  // Cuts the cells into runs and gives each its place, after all rows are added.
  void close() {
    for (int64_t row = first_row_; row < first_row_ + row_places_.size(); ++row) {
      row_places_[row - first_row_] = cells_;
      const uint64_t* words = words_of(row);
      for (int64_t word = 0; word < words_; ++word) {
        for (uint64_t left = words[word]; left != 0; left &= left - 1) {
          const int64_t column = (word * kBits + __builtin_ctzll(left)) * kCellsPerPiece;
          append(row * width_ + column, std::min(kCellsPerPiece, width_ - column));
        }
      }
    }
  }

  // What is added to a column to give a cell's place in a block, for the cells that one RoI reads of a row from
  // `column_begin` on: their pieces lie side by side, so that it is the same for all of them.
  int64_t base(int64_t row, int32_t column_begin) {
    const int64_t piece = column_begin / kCellsPerPiece;
    const uint64_t* words = words_of(row);
    int64_t before = __builtin_popcountll(words[piece / kBits] & ((uint64_t{1} << (piece % kBits)) - 1));
    for (int64_t word = 0; word < piece / kBits; ++word) before += __builtin_popcountll(words[word]);
    return row_places_[row - first_row_] + (before - piece) * kCellsPerPiece;
  }

  int64_t cells() const { return cells_; }
  const std::vector<PackedRun>& runs() const { return runs_; }

 private:
  static constexpr int64_t kCellsPerPiece = 16;
  static constexpr int64_t kBits = 64;

  uint64_t* words_of(int64_t row) { return read_.data() + (row - first_row_) * words_; }

  void append(int64_t plane_cell, int64_t count) {
    const bool goes_on = !runs_.empty() && runs_.back().plane_cell + runs_.back().cells == plane_cell &&
                         runs_.back().cells < kCellsPerRun;
    if (!goes_on) runs_.push_back({plane_cell, cells_, 0});
    runs_.back().cells += count;
    cells_ += count;
  }

  int64_t first_row_;
  int64_t width_;
  int64_t words_;                     // of a row, with a bit for each piece
  ScratchArray<uint64_t> read_;       // [rows, words]
  ScratchArray<int64_t> row_places_;  // of each row's first cell in a block
  std::vector<PackedRun> runs_;
  int64_t cells_ = 0;
};

}  // namespace ort_roialign::cpu
