// How src/ort finds and calls a kernel: one type-erased call, and one table of functions a device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ops/op_list.h"
#include "ops/schema.h"
#include "semantics/element_types.h"

namespace ort_roialign {

namespace cpu {
struct Settings;
}

enum class Direction { kForward, kBackward };
constexpr size_t kDirections = 2;

struct InputTensor {
  const void* data = nullptr;
  ElementType type = ElementType::kFloat32;
  Shape shape;
};

struct OutputTensor {
  void* data = nullptr;  // nullptr: an optional output that the caller did not ask for
  Shape shape;
};

// Runs task(0) … task(count - 1) on the session's threads, in any order, and rethrows what a task throws.
using ParallelFor = std::function<void(int64_t count, const std::function<void(int64_t)>& task)>;

// Where a kernel's scratch memory comes from: the session's allocator. For the thread that calls the kernel, not for
// its tasks.
class ScratchMemory {
 public:
  virtual ~ScratchMemory() = default;
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) = 0;
};

// One call of one operator, with shapes and types already checked.
struct KernelCall {
  std::string operator_name;  // for error texts
  const void* params = nullptr;
  std::vector<InputTensor> inputs;
  std::vector<OutputTensor> outputs;            // all that there can be
  ParallelFor parallel_for;                     // CPU kernels
  ScratchMemory* scratch = nullptr;             // CPU kernels
  const cpu::Settings* cpu_settings = nullptr;  // CPU kernels
  void* cuda_stream = nullptr;                  // CUDA kernels: the session's cudaStream_t
};

using Kernel = void (*)(const KernelCall&);

// Kernels of one operator, by direction and by position of the element type in kMapTypes.
using KernelRow = std::array<std::array<Kernel, kMapTypes.size()>, kDirections>;

// A device's kernels, by position of the operator in OperatorList, and behind them PasteMasks, which has no RoIs.
constexpr size_t kPasteMasks = OperatorList::kSize;
using KernelTable = std::array<KernelRow, kPasteMasks + 1>;

static_assert(kMapTypes[0] == ElementType::kFloat32 && kMapTypes[1] == ElementType::kFloat64 &&
                  kMapTypes[2] == ElementType::kFloat16 && kMapTypes[3] == ElementType::kBFloat16,
              "make_kernel_table lists the kernels in this order");

// Fills a table from a device's engine, Engine<Op, T>::forward and Engine<Op, T>::backward, and Paste<T>::forward.
template <template <typename Op, typename T> class Engine, template <typename T> class Paste, typename... Ops>
constexpr KernelTable make_kernel_table(TypeList<Ops...>) {
  return {KernelRow{{{Engine<Ops, float>::forward, Engine<Ops, double>::forward, Engine<Ops, Float16>::forward,
                      Engine<Ops, BFloat16>::forward},
                     {Engine<Ops, float>::backward, Engine<Ops, double>::backward, Engine<Ops, Float16>::backward,
                      Engine<Ops, BFloat16>::backward}}}...,
          KernelRow{{{Paste<float>::forward, Paste<double>::forward, Paste<Float16>::forward, Paste<BFloat16>::forward},
                     {}}}};
}

const KernelTable& cpu_kernels();

// Null where the library was built without CUDA.
const KernelTable* cuda_kernels();

}  // namespace ort_roialign
