// SPDX-License-Identifier: Apache-2.0
// The default ParallelFor. The caller is worker 0; helpers wait for a new round by spinning for
// about the length of a decode step's gap between layers, then sleep on a futex (atomic wait).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/machine.h"
#include "lacuna/parallel.h"

namespace lacuna {
namespace {

constexpr int kMostWorkers = 1024;
constexpr int kSpins = 20000;  // some tens of microseconds: longer than a layer's gap, not a busy loop

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class ThreadPool final : public ParallelFor {
 public:
  explicit ThreadPool(int workers) {
    threads_.reserve(static_cast<std::size_t>(workers));
    try {
      for (int w = 1; w < workers; ++w) threads_.emplace_back([this, w] { serve(w); });
    } catch (const std::system_error&) {  // no more threads to be had: those that run are the pool
    }
  }

  ~ThreadPool() override {
    stop_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (auto& t : threads_) t.join();
  }

  int workers() const override { return static_cast<int>(threads_.size()) + 1; }

  void run(int n, void (*task)(void*, int, int), void* context) override {
    if (n <= 0) return;
    // A call from inside a task, or from a second thread, finds the pool taken: it does its own work.
    if (threads_.empty() || n == 1 || taken_.exchange(true, std::memory_order_acquire)) {
      for (int i = 0; i < n; ++i) task(context, i, 0);
      return;
    }
    task_ = task;
    context_ = context;
    n_ = n;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    work(0);
    for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin)
      if (spin < kSpins) relax(); else std::this_thread::yield();
    const std::exception_ptr error = std::exchange(error_, nullptr);
    failed_.store(false, std::memory_order_relaxed);
    taken_.store(false, std::memory_order_release);
    if (error) std::rethrow_exception(error);
  }

 private:
  // The first exception stops the round; run() throws it again once everybody has left the tasks.
  void work(int worker) {
    try {
      for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;)
        task_(context_, static_cast<int>(i), worker);
    } catch (...) {
      next_.store(n_, std::memory_order_relaxed);
      if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    }
  }

  void serve(int worker) {
    unsigned seen = 0;
    for (;;) {
      int spin = 0;
      while (round_.load(std::memory_order_acquire) == seen)
        if (++spin < kSpins) relax(); else round_.wait(seen, std::memory_order_acquire);
      seen = round_.load(std::memory_order_acquire);
      if (stop_.load(std::memory_order_relaxed)) return;
      work(worker);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<unsigned> round_{0};
  std::atomic<std::int64_t> next_{0};  // wider than n: every worker counts past the end once
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false}, taken_{false}, failed_{false};
  std::exception_ptr error_;  // written by the worker that set failed_, read after the round
  void (*task_)(void*, int, int) = nullptr;
  void* context_ = nullptr;
  int n_ = 0;
};

}  // namespace

std::unique_ptr<ParallelFor> make_thread_pool(int workers) {
  if (workers < 1) workers = usable_cores();
  return std::make_unique<ThreadPool>(std::min(workers, kMostWorkers));
}

}  // namespace lacuna
