// What the CUDA kernels need of the device: launches, shared memory and scratch memory, with every call checked.
//
// Without nvcc the same names run on the host; see on_host/device.h.
#pragma once

#ifndef __CUDACC__
#include "cuda/on_host/device.h"
#else

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "ops/error.h"

namespace ort_roialign::cuda {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw RuntimeFailure(text("ort_roialign: CUDA failed to ", what, ": ", cudaGetErrorString(error)));
  }
}

// The block's shared memory, seen as one struct; one layout a kernel.
template <typename Layout>
__device__ Layout& block_shared() {
  __shared__ Layout layout;
  return layout;
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, void* stream, Arguments... arguments) {
  const auto grid = static_cast<unsigned>(blocks);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  // clang-format off
  kernel<<<grid, threads, 0, cuda_stream>>>(arguments...);
  // clang-format on
  check_cuda(cudaGetLastError(), "launch a kernel");
}

// Memory that lives from here to the object's end in the order of the stream, so that neither end waits for the device.
class StreamMemory {
 public:
  StreamMemory(size_t bytes, void* stream) : stream_(static_cast<cudaStream_t>(stream)) {
    check_cuda(cudaMallocAsync(&data_, bytes, stream_), "allocate scratch memory");
  }
  ~StreamMemory() { static_cast<void>(cudaFreeAsync(data_, stream_)); }  // a destructor cannot report
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

}  // namespace ort_roialign::cuda

#endif
