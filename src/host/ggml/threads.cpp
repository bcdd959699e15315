// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/threads.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace lacuna::ggml {

HostThreads::HostThreads() : workers_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {
  // RTLD_NOLOAD: libgomp only if ggml has it. It stays loaded as long as ggml's CPU backend does.
  if (void* gomp = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD)) {
    gomp_parallel_ = reinterpret_cast<decltype(gomp_parallel_)>(dlsym(gomp, "GOMP_parallel"));
    thread_num_ = reinterpret_cast<decltype(thread_num_)>(dlsym(gomp, "omp_get_thread_num"));
    if (!gomp_parallel_ || !thread_num_) gomp_parallel_ = nullptr;
  }
}

void HostThreads::set_workers(int n) {
  n = std::max(n, 1);
  if (n != workers_) pool_.reset();
  workers_ = n;
}

void HostThreads::run(int n, void (*task)(void*, int, int), void* context) {
  if (n <= 0) return;
  if (n == 1 || workers_ == 1) {
    for (int i = 0; i < n; ++i) task(context, i, 0);
    return;
  }
  if (!gomp_parallel_) {
    if (!pool_) pool_ = make_thread_pool(workers_);
    pool_->run(n, task, context);
    return;
  }
  struct Round {
    void (*task)(void*, int, int);
    void* context;
    int n;
    int (*thread_num)();
    std::atomic<int> next{0};
  } round{task, context, n, thread_num_};
  gomp_parallel_(
      [](void* p) {
        auto& r = *static_cast<Round*>(p);
        const int worker = r.thread_num();
        for (int i; (i = r.next.fetch_add(1, std::memory_order_relaxed)) < r.n;) r.task(r.context, i, worker);
      },
      &round, static_cast<unsigned>(workers_), 0);
}

}  // namespace lacuna::ggml
