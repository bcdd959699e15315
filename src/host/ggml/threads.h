// SPDX-License-Identifier: Apache-2.0
// The host's threads as a ParallelFor.
#pragma once

#include <memory>

#include "lacuna/parallel.h"

namespace lacuna::ggml {

// As many workers as the host last said. Runs on the OpenMP team that ggml's CPU backend uses, if
// libgomp is in the process: its workers spin between ggml's operations, and a pool of our own would
// fight them for the cores. Else a pool of our own.
class HostThreads final : public ParallelFor {
 public:
  HostThreads();
  int workers() const override { return workers_; }
  void set_workers(int n);
  void run(int n, void (*task)(void*, int, int), void* context) override;

 private:
  void (*gomp_parallel_)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num_)() = nullptr;
  std::unique_ptr<ParallelFor> pool_;
  int workers_ = 1;
};

}  // namespace lacuna::ggml
