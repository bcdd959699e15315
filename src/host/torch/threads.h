// SPDX-License-Identifier: Apache-2.0
// One pool of threads for all sessions of the process, as large as torch's own unless told otherwise.
#pragma once

#include <memory>
#include <mutex>

#include "lacuna/parallel.h"

namespace lacuna::torch_host {

class SharedThreads final : public ParallelFor {
 public:
  int workers() const override;
  void set_workers(int n);  // 1..1024
  // A second thread that comes while a run is on does its own work (lacuna/parallel.h).
  void run(int n, void (*task)(void*, int, int), void* context) override;

 private:
  std::shared_ptr<ParallelFor> pool() const;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<ParallelFor> pool_;
  mutable int process_ = 0;  // that made the pool: a forked child has none of its threads
  int wanted_ = 1;
};

SharedThreads& shared_threads();

}  // namespace lacuna::torch_host
