// SPDX-License-Identifier: Apache-2.0
// Plans out of bytes: a fuzzer's own, or those of a seeded generator. What draw_plan() gives is valid; what
// a plan keeps is told here a second time, by walks so plain that they can be believed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "method/method.h"

namespace lacuna::test {

// Reads bytes from the front; zeros behind the end.
class Draw {
 public:
  explicit Draw(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::uint8_t byte() { return at_ < bytes_.size() ? bytes_[at_++] : std::uint8_t{0}; }
  // 0 .. n-1, n up to 65536.
  std::int32_t below(std::int64_t n) {
    if (n <= 1) return 0;
    const std::int32_t x = byte();
    return static_cast<std::int32_t>((n > 256 ? x * 256 + byte() : x) % n);
  }
  bool flip() { return byte() & 1; }
  // Any number, small ones and the largest more often.
  std::int64_t wild() {
    const std::uint8_t kind = byte();
    if (kind < 128) return static_cast<std::int8_t>(byte());
    if (kind < 144) return INT64_MAX - byte();
    if (kind < 160) return INT64_MIN + byte();
    if (kind < 176) return INT32_MAX - byte();
    std::uint64_t x = 0;
    for (int i = 0; i < (kind < 216 ? 4 : 8); ++i) x = x << 8 | byte();
    return static_cast<std::int64_t>(x);
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

// What a plan is for: one segment of a call.
struct PlanShape {
  std::int32_t hq = 1, hkv = 1, rows = 0;
  std::int64_t keys = 0, cells = 0;
};

namespace drawn {

inline std::int32_t lists(Draw& d, const PlanShape& s) {
  const std::int32_t some[] = {1, s.hkv, s.hq};
  return some[d.below(3)];
}

// Calls one_block for every row block of every list, and keeps the offsets.
template <class P, class OneBlock>
void rows(P& p, const std::size_t& size, OneBlock one_block) {
  for (std::int32_t l = 0; l < p.heads; ++l) {
    p.row_ptr.push_back(static_cast<std::int32_t>(size));
    for (std::int32_t b = 0; b < p.q_blocks(); ++b) {
      one_block();
      p.row_ptr.push_back(static_cast<std::int32_t>(size));
    }
  }
}

inline Pattern block_map(Draw& d, const PlanShape& s, std::int32_t block_q) {
  constexpr std::int32_t kSizes[] = {1, 16, 32, 48, 100, 128, 7, 1000};
  BlockMap p;
  p.heads = lists(d, s);
  p.block_q = block_q;
  p.block_k = kSizes[d.below(8)];
  p.n_rows = s.rows;
  p.n_keys = s.keys;
  std::size_t size = 0;
  rows(p, size, [&] {
    const std::uint8_t often = d.byte();
    for (std::int32_t c = 0; c < p.k_blocks(); ++c)
      if (d.byte() <= often) p.cols.push_back(c);
    size = p.cols.size();
  });
  return p;
}

inline Pattern ranges(Draw& d, const PlanShape& s, std::int32_t block_q) {
  Ranges p;
  p.of = d.flip() ? Ranges::Of::cells : Ranges::Of::keys;
  p.heads = lists(d, s);
  p.block_q = block_q;
  p.n_rows = s.rows;
  p.n = p.of == Ranges::Of::cells ? s.cells : s.keys;
  std::size_t size = 0;
  rows(p, size, [&] {
    const std::int32_t longest = 1 + d.below(80), gap = 1 + d.below(40);
    for (std::int64_t at = d.below(6); at < p.n;) {
      const std::int64_t end = std::min<std::int64_t>(p.n, at + 1 + d.below(longest));
      p.ranges.push_back({static_cast<std::int32_t>(at), static_cast<std::int32_t>(end)});
      at = end + 1 + d.below(gap);
    }
    size = p.ranges.size();
  });
  return p;
}

inline Pattern window(Draw& d, const PlanShape& s) {
  Window p{.sink = d.below(s.keys + 2), .window = d.below(s.keys + 2), .dense_from = -1};
  if (d.below(3) == 0) p.dense_from = d.below(s.keys + 1);
  return p;
}

}  // namespace drawn

inline Plan draw_plan(Draw& d, const PlanShape& s) {
  constexpr std::int32_t kSizes[] = {1, 16, 33, 64, 128};
  const std::int32_t some = d.below(6), block_q = some < 5 ? kSizes[some] : 1 + d.below(kMaxBlockQ);
  Plan plan;
  plan.patterns.clear();
  for (std::int32_t n = 1 + d.below(4); n > 0; --n) {
    const std::int32_t kind = d.below(8);
    if (kind == 0)
      plan.patterns.emplace_back(Dense{});
    else if (kind < 3)
      plan.patterns.push_back(drawn::window(d, s));
    else if (kind < 5)
      plan.patterns.push_back(drawn::block_map(d, s, block_q));
    else
      plan.patterns.push_back(drawn::ranges(d, s, block_q));
  }
  const std::int32_t routed = d.below(3);  // 0: all heads take the first pattern; 2: a group takes one route
  if (routed == 0) return plan;
  const std::int32_t ways = static_cast<std::int32_t>(plan.patterns.size()) + 2, group = routed == 2 ? s.hq / s.hkv : 1;
  for (std::int32_t h = 0; h < s.hq; ++h)
    plan.routes.push_back(h % group ? plan.routes.back() : static_cast<Route>(d.below(ways) - 2));
  return plan;
}

// Whether query head h keeps, for row i of the segment, whose own key is `own`, the key in `cell`. The plan
// is a valid one.
struct KeptByPlan {
  const Plan& plan;
  std::int32_t hq;

  bool operator()(std::int32_t h, std::int32_t i, std::int64_t own, std::int64_t key, std::int64_t cell) const {
    const int route = plan.routes.empty() ? 0 : plan.routes[static_cast<std::size_t>(h)];
    if (route < 0) return route == kRouteFull;
    const Pattern& pattern = plan.patterns[static_cast<std::size_t>(route)];
    if (const auto* w = std::get_if<Window>(&pattern))
      return key < w->sink || key > own - w->window || (w->dense_from >= 0 && own >= w->dense_from);
    if (const auto* b = std::get_if<BlockMap>(&pattern)) {
      const auto [begin, end] = list(b->row_ptr, b->heads, b->n_rows, b->block_q, h, i);
      for (std::int32_t at = begin; at < end; ++at)
        if (b->cols[static_cast<std::size_t>(at)] == key / b->block_k) return true;
      return false;
    }
    if (const auto* r = std::get_if<Ranges>(&pattern)) {
      const auto [begin, end] = list(r->row_ptr, r->heads, r->n_rows, r->block_q, h, i);
      const std::int64_t number = r->of == Ranges::Of::cells ? cell : key;
      for (std::int32_t at = begin; at < end; ++at) {
        const Range& one = r->ranges[static_cast<std::size_t>(at)];
        if (one.begin <= number && number < one.end) return true;
      }
      return false;
    }
    return true;
  }

 private:
  // The entries of a list's row block: the lists lie one after the other, each with an offset more than blocks.
  std::pair<std::int32_t, std::int32_t> list(const std::vector<std::int32_t>& row_ptr, std::int32_t lists,
                                             std::int32_t n_rows, std::int32_t block_q, std::int32_t h,
                                             std::int32_t i) const {
    const std::int32_t blocks = (n_rows + block_q - 1) / block_q, l = h / (hq / lists);
    const auto at = static_cast<std::size_t>(l * (blocks + 1) + i / block_q);
    return {row_ptr[at], row_ptr[at + 1]};
  }
};

// What check_plan must see, told a second time: "" or what is wrong with the plan.
inline std::string plan_fault(const Plan& plan, const PlanShape& s) {
  if (plan.patterns.empty() || plan.patterns.size() > 64) return "the number of patterns";
  if (!plan.routes.empty() && plan.routes.size() != static_cast<std::size_t>(s.hq)) return "the number of routes";
  for (const Route r : plan.routes)
    if (r < -2 || r >= static_cast<int>(plan.patterns.size())) return "a route";
  std::int32_t block_q = 0;
  const auto shape = [&](std::int32_t heads, std::int32_t block, std::int32_t rows, std::int64_t n, std::int64_t need) {
    const bool same = block_q == 0 || block_q == block;
    block_q = block;
    return (heads == 1 || heads == s.hkv || heads == s.hq) && block >= 1 && block <= kMaxBlockQ && same &&
           rows == s.rows && n == need;
  };
  // Offsets of every list, inside the entries and never falling; `entry` is asked for each with its neighbour.
  const auto lists = [&](const auto& p, std::size_t entries, const auto& entry) {
    const auto each = static_cast<std::size_t>((p.n_rows + p.block_q - 1) / p.block_q) + 1;
    if (p.row_ptr.size() != each * static_cast<std::size_t>(p.heads)) return false;
    for (std::size_t i = 0; i < p.row_ptr.size(); ++i) {
      if (p.row_ptr[i] < 0 || static_cast<std::size_t>(p.row_ptr[i]) > entries) return false;
      if (i % each == 0) continue;
      if (p.row_ptr[i] < p.row_ptr[i - 1]) return false;
      for (std::int32_t e = p.row_ptr[i - 1]; e < p.row_ptr[i]; ++e)
        if (!entry(static_cast<std::size_t>(e), e > p.row_ptr[i - 1])) return false;
    }
    return true;
  };
  for (const Pattern& p : plan.patterns) {
    if (const auto* w = std::get_if<Window>(&p)) {
      constexpr std::int64_t kMost = std::int64_t{1} << 40;
      if (w->sink < 0 || w->sink > kMost || w->window < 0 || w->window > kMost) return "a window";
    } else if (const auto* b = std::get_if<BlockMap>(&p)) {
      if (b->block_k < 1 || b->block_k > 1 << 30) return "a block's keys";
      if (!shape(b->heads, b->block_q, b->n_rows, b->n_keys, s.keys)) return "the shape of a block map";
      if (!lists(*b, b->cols.size(), [&](std::size_t e, bool follows) {
            return b->cols[e] >= 0 && b->cols[e] < (s.keys + b->block_k - 1) / b->block_k &&
                   (!follows || b->cols[e] > b->cols[e - 1]);
          }))
        return "the lists of a block map";
    } else if (const auto* r = std::get_if<Ranges>(&p)) {
      if (!shape(r->heads, r->block_q, r->n_rows, r->n, r->of == Ranges::Of::cells ? s.cells : s.keys))
        return "the shape of ranges";
      if (!lists(*r, r->ranges.size(), [&](std::size_t e, bool follows) {
            const Range& x = r->ranges[e];
            return x.begin >= 0 && x.begin < x.end && x.end <= r->n && (!follows || x.begin > r->ranges[e - 1].end);
          }))
        return "the lists of ranges";
    }
  }
  return "";
}

}  // namespace lacuna::test
