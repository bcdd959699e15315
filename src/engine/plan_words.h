// SPDX-License-Identifier: Apache-2.0
// The plans of a call, one per segment, as 32-bit words: what a host keeps between forward and backward, or makes of
// block lists of its own. Nothing in them is trusted: sizes are checked before use, contents by check_plan().
//
//   call     kPlanFormat, number of all words, segments, then of each segment (kWholeCall: of all rows and cells as they
//            lie, whatever sequences they belong to):
//   segment  patterns, routes, skips, then routes[], skips[] (bits of f32), patterns[]
//   pattern  0                                                                          dense
//            1, sink, window, dense_from                                                each two words, low first
//            2, lists, block_q, block_k, rows, keys, n, row_ptr[lists (blocks + 1)], cols[n]
//            3, of (0 keys, 1 cells), lists, block_q, rows, keys, n, row_ptr[], (begin, end)[n]
// with blocks = ceil(rows / block_q). A plan's reason stays behind.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lacuna/result.h"
#include "method/method.h"

namespace lacuna {

constexpr std::int32_t kPlanFormat = 0x4c500001;  // "PL", version 1

constexpr std::int32_t kWholeCall = -1;         // instead of a number of segments

struct GivenPlans {
  std::vector<Plan> plans;
  bool whole = false;  // one plan for the whole call
};

std::vector<std::int32_t> to_words(std::span<const Plan> plans);
Result<GivenPlans> plans_from_words(std::span<const std::int32_t> words);

}  // namespace lacuna
