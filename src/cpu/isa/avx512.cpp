// The pooling kernels for AVX-512 (F, BW, DQ and VL).
#include "cpu/isa/vector_avx512.h"
// after the vectors that it uses
#include "cpu/isa/kernels.h"

namespace ort_roialign::cpu {

extern const IsaKernels kAvx512Kernels;
const IsaKernels kAvx512Kernels = kIsaKernels;

}  // namespace ort_roialign::cpu
