// SPDX-License-Identifier: Apache-2.0
// ParallelFor: where Lacuna's threads come from. A host may supply its own (so that two pools never
// fight for the same cores); the default is ThreadPool.
#pragma once

#include <memory>

namespace lacuna {

class ParallelFor {
 public:
  virtual ~ParallelFor() = default;
  virtual int workers() const = 0;  // >= 1
  // Calls task(context, i, worker) once for every i in [0, n), 0 <= worker < workers(); returns when
  // all have ended. Tasks are taken in order, as workers become free. Never re-entered.
  virtual void run(int n, void (*task)(void* context, int i, int worker), void* context) = 0;

  template <class F>
  void each(int n, F&& f) {
    run(n, [](void* c, int i, int worker) { (*static_cast<F*>(c))(i, worker); }, &f);
  }
};

// A pool of Lacuna's own: persistent workers that spin briefly, then sleep. workers < 1 means one
// per core that this process may use; at most 1024. A run() from inside a task or from a second
// thread is done by its caller alone, as worker 0. The first exception of a task leaves run().
std::unique_ptr<ParallelFor> make_thread_pool(int workers);

}  // namespace lacuna
