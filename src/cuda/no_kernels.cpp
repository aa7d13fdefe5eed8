// Stands for the CUDA kernels in a library that is built without them.
#include "ops/kernel_table.h"

namespace ort_roialign {

const KernelTable* cuda_kernels() { return nullptr; }

}  // namespace ort_roialign
