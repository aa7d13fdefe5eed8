// Runs CUDA kernels on the host, so that their very source is tested where there is no GPU.
//
// A block's threads are fibres that take turns at barriers. Shared memory starts as NaN, so that a read before a write
// shows; the environment variable ORT_ROIALIGN_THREAD_ORDER=reversed runs the threads from last to first, so that a
// missing barrier shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

#define __global__
#define __device__

namespace ort_roialign::cuda {

struct Index {
  unsigned x;
};

// As CUDA names them; set by the executor for the fibre that runs.
extern Index threadIdx;
extern Index blockIdx;
extern Index blockDim;
extern Index gridDim;

// Waits until every thread of the block is here.
void __syncthreads();

constexpr size_t kSharedMemoryBytes = 48 * 1024;  // what a CUDA block has without asking
void* shared_memory();

// Runs `thread` once for each thread of each block. Throws RuntimeFailure where threads of one block do not all reach
// the same barriers.
void run_grid(int64_t blocks, int threads, const std::function<void()>& thread);

template <typename Layout>
Layout& block_shared() {
  static_assert(sizeof(Layout) <= kSharedMemoryBytes, "the layout does not fit into a block's shared memory");
  static_assert(std::is_trivial_v<Layout>, "shared memory has no constructors");
  return *static_cast<Layout*>(shared_memory());
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, void*, Arguments... arguments) {
  run_grid(blocks, threads, [&] { kernel(arguments...); });
}

class StreamMemory {
 public:
  StreamMemory(size_t bytes, void*) : bytes_(bytes, std::byte{0xff}) {}
  void* data() { return bytes_.data(); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace ort_roialign::cuda
