// SPDX-License-Identifier: Apache-2.0
// PassClock: how long the passes over a model's layers take, from the first layer's call to the end of the last's. What the host
// does within a pass counts; what lies between passes, waiting too, does not: no idle hour of a server makes a cost look small.
#pragma once

#include <chrono>

namespace lacuna {

class PassClock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  void begin(int layer, Time now) {
    since_ = layer > last_layer_ ? last_end_ : now;  // a layer that does not follow begins a pass
    if (!began_) since_ = now;
    began_ = true;
    last_layer_ = layer;
  }
  // Seconds that the call and the host's work before it took.
  double end(Time now) {
    last_end_ = now;
    return std::chrono::duration<double>(now - since_).count();
  }

 private:
  Time since_{}, last_end_{};
  int last_layer_ = -1;
  bool began_ = false;
};

}  // namespace lacuna
