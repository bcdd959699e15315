// SPDX-License-Identifier: Apache-2.0
// How much cells can weigh at most in a row's softmax, told by side data (kv/side.h) alone. What a session's
// certificates rest on (account/certificate.h, docs/decisions/026).
//   keys in 8 bits    q.k <= q.(centre + s n) + s / 2 sum_d |q_d|         op int8_scores, without rounding of q
//   boxes of pages    q.k <= sum_d max(q_d mn_d, q_d mx_d)                op page_scores
// and what f32 arithmetic may be off by comes on top. Of keys and queries that are no numbers nothing is known.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/side.h"
#include "op/attend.h"

namespace lacuna {

// largest[d] >= |k_d| of all the cache's keys of a KV head, and of the corners of their boxes. Keys that are not finite
// do not count.
void largest_keys(const Int8Keys& x, std::int64_t n_cells, int kv_head, std::vector<double>& largest);

// |scale| sum_d |q_d| largest_d: nothing that f32 adds up to a score of the query head is larger. Infinite: it may have
// overflowed, and nothing is known.
double largest_sum(const op::Attend::Args& a, int head, std::span<const double> largest);

// The cells that a query head leaves out, and what it keeps.
struct LeftOutCells {
  int head = 0;
  const std::uint32_t* words = nullptr;  // [tiles]
  std::int64_t tiles = 0;
  std::int32_t page = 0;  // cells that are counted together
  double least = 0;       // logarithm of the mass that the head keeps: no more than it is
  double size = 0;        // largest_sum
};

// most[p]: of the mass of page p's left-out cells, as a multiple of what is kept; 0 where there are none, else above 0
// and up to infinity, which is also said of what is not known. score: the head's row of op int8_scores.
void bound_by_bytes(const op::Attend::Args& a, const LeftOutCells& left, const Int8Keys& x, const float* score,
                    std::vector<double>& most);
// Lowers those that boxes bound better. score: the head's row of op page_scores, over pages of that size. Boxes pass
// over keys that are no numbers, so what is not known stays so.
void lower_by_boxes(const op::Attend::Args& a, const LeftOutCells& left, const float* score, std::vector<double>& most);

}  // namespace lacuna
