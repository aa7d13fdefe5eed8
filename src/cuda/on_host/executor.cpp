// The fibres behind on_host/device.h.
#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "cuda/on_host/device.h"
#include "ops/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace ort_roialign::cuda {

Index threadIdx{};
Index blockIdx{};
Index blockDim{};
Index gridDim{};

namespace {

constexpr size_t kStackBytes = 256 * 1024;

alignas(64) std::byte shared_bytes[kSharedMemoryBytes];

enum class State { kReady, kAtBarrier, kDone };

struct Fibre {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack;
  State state;
};

ucontext_t scheduler;
std::vector<Fibre> fibres;
size_t running = 0;
const std::function<void()>* body = nullptr;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
#endif

// AddressSanitizer must be told of every change of stack.
void switch_to_fibre(Fibre& fibre) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fibre.stack.get(), kStackBytes);
#endif
  swapcontext(&scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void switch_to_scheduler(Fibre& fibre) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const bool ends = fibre.state == State::kDone;
  __sanitizer_start_switch_fiber(ends ? nullptr : &fake_stack, scheduler_stack, scheduler_stack_bytes);
#endif
  swapcontext(&fibre.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void run_fibre() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  Fibre& fibre = fibres[running];
  (*body)();
  fibre.state = State::kDone;
  switch_to_scheduler(fibre);
}

void prepare(Fibre& fibre) {
  if (fibre.stack == nullptr) fibre.stack.reset(new std::byte[kStackBytes]);
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, run_fibre, 0);
  fibre.state = State::kReady;
}

bool reversed_order() {
  const char* order = std::getenv("ORT_ROIALIGN_THREAD_ORDER");
  return order != nullptr && std::strcmp(order, "reversed") == 0;
}

// Lets every thread run to its next barrier or to its end; false once all have ended.
bool run_to_barrier(bool reversed) {
  size_t done = 0;
  for (size_t turn = 0; turn < fibres.size(); ++turn) {
    running = reversed ? fibres.size() - 1 - turn : turn;
    threadIdx.x = static_cast<unsigned>(running);
    fibres[running].state = State::kReady;
    switch_to_fibre(fibres[running]);
    done += fibres[running].state == State::kDone;
  }
  if (done != 0 && done != fibres.size()) {
    throw RuntimeFailure(
        text("a barrier was reached by ", fibres.size() - done, " of a block's ", fibres.size(), " threads"));
  }
  return done == 0;
}

}  // namespace

void* shared_memory() { return shared_bytes; }

void __syncthreads() {
  Fibre& fibre = fibres[running];
  fibre.state = State::kAtBarrier;
  switch_to_scheduler(fibre);
}

void run_grid(int64_t blocks, int threads, const std::function<void()>& thread) {
  static std::mutex one_grid_at_a_time;
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  const bool reversed = reversed_order();
  body = &thread;
  fibres.resize(threads);
  gridDim.x = static_cast<unsigned>(blocks);
  blockDim.x = static_cast<unsigned>(threads);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    std::memset(shared_bytes, 0xff, sizeof(shared_bytes));
    for (Fibre& fibre : fibres) prepare(fibre);
    while (run_to_barrier(reversed)) {
    }
  }
}

}  // namespace ort_roialign::cuda
