// Hands blocks of work to threads. One thread prepares a block; then its tasks are done, by the same thread while there
// are other blocks for the others.
//
// So what a thread has prepared mostly stays near its own core: between cores that share no cache it moves slowly.
// Threads do not wait for each other while there is anything else to do and memory to do it in. One that loses its core
// to another process holds up only what it has begun.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "ops/kernel_table.h"

namespace ort_roialign::cpu {

class BlockQueue {
 public:
  // `tasks` are the numbers of tasks of the blocks, at least one each. A block takes one of `buffers` buffers, at least
  // one, until its tasks are done.
  BlockQueue(const std::vector<int64_t>& tasks, int64_t buffers) : blocks_(tasks.size()) {
    for (size_t block = 0; block < tasks.size(); ++block) {
      blocks_[block].tasks = tasks[block];
      blocks_[block].left = tasks[block];
      all_tasks_ += tasks[block];
    }
    for (int64_t buffer = 0; buffer < buffers; ++buffer) free_buffers_.push_back(buffer);
  }

  // Calls prepare(block, buffer), then do_task(block, buffer, task) for each of its tasks, for all blocks. These must
  // not throw: others may wait for them.
  template <typename Prepare, typename DoTask>
  void run(const ParallelFor& parallel_for, Prepare prepare, DoTask do_task) {
    parallel_for(std::min(all_tasks_, kMostThreads), [&](int64_t) { work(prepare, do_task); });
  }

 private:
  static constexpr int64_t kMostThreads = 128;
  static constexpr int64_t kNone = -1;

  struct alignas(64) Block {  // no two in a cache line
    int64_t tasks = 0;
    int64_t buffer = 0;
    std::atomic<bool> ready{false};
    std::atomic<int64_t> next{0};  // task
    std::atomic<int64_t> left{0};  // tasks that are not done
  };

  template <typename Prepare, typename DoTask>
  void work(Prepare& prepare, DoTask& do_task) {
    for (size_t first_open = 0;;) {
      const int64_t own = take_block();
      if (own != kNone) {
        Block& block = blocks_[own];
        prepare(own, block.buffer);
        block.ready.store(true, std::memory_order_release);
        do_tasks(own, do_task);
        continue;
      }
      bool all_taken = true;
      for (size_t block = first_open; block < blocks_.size(); ++block) {
        all_taken = do_tasks(static_cast<int64_t>(block), do_task) && all_taken;
        if (all_taken) first_open = block + 1;
      }
      if (all_taken) return;
      std::this_thread::yield();
    }
  }

  // The next block that nobody has begun, or kNone where there is none or no buffer for it.
  int64_t take_block() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_buffers_.empty() || next_block_ == static_cast<int64_t>(blocks_.size())) return kNone;
    blocks_[next_block_].buffer = free_buffers_.back();
    free_buffers_.pop_back();
    return next_block_++;
  }

  // Does what is left of a block, if it is ready. Returns whether no task of it is left to be taken.
  template <typename DoTask>
  bool do_tasks(int64_t number, DoTask& do_task) {
    Block& block = blocks_[number];
    if (!block.ready.load(std::memory_order_acquire)) return false;
    while (block.next.load(std::memory_order_relaxed) < block.tasks) {
      const int64_t task = block.next.fetch_add(1, std::memory_order_relaxed);
      if (task >= block.tasks) break;
      do_task(number, block.buffer, task);
      if (block.left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_buffers_.push_back(block.buffer);
      }
    }
    return true;
  }

  std::vector<Block> blocks_;
  int64_t all_tasks_ = 0;
  std::mutex mutex_;
  std::vector<int64_t> free_buffers_;
  int64_t next_block_ = 0;
};

}  // namespace ort_roialign::cpu
