// The pooling kernels for any processor, as the compiler's flags describe it.
#include "cpu/isa/vector_baseline.h"
// after the vectors that it uses
#include "cpu/isa/kernels.h"

namespace ort_roialign::cpu {

extern const IsaKernels kBaselineKernels;
const IsaKernels kBaselineKernels = kIsaKernels;

}  // namespace ort_roialign::cpu
