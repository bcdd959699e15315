// SPDX-License-Identifier: Apache-2.0
#include "engine/pass_clock.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

// Calls of one second each; the host's own work before each as given.
struct Host {
  PassClock clock;
  PassClock::Time now{};
  double call(int layer, int seconds_before) {
    now += std::chrono::seconds(seconds_before);
    clock.begin(layer, now);
    now += std::chrono::seconds(1);
    return clock.end(now);
  }
};

TEST(PassClock, CountsWhatTheHostDoesWithinAPass) {
  Host host;
  EXPECT_EQ(host.call(0, 100), 1);
  EXPECT_EQ(host.call(1, 3), 4);
  EXPECT_EQ(host.call(4, 2), 3);  // layers in between are the host's
}

TEST(PassClock, DoesNotCountWhatLiesBetweenPasses) {
  Host host;
  host.call(0, 0);
  host.call(1, 3);
  EXPECT_EQ(host.call(0, 3600), 1);
  EXPECT_EQ(host.call(0, 3600), 1);  // a model of one layer
}

}  // namespace
}  // namespace lacuna
