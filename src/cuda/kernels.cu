// Instantiates the CUDA engine for every operator and type.
#include "cuda/engine.cuh"

namespace ort_roialign {

const KernelTable* cuda_kernels() {
  static constexpr KernelTable kTable = make_kernel_table<cuda::Engine>(OperatorList{});
  return &kTable;
}

}  // namespace ort_roialign
