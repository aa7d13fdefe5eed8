// Small kernels, right and wrong ones, on the executor that stands for a GPU; tests/cuda_host runs them by name.
//
// Prints one value a thread. An error of the executor is printed as text, with the exit status 2.
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cuda/on_host/device.h"
#include "ops/error.h"

using namespace ort_roialign;
using namespace ort_roialign::cuda;

namespace {

constexpr int kThreads = 8;
constexpr int kBlocks = 3;

struct Values {
  float value[kThreads];
};

unsigned neighbour() { return (threadIdx.x + 1) % blockDim.x; }

float* own_output(float* output) { return output + blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void right_barriers(float* output) {
  auto& shared = block_shared<Values>();
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    __syncthreads();  // until every thread has read the round before
    shared.value[threadIdx.x] = static_cast<float>(100 * blockIdx.x + 10 * round + threadIdx.x);
    __syncthreads();
    sum += shared.value[neighbour()];
  }
  *own_output(output) = sum;
}

__global__ void no_barrier_before_reading(float* output) {
  auto& shared = block_shared<Values>();
  shared.value[threadIdx.x] = static_cast<float>(threadIdx.x);
  *own_output(output) = shared.value[neighbour()];
}

__global__ void no_barrier_before_writing_again(float* output) {
  auto& shared = block_shared<Values>();
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    shared.value[threadIdx.x] = static_cast<float>(10 * round + threadIdx.x);
    __syncthreads();
    sum += shared.value[neighbour()];
  }
  *own_output(output) = sum;
}

__global__ void reads_what_none_wrote(float* output) {
  auto& shared = block_shared<Values>();
  if (threadIdx.x != 5) shared.value[threadIdx.x] = 1;
  __syncthreads();
  *own_output(output) = shared.value[threadIdx.x];
}

// The block before must not show through.
__global__ void reads_what_another_block_wrote(float* output) {
  auto& shared = block_shared<Values>();
  if (blockIdx.x == 0) shared.value[threadIdx.x] = 1;
  __syncthreads();
  *own_output(output) = shared.value[threadIdx.x];
}

__global__ void barrier_of_some_threads(float* output) {
  if (threadIdx.x < 3) __syncthreads();
  *own_output(output) = 1;
}

__global__ void a_barrier_more_in_some_threads(float* output) {
  for (unsigned round = 0; round < 2 + threadIdx.x / 4; ++round) __syncthreads();
  *own_output(output) = 1;
}

__global__ void indices(float* output) {
  *own_output(output) = static_cast<float>(1000 * gridDim.x + 100 * blockDim.x + 10 * blockIdx.x + threadIdx.x);
}

const std::map<std::string, void (*)(float*)> kKernels = {
    {"right_barriers", right_barriers},
    {"no_barrier_before_reading", no_barrier_before_reading},
    {"no_barrier_before_writing_again", no_barrier_before_writing_again},
    {"reads_what_none_wrote", reads_what_none_wrote},
    {"reads_what_another_block_wrote", reads_what_another_block_wrote},
    {"barrier_of_some_threads", barrier_of_some_threads},
    {"a_barrier_more_in_some_threads", a_barrier_more_in_some_threads},
    {"indices", indices},
};

// Scratch memory of a kernel launch starts as NaN as well.
float first_of_scratch() {
  StreamMemory scratch(sizeof(float), nullptr);
  float value;
  std::memcpy(&value, scratch.data(), sizeof(value));
  return value;
}

}  // namespace

// Runs the kernels named on the command line one after the other, so that one can follow upon a failed one.
int main(int count, char** names) {
  int status = 0;
  for (int number = 1; number < count; ++number) {
    if (std::strcmp(names[number], "first_of_scratch") == 0) {
      std::printf("%g\n", first_of_scratch());
      continue;
    }
    std::vector<float> output(kBlocks * kThreads, -1.0f);
    try {
      launch(kKernels.at(names[number]), kBlocks, kThreads, nullptr, output.data());
      for (const float value : output) std::printf("%g ", value);
      std::printf("\n");
    } catch (const RuntimeFailure& failure) {
      std::printf("%s\n", failure.what());
      status = 2;
    }
  }
  return status;
}
