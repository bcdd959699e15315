// SPDX-License-Identifier: Apache-2.0
#include "host/torch/threads.h"

#include <unistd.h>

#include <algorithm>

namespace lacuna::torch_host {
namespace {

constexpr int kMostThreads = 1024;

}  // namespace

std::shared_ptr<ParallelFor> SharedThreads::pool() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int process = getpid();
  if (process_ != process) {
    // The old pool's threads stayed behind in the parent: it can be neither used nor joined.
    if (pool_) new std::shared_ptr<ParallelFor>(std::move(pool_));
    pool_.reset();
    process_ = process;
  }
  if (!pool_) pool_ = make_thread_pool(wanted_);
  return pool_;
}

int SharedThreads::workers() const { return pool()->workers(); }

void SharedThreads::set_workers(int n) {
  const std::lock_guard<std::mutex> lock(mutex_);
  wanted_ = std::clamp(n, 1, kMostThreads);
  pool_.reset();  // ends with the run that may hold it
}

void SharedThreads::run(int n, void (*task)(void*, int, int), void* context) { pool()->run(n, task, context); }

SharedThreads& shared_threads() {
  static auto* const threads = new SharedThreads;  // never destroyed: sessions may outlive static objects
  return *threads;
}

}  // namespace lacuna::torch_host
