// Instantiates the CUDA engine for every operator and type.
#include "cuda/engine.cuh"
#include "cuda/paste_masks.cuh"

namespace ort_roialign {

const KernelTable* cuda_kernels() {
  static constexpr KernelTable kTable = make_kernel_table<cuda::Engine, cuda::PasteMasks>(OperatorList{});
  return &kTable;
}

}  // namespace ort_roialign
