// Marks for functions that both the CPU and the CUDA kernels call.
#pragma once

#ifdef __CUDACC__
#define ORT_ROIALIGN_HD __host__ __device__
#else
#define ORT_ROIALIGN_HD
#endif
