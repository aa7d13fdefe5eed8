// Pools bins out of repacked blocks cell by cell, and spreads their gradients likewise.
#pragma once

#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

template <typename Real>
constexpr int kVectorsPerLine = kLineBytes / static_cast<int>(sizeof(Vector<Real>));

// The cells of a bin.
template <typename Real>
struct ListedBin {
  const WeightedCell<Real>* begin;
  const WeightedCell<Real>* end;
};

template <typename Real>
ListedBin<Real> cells_of_bin(const CellLists<Real>& lists, int32_t bin) {
  return {lists.cells + lists.begin_of(bin), lists.cells + lists.ends[bin]};
}

template <int kVectors, typename Real>
void sum_cells_of(const CellLists<Real>& lists, const Real* block, Real* sums) {
  using V = Vector<Real>;
  constexpr int kChannels = kVectors * V::kLanes;
  for (int32_t bin = 0; bin < lists.bins; ++bin, sums += kChannels) {
    const ListedBin<Real> cells = cells_of_bin(lists, bin);
    V sum[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[v] = V::load(sums + v * V::kLanes);
    for (const WeightedCell<Real>* cell = cells.begin; cell < cells.end; ++cell) {
      const Real* from = block + static_cast<int64_t>(cell->cell) * kChannels;
      const V weight = V::broadcast(cell->weight);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[v] = multiply_add(V::load(from + v * V::kLanes), weight, sum[v]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[v].store(sums + v * V::kLanes);
  }
}

template <typename Real>
void sum_cells(const CellLists<Real>& lists, Block<const Real> block, Real* sums) {
  constexpr int kLine = kVectorsPerLine<Real>;
  if (block.channels == kLine * Vector<Real>::kLanes) return sum_cells_of<kLine>(lists, block.cells, sums);
  sum_cells_of<2 * kLine>(lists, block.cells, sums);
}

template <int kVectors, typename Real>
void spread_sums_of(const CellLists<Real>& lists, const Real* gradients, Real* block) {
  using V = Vector<Real>;
  constexpr int kChannels = kVectors * V::kLanes;
  for (int32_t bin = 0; bin < lists.bins; ++bin, gradients += kChannels) {
    const ListedBin<Real> cells = cells_of_bin(lists, bin);
    V gradient[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) gradient[v] = V::load(gradients + v * V::kLanes);
    for (const WeightedCell<Real>* cell = cells.begin; cell < cells.end; ++cell) {
      Real* to = block + static_cast<int64_t>(cell->cell) * kChannels;
      const V weight = V::broadcast(cell->weight);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        multiply_add(gradient[v], weight, V::load(to + v * V::kLanes)).store(to + v * V::kLanes);
      }
    }
  }
}

template <typename Real>
void spread_sums(const CellLists<Real>& lists, const Real* gradients, Block<Real> block) {
  constexpr int kLine = kVectorsPerLine<Real>;
  if (block.channels == kLine * Vector<Real>::kLanes) return spread_sums_of<kLine>(lists, gradients, block.cells);
  spread_sums_of<2 * kLine>(lists, gradients, block.cells);
}

// One line of a block, of a maximum: with its winners a wide cell would not stay in registers.
template <int kCells, typename Real>
void take_samples_of(const CellLists<Real>& lists, const Real* block, int32_t channels, bool fresh, Real* values,
                     Real* winners) {
  using V = Vector<Real>;
  constexpr int kVectors = kVectorsPerLine<Real>;
  for (int32_t bin = 0; bin < lists.bins; ++bin, values += channels, winners += channels) {
    const ListedBin<Real> cells = cells_of_bin(lists, bin);
    V best[kVectors];
    V winner[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      best[v] = V::load(values + v * V::kLanes);
      winner[v] = V::load(winners + v * V::kLanes);
    }
    Real number = 0;
    for (const WeightedCell<Real>* cell = cells.begin; cell < cells.end; cell += kCells, number += 1) {
      V sample[kVectors];
#pragma GCC unroll 16
      for (V& value : sample) value = V::broadcast(0);
      if (cell->cell != kOutside) {
#pragma GCC unroll 4
        for (int i = 0; i < kCells; ++i) {
          const Real* from = block + static_cast<int64_t>(cell[i].cell) * channels;
          const V weight = V::broadcast(cell[i].weight);
#pragma GCC unroll 16
          for (int v = 0; v < kVectors; ++v) {
            sample[v] = kCells == 1 ? V::load(from + v * V::kLanes)
                                    : multiply_add(V::load(from + v * V::kLanes), weight, sample[v]);
          }
        }
      }
      const V numbers = V::broadcast(number);
      if (fresh && number == 0) {
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          best[v] = sample[v];
          winner[v] = numbers;
        }
      } else {
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) best[v].take_larger(sample[v], numbers, winner[v]);
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      best[v].store(values + v * V::kLanes);
      winner[v].store(winners + v * V::kLanes);
    }
  }
}

template <typename Real>
void take_samples(const CellLists<Real>& lists, int32_t cells_per_sample, Block<const Real> block, bool fresh,
                  Real* values, Real* winners) {
  constexpr int kLine = kVectorsPerLine<Real> * Vector<Real>::kLanes;
  for (int32_t lane = 0; lane < block.channels; lane += kLine) {
    const Real* cells = block.cells + lane;
    if (cells_per_sample == 1) {
      take_samples_of<1>(lists, cells, block.channels, fresh, values + lane, winners + lane);
    } else {
      take_samples_of<4>(lists, cells, block.channels, fresh, values + lane, winners + lane);
    }
  }
}

template <int kCells, typename Real>
void spread_maxima_of(const CellLists<Real>& lists, const Real* winners, const Real* gradients, Real* block,
                      int32_t channels) {
  using V = Vector<Real>;
  constexpr int kVectors = kVectorsPerLine<Real>;
  for (int32_t bin = 0; bin < lists.bins; ++bin, winners += channels, gradients += channels) {
    const ListedBin<Real> cells = cells_of_bin(lists, bin);
    Real number = 0;
    for (const WeightedCell<Real>* cell = cells.begin; cell < cells.end; cell += kCells, number += 1) {
      if (cell->cell == kOutside) continue;
      V gradient[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const int lane = v * V::kLanes;
        gradient[v] = V::load(gradients + lane).where_equal(V::load(winners + lane), V::broadcast(number));
      }
#pragma GCC unroll 4
      for (int i = 0; i < kCells; ++i) {
        Real* to = block + static_cast<int64_t>(cell[i].cell) * channels;
        const V weight = V::broadcast(cell[i].weight);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          multiply_add(gradient[v], weight, V::load(to + v * V::kLanes)).store(to + v * V::kLanes);
        }
      }
    }
  }
}

template <typename Real>
void spread_maxima(const CellLists<Real>& lists, int32_t cells_per_sample, const Real* winners, const Real* gradients,
                   Block<Real> block) {
  constexpr int kLine = kVectorsPerLine<Real> * Vector<Real>::kLanes;
  for (int32_t lane = 0; lane < block.channels; lane += kLine) {
    if (cells_per_sample == 1) {
      spread_maxima_of<1>(lists, winners + lane, gradients + lane, block.cells + lane, block.channels);
    } else {
      spread_maxima_of<4>(lists, winners + lane, gradients + lane, block.cells + lane, block.channels);
    }
  }
}

template <typename Real>
double dot(const Real* a, const Real* b, int64_t count) {
  using V = Vector<Real>;
  V sum = V::broadcast(0);
  for (int64_t at = 0; at < count; at += V::kLanes) sum = multiply_add(V::load(a + at), V::load(b + at), sum);
  Real lanes[V::kLanes];
  sum.store(lanes);
  double total = 0;
  for (const Real lane : lanes) total += static_cast<double>(lane);
  return total;
}

}  // namespace
}  // namespace ort_roialign::cpu
