// Chooses between pooling out of the map's own planes and pooling out of repacked blocks.
//
// The unit is one step of a vector of 64 bytes. Repacking costs a fixed price a cell that any RoI reads, and then makes
// each tap of each bin one step for all of a vector's channels; without it a channel needs steps along the rows that a
// bin reads and then one number after the other.
#pragma once

#include <cstdint>

namespace ort_roialign::cpu {

// Sums over all RoIs of a call.
struct Work {
  double bins = 0;          // of the output, for one channel
  double taps = 0;          // of all bins: rows times columns
  double line_steps = 0;    // direct: vectors of a row that are read, for all row taps
  double line_taps = 0;     // direct: column taps of all lines
  double packed_cells = 0;  // packed: cells that any RoI reads
  double rois = 0;
};

constexpr double kPackCell = 6;     // a cell's share of reading planes, transposing and writing a block
constexpr double kUnpackBin = 6;    // likewise for a finished bin
constexpr double kPackedTap = 1.5;  // weight, address, and one multiply-add
constexpr double kPackedRoi = 60;
constexpr double kLineStep = 1.5;
constexpr double kLineTap = 1.5;
constexpr double kDirectBin = 1;
constexpr double kDirectChannel = 20;  // a channel's turn of a RoI

// Of one block of `lines` 64-byte lines a cell.
inline double packed_cost(const Work& work, double lines) {
  return lines * (kPackCell * work.packed_cells + kUnpackBin * work.bins + kPackedTap * work.taps) +
         kPackedRoi * work.rois;
}

// Of one channel.
inline double direct_cost(const Work& work) {
  return kLineStep * work.line_steps + kLineTap * work.line_taps + kDirectBin * work.bins + kDirectChannel * work.rois;
}

}  // namespace ort_roialign::cpu
