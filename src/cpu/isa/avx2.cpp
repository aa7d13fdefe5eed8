// The pooling kernels for AVX2, FMA and F16C.
#include "cpu/isa/vector_avx2.h"
// after the vectors that it uses
#include "cpu/isa/kernels.h"

namespace ort_roialign::cpu {

extern const IsaKernels kAvx2Kernels;
const IsaKernels kAvx2Kernels = kIsaKernels;

}  // namespace ort_roialign::cpu
