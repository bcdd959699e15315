// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "lacuna/parallel.h"

namespace lacuna {
namespace {

TEST(ThreadPool, EveryTaskOnceWithWorkersInRange) {
  for (const int workers : {1, 2, 5}) {
    const auto pool = make_thread_pool(workers);
    EXPECT_EQ(pool->workers(), workers);
    for (int round = 0; round < 300; ++round) {
      const int n = round % 17;
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(n));
      std::atomic<bool> in_range{true};
      pool->each(n, [&](int i, int worker) {
        ++done[static_cast<std::size_t>(i)];
        if (worker < 0 || worker >= workers) in_range = false;
      });
      for (const auto& d : done) EXPECT_EQ(d.load(), 1);
      EXPECT_TRUE(in_range);
    }
  }
}

// What tasks wrote without atomics is visible after run(), and a worker is never two tasks at once.
TEST(ThreadPool, WritesAreSeenAndWorkersAreAlone) {
  const auto pool = make_thread_pool(4);
  std::vector<int> sum_of_worker(4, 0), value(1000, 0);
  for (int round = 0; round < 50; ++round)
    pool->each(1000, [&](int i, int worker) {
      value[static_cast<std::size_t>(i)] += i;
      ++sum_of_worker[static_cast<std::size_t>(worker)];
    });
  int sum = 0;
  for (const int s : sum_of_worker) sum += s;
  EXPECT_EQ(sum, 50 * 1000);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(value[static_cast<std::size_t>(i)], 50 * i);
}

TEST(ThreadPool, ExceptionsReachTheCallerAndThePoolLives) {
  const auto pool = make_thread_pool(3);
  for (const int bad : {0, 7, 99}) {
    EXPECT_THROW(pool->each(100, [&](int i, int) {
      if (i == bad) throw std::runtime_error("task");
    }), std::runtime_error);
    std::atomic<int> count{0};
    pool->each(100, [&](int, int) { ++count; });
    EXPECT_EQ(count.load(), 100);
  }
}

TEST(ThreadPool, NestedAndConcurrentRunsAreDoneByTheirCallers) {
  const auto pool = make_thread_pool(3);
  std::atomic<int> inner{0};
  pool->each(20, [&](int, int) { pool->each(5, [&](int, int) { ++inner; }); });
  EXPECT_EQ(inner.load(), 100);
  std::atomic<int> count{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) pool->each(10, [&](int, int) { ++count; });
    });
  for (auto& t : callers) t.join();
  EXPECT_EQ(count.load(), 4 * 200 * 10);
}

// Sleeping helpers wake up, and pools that were never used, or just were, go away cleanly.
TEST(ThreadPool, SleepsWakesAndEnds) {
  for (int i = 0; i < 30; ++i) {
    const auto pool = make_thread_pool(3);
    if (i % 3 == 0) continue;
    if (i % 3 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    std::atomic<int> count{0};
    pool->each(9, [&](int, int) { ++count; });
    EXPECT_EQ(count.load(), 9);
  }
}

}  // namespace
}  // namespace lacuna
