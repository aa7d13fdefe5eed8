// What the parts of the CPU engine that are compiled once per instruction set offer, and the plain data they work on.
//
// Their objects must hold no code that another object could pick up (see isa/kernels.h), so nothing here allocates,
// throws, or uses the standard library.
#pragma once

#include <cstdint>

#include "semantics/element_types.h"

namespace ort_roialign::cpu {

// What a RoI's bins read along one axis. A bin has `points`, and a point is a weighted sum of `taps` cells: for an
// average one point of all the bin's merged taps, for a maximum one point a sample. All bins of a RoI have the same
// numbers of points and taps, so that the kernels' loops are of constant length.
struct AxisPlan {
  int32_t bin_begin;    // the bins with samples inside the map; all others are 0
  int32_t bin_end;      // likewise
  int32_t whole_begin;  // of a maximum: the bins with no sample outside the map; any other bin's is at least 0
  int32_t whole_end;    // likewise
  int32_t points;       // a bin
  int32_t taps;         // a point
  int64_t first_tap;    // of `bin_begin`, in the tables

  bool empty() const { return bin_begin >= bin_end; }

  // These are always inlined, because the kernels' objects must not define them (see isa/kernels.h).
  __attribute__((always_inline)) bool has_samples(int32_t bin) const { return bin >= bin_begin && bin < bin_end; }
  __attribute__((always_inline)) bool is_whole(int32_t bin) const { return bin >= whole_begin && bin < whole_end; }
  __attribute__((always_inline)) int64_t taps_of_bin(int32_t bin) const {
    return first_tap + static_cast<int64_t>(bin - bin_begin) * points * taps;
  }
};

struct RoiPlan {
  AxisPlan y;
  AxisPlan x;
  int64_t roi;
  int32_t num_columns;   // of the map, that the RoI reads
  int32_t column_begin;  // they lie in here
  int32_t column_end;    // likewise
  bool fits;             // false: beyond the tables' bounds
};

// The taps of all RoIs. Along y a tap names a row: of the map, or its place in a repacked block, in elements, from
// where the columns are counted. Along x it names one of the columns that the RoI reads, each of which is listed once.
template <typename Real>
struct TapTable {
  int64_t* cells;
  Real* weights;
  int32_t* columns;  // a RoI's begin where its taps along x do

  __attribute__((always_inline)) const int32_t* columns_of(const RoiPlan& plan) const {
    return columns + plan.x.first_tap;
  }
};

// A run of cells of a plane that is repacked as a whole.
struct PackedRun {
  int64_t plane_cell;   // of the first cell
  int64_t packed_cell;  // likewise
  int64_t cells;
};

// As many cells of a group of channels stay in the nearest cache.
constexpr int64_t kCellsPerRun = 1024;

// Repacks cells of some channels, so that the channels of a cell lie side by side.
template <typename T>
struct PackJob {
  const T* planes;         // of the block's first channel
  int64_t plane_stride;    // from one channel's plane to the next one's, in elements
  int32_t channels;        // of the block; the lanes after them are filled with 0
  int32_t block_channels;  // lanes of a cell, a multiple of Lanes<T>
  ComputeType<T>* packed;  // [cells, block_channels]
};

// What both ways of pooling need to know.
template <typename T>
struct PoolJob {
  TapTable<ComputeType<T>> taps;
  bool maximum;
  int32_t output_height;  // bins
  int32_t output_width;   // bins
  int64_t channels;       // of the operator's output
  T* output;              // [num_rois, channels, output_height, output_width]
  bool stream;            // write the output past the caches
};

// Pools RoIs out of a repacked block.
template <typename T>
struct PackedPoolJob : PoolJob<T> {
  const RoiPlan* plans;          // in the order in which they are pooled
  const ComputeType<T>* packed;  // [cells, block_channels]
  int32_t block_channels;
  int64_t channel_begin;  // of the block, among the output's channels
  int32_t block_used;     // channels of the block that exist
};

// Pools RoIs out of the map's own planes.
template <typename T>
struct DirectPoolJob : PoolJob<T> {
  const T* planes;     // of the image's first channel
  int64_t plane_size;  // elements
  int32_t width;       // of the map
};

// A cell that a bin reads and what it weighs there, or one of the cells of a sample.
template <typename Real>
struct WeightedCell {
  int32_t cell;  // kOutside: of a sample outside the map, which is worth 0
  Real weight;
};
constexpr int32_t kOutside = -1;

// What some bins read, cell by cell: a bin the cells up to its end, from the end of the bin before it on.
template <typename Real>
struct CellLists {
  const WeightedCell<Real>* cells;
  const int32_t* ends;  // of each bin
  int32_t begin;        // of the first bin
  int32_t bins;

  __attribute__((always_inline)) int32_t begin_of(int32_t bin) const { return bin == 0 ? begin : ends[bin - 1]; }
};

// A repacked block that lists are applied to, or the gradient of one.
template <typename Real>
struct Block {
  Real* cells;       // [cells, channels]; the lists' cell 0 is the first one
  int32_t channels;  // a line or two
};

// A cell of a repacked block is one or two cache lines wide. Wider ones save little more of the work on taps, and
// push the block out of the caches and its pages out of their table.
constexpr int32_t kLineBytes = 64;
constexpr int32_t kWidestBlockBytes = 2 * kLineBytes;

// The most columns that a RoI reads, or for the direct kernel lie between the first and the last that it reads: as many
// cells of one line are summed before bins are pooled out of them.
constexpr int32_t kMostColumns = 1024;

// The most bins across that the direct kernel pools.
constexpr int32_t kMostDirectBins = 256;

// As many channels or fewer are pooled with bins side by side in a vector, more with channels.
constexpr int32_t kFewChannels = 3;

// Of finished bins, or of their gradients, while they wait to be transposed.
constexpr int32_t kStagingBytes = 32768;

// Unpacks [cells, block_channels] to planes. What is written is `channels` long.
template <typename T>
struct UnpackJob {
  const ComputeType<T>* packed;
  int32_t block_channels;
  T* planes;             // of the first channel, from the first cell on
  int64_t plane_stride;  // from one channel's plane to the next one's, in elements
  int32_t channels;
  bool stream;  // past the caches, where the planes lie side by side
};

// The kernels of one element type.
template <typename T>
struct PoolingKernels {
  using Real = ComputeType<T>;

  void (*pack)(const PackJob<T>& job, const PackedRun& run);
  void (*unpack)(const UnpackJob<T>& job, int64_t cells);
  void (*pool_packed)(const PackedPoolJob<T>& job, int64_t plan_begin, int64_t plan_end);
  void (*pool_direct)(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end);

  // Adds the weighted cells of each bin to its sums, [bins, channels].
  void (*sum_cells)(const CellLists<Real>& lists, Block<const Real> block, Real* sums);
  // Adds to the gradient of the cells of each bin what they weigh of the bin's, [bins, channels].
  void (*spread_sums)(const CellLists<Real>& lists, const Real* gradients, Block<Real> block);
  // Takes the larger ones of each bin's samples and of `values`, and their numbers among the bin's samples in these
  // lists for `winners`; both [bins, channels]. `fresh`: there are no values yet.
  void (*take_samples)(const CellLists<Real>& lists, int32_t cells_per_sample, Block<const Real> block, bool fresh,
                       Real* values, Real* winners);
  // Adds to the gradient of the cells of each bin's winning sample what they weigh of the bin's.
  void (*spread_maxima)(const CellLists<Real>& lists, int32_t cells_per_sample, const Real* winners,
                        const Real* gradients, Block<Real> block);
  // The sum over `count` products, a multiple of a line's.
  double (*dot)(const Real* a, const Real* b, int64_t count);
};

// The kernels of one instruction set.
struct IsaKernels {
  const char* name;
  PoolingKernels<float> float32;
  PoolingKernels<double> float64;
  PoolingKernels<Float16> float16;
  PoolingKernels<BFloat16> bfloat16;
};

}  // namespace ort_roialign::cpu
