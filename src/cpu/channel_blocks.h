// How the channels of what is repacked are cut into blocks, and how much memory blocks take.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <thread>

#include "cpu/isa_kernels.h"
#include "ops/problem.h"

namespace ort_roialign::cpu {

// Of blocks at a time, unless they take less than what they were repacked from.
constexpr int64_t kMostPackedBytes = int64_t{8} << 20;
// Of a block, if it is to stay in the caches near a core.
constexpr int64_t kNearBytes = int64_t{2} << 20;

// Of output that would push the blocks out of the caches.
constexpr int64_t kLeastStreamedBytes = int64_t{4} << 20;

// The part of the map that is repacked.
struct Repacked {
  int64_t pages = 0;
  int64_t most_cells = 0;  // of a page
  int64_t all_cells = 0;
  int64_t channels = 0;
  int64_t element_bytes = 0;  // of the map

  int64_t bytes() const { return all_cells * channels * element_bytes; }
};

struct ChannelBlocks {
  int64_t count;     // of a page
  int64_t channels;  // of each; the last one may be filled up
};

// A wide cell spreads the work on taps over more channels; but a block should fit the caches near a core, and a single
// block would be repacked by a single thread. A block of a page takes no more memory than what the RoIs read of the
// page's map, or no more than kMostPackedBytes; nothing, where there is no such block.
template <typename Real>
std::optional<ChannelBlocks> cut_channels(const Repacked& repacked) {
  constexpr int64_t kLine = kLineBytes / sizeof(Real);
  for (const int64_t most : {kWidestBlockBytes / int64_t{sizeof(Real)}, kLine}) {
    const int64_t count = divide_up(repacked.channels, most);
    const int64_t channels = divide_up(divide_up(repacked.channels, count), kLine) * kLine;
    const int64_t cell_bytes = channels * int64_t{sizeof(Real)};
    const bool near = repacked.most_cells * cell_bytes <= kNearBytes && count * repacked.pages > 1;
    const bool small = repacked.most_cells * cell_bytes <= kMostPackedBytes;
    const bool fits = small || cell_bytes <= repacked.channels * repacked.element_bytes;
    if (fits && (near || most == kLine)) return ChannelBlocks{count, channels};
  }
  return std::nullopt;
}

// How many blocks are held at a time: one for each thread that the machine runs at once, as far as memory allows.
template <typename Real>
int64_t count_buffers(const Repacked& repacked, const ChannelBlocks& blocks) {
  static const int64_t threads = std::max(std::thread::hardware_concurrency(), 1u);  // a slow call
  const int64_t block_bytes = std::max<int64_t>(repacked.most_cells * blocks.channels * int64_t{sizeof(Real)}, 1);
  const int64_t allowed = std::max(kMostPackedBytes, repacked.bytes()) / block_bytes;
  return std::clamp<int64_t>(allowed, 1, std::min(blocks.count * repacked.pages, threads));
}

}  // namespace ort_roialign::cpu
