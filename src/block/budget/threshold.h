// SPDX-License-Identifier: Apache-2.0
// Budget: the score at which a walk down the scores ends, found without sorting. Floats order like the
// integers of their bits: a histogram over the leading bits of the distance to the largest score finds
// the bucket in which the walk ends, and only that bucket's items are looked at again. About two passes
// in all, of plain loops over plain floats; exact, since the buckets only ever narrow the choice.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "pattern/tile_runs.h"

namespace lacuna::block {

// Taken: the items of a score above `value`, and the first `equal` items of that very score.
struct Threshold {
  float value = 0;
  std::int32_t equal = 0;
  bool take(float score) {
    if (score == value) return equal > 0 && equal-- > 0;
    return score > value;
  }
};

// Integers that order as the floats do, no NaN among them; adding zero makes -0 and 0 one.
inline std::uint32_t order_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0f);
  return bits ^ (static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31) | 0x80000000u);
}

// Bytes of 0 or 1 as bits. Eight at a time: the product moves byte i of a word to bit 56 + i.
inline std::uint32_t word_of(const std::uint8_t (&flag)[kTileKeys]) {
  std::uint32_t word = 0;
  for (int b = 0; b < kTileKeys; b += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, flag + b, 8);
    word |= static_cast<std::uint32_t>(eight * 0x0102040810204080u >> 56) << b;
  }
  return word;
}

// The walk takes items of scores [n] in descending order while rule.more(before, with) holds for the
// sums of weights without and with the item; once it fails, it fails for all that follow.
//   Rule: Sum, taken (the sum before the walk), weight(score), begin(sum of all weights), more(before, with)
//         top: order_of the largest score, or more
//         kShift, kBits: 2^kBits buckets of 2^kShift orders from `top` down, the last of them open
// `work` has room for n.
template <class Rule>
Threshold threshold(const float* score, std::int32_t n, Rule rule, float* work) {
  using Sum = typename Rule::Sum;
  constexpr int kLaterBits = 6, kMost = 1 << std::max(Rule::kBits, kLaterBits);
  // Each in four parts that neighbouring items take in turn: they are often of one bucket, and would wait
  // for each other's sums.
  constexpr int kParts = 4;
  Sum bucket[kMost][kParts], taken = rule.taken;
  std::uint32_t top = rule.top, last = (1u << Rule::kBits) - 1;
  int shift = Rule::kShift;
  for (bool first = true;; first = false) {
    // A NaN, against the contract, ends in the last one too.
    const auto bucket_of = [=](float x) { return std::min((top - order_of(x)) >> shift, last); };
    const auto sum_of = [&](std::uint32_t b) { return (bucket[b][0] + bucket[b][1]) + (bucket[b][2] + bucket[b][3]); };
    std::fill(bucket[0], bucket[last + 1], Sum{});
    std::int32_t i = 0;
    for (; i + kParts <= n; i += kParts)
      for (int l = 0; l < kParts; ++l) bucket[bucket_of(score[i + l])][l] += rule.weight(score[i + l]);
    for (; i < n; ++i) bucket[bucket_of(score[i])][0] += rule.weight(score[i]);
    if (first) {
      Sum part[kParts] = {};
      for (std::uint32_t b = 0; b <= last; ++b)
        for (int l = 0; l < kParts; ++l) part[l] += bucket[b][l];
      rule.begin((part[0] + part[1]) + (part[2] + part[3]));
    }
    std::uint32_t b = 0;
    for (; b <= last; ++b) {
      const Sum with = taken + sum_of(b);
      if (!rule.more(with, with)) break;  // the walk may end in here
      taken = with;
    }
    if (b > last) return {-std::numeric_limits<float>::infinity(), n};
    // Few lie in the bucket: words tell where.
    const std::uint32_t from = b << shift, extent = b == last ? ~from : (1u << shift) - 1;
    const auto is_inside = [=](float x) { return top - order_of(x) - from <= extent; };
    std::int32_t inside = 0;
    for (i = 0; i + kTileKeys <= n; i += kTileKeys) {
      std::uint8_t flag[kTileKeys];
      for (int k = 0; k < kTileKeys; ++k) flag[k] = is_inside(score[i + k]);
      for (std::uint32_t bits = word_of(flag); bits; bits &= bits - 1)
        work[inside++] = score[i + std::countr_zero(bits)];
    }
    for (; i < n; ++i)
      if (is_inside(score[i])) work[inside++] = score[i];
    score = work;
    n = inside;
    if (n == 0) return {std::numeric_limits<float>::infinity(), 0};
    if (n == 1 || shift == 0) break;
    // The bucket, in narrower ones; the last of the first round reaches down to order 0.
    top -= b << shift;
    if (first && b == last) shift = std::bit_width(top);
    last = (1u << std::min(shift, kLaterBits)) - 1;
    shift -= std::min(shift, kLaterBits);
  }
  Threshold t{score[0], 0};
  const Sum weight = rule.weight(t.value);
  for (; t.equal < n && rule.more(taken, taken + weight); ++t.equal) taken += weight;
  return t;
}

// Bit b: score b of a tile is taken. Tiles in ascending order, as take() is called.
inline std::uint32_t take_tile(const float* score, Threshold& t) {
  std::uint8_t above[kTileKeys], level[kTileKeys];
  for (int b = 0; b < kTileKeys; ++b) above[b] = score[b] > t.value;
  std::uint32_t word = word_of(above);
  if (t.equal == 0) return word;
  for (int b = 0; b < kTileKeys; ++b) level[b] = score[b] == t.value;
  for (std::uint32_t bits = word_of(level); bits && t.equal > 0; bits &= bits - 1, --t.equal) word |= bits & -bits;
  return word;
}

}  // namespace lacuna::block
