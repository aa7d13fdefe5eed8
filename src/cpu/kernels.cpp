// Instantiates the CPU engine for every operator and type.
#include "cpu/engine.h"
#include "cpu/paste_masks.h"

namespace ort_roialign {

const KernelTable& cpu_kernels() {
  static constexpr KernelTable kTable = make_kernel_table<cpu::Engine, cpu::PasteMasks>(OperatorList{});
  return kTable;
}

}  // namespace ort_roialign
