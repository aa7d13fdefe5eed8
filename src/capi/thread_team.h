// The threads of one call that comes without a session: started for its first parallel loop, gone with the call.
// Nothing outlives it, so a process may fork at any other time.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace ort_roialign {

class ThreadTeam {
 public:
  // `threads` in all, the caller's among them.
  explicit ThreadTeam(int threads) : threads_(threads) {}
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  ~ThreadTeam() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // Runs task(0) … task(count - 1) on all threads, and rethrows the first exception.
  void run(int64_t count, const std::function<void(int64_t)>& task) {
    if (count <= 1 || threads_ <= 1) {
      for (int64_t number = 0; number < count; ++number) task(number);
      return;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_workers(std::min<int64_t>(threads_, count) - 1);
      task_ = &task;
      count_ = count;
      next_ = 0;
      busy_ = static_cast<int>(workers_.size());
      ++loop_;
    }
    changed_.notify_all();
    do_tasks();
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return busy_ == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  // Where the system gives no more threads, those that there are do the work.
  void start_workers(int64_t wanted) {
    try {
      while (static_cast<int64_t>(workers_.size()) < wanted) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
    }
  }

  void work() {
    for (int64_t seen = 0;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return ended_ || loop_ != seen; });
        if (ended_) return;
        seen = loop_;
      }
      do_tasks();
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        --busy_;
      }
      changed_.notify_all();
    }
  }

  void do_tasks() {
    try {
      for (int64_t number = next_++; number < count_; number = next_++) (*task_)(number);
    } catch (...) {
      next_ = count_;
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  int threads_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  int64_t loop_ = 0;  // counts the loops
  int busy_ = 0;      // workers that have not ended the loop
  bool ended_ = false;
  std::exception_ptr error_;
};

}  // namespace ort_roialign
