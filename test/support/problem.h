// SPDX-License-Identifier: Apache-2.0
// Problems for tests of whole sessions: one sequence of tokens with random q, k, v, and the ways to
// put it before a session: in one shot, in parts, or with others in one cache of mixed cells.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/half.h"
#include "base/rng.h"
#include "engine/registry.h"
#include "engine/session.h"
#include "lacuna/lacuna.h"
#include "support/exact.h"
#include "support/pairwise.h"

namespace lacuna::testing {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::uint16_t kHidden = 0xfc00;  // -infinity as f16

struct Shape {
  int hq = 2, hkv = 1, n = 600, d = 16;  // d channels of q, k and v alike
  std::uint64_t seed = 1;
  std::string text() const { return fmt::format("hq={} hkv={} n={} d={} seed={}", hq, hkv, n, d, seed); }
};

// One sequence. q f32 [hq][n][d]; k, v f16 [hkv][n][d].
struct Problem {
  Shape s;
  std::vector<float> q;
  std::vector<std::uint16_t> k, v;

  explicit Problem(const Shape& shape) : s(shape) {
    Rng rng(shape.seed + test::seed_shift());
    const auto size = [&](int heads) { return static_cast<std::size_t>(heads) * s.n * s.d; };
    q.resize(size(s.hq));
    k.resize(size(s.hkv));
    v.resize(size(s.hkv));
    for (auto& x : q) x = static_cast<float>(1.5 * rng.normal());
    for (auto& x : k) x = float_to_half(static_cast<float>(rng.normal()));
    for (auto& x : v) x = float_to_half(static_cast<float>(rng.normal()));
  }
  std::size_t at(int head, int token) const { return (static_cast<std::size_t>(head) * s.n + token) * s.d; }
};

// out [hq][rows][d], lse [hq][rows]; poisoned before the call.
struct Output {
  int rows = 0, d = 0;
  std::vector<float> out, lse;
  Output(int hq, int n_rows, int dim) : rows(n_rows), d(dim) {
    out.assign(static_cast<std::size_t>(hq) * rows * d, NAN);
    lse.assign(static_cast<std::size_t>(hq) * rows, NAN);
  }
  float* row(int head, int i) { return out.data() + (static_cast<std::size_t>(head) * rows + i) * d; }
  const float* row(int head, int i) const { return out.data() + (static_cast<std::size_t>(head) * rows + i) * d; }
  float log_sum(int head, int i) const { return lse[static_cast<std::size_t>(head) * rows + i]; }
};

inline Result<std::unique_ptr<Session>> open(const std::string& spec, int threads = 1, Audit audit = Audit::off) {
  Options o;
  o.method = spec;
  o.precision = Precision::high;
  o.threads = threads;
  o.audit = audit;
  return Session::open(o);
}

// The call for rows [begin, end) of the sequence over its first n_keys keys, causal without a mask.
inline AttendCall call_of(const Problem& p, int begin, int end, int n_keys, Output& to) {
  AttendCall c;
  const auto hq = p.s.hq, hkv = p.s.hkv, d = p.s.d;
  const std::int64_t head = static_cast<std::int64_t>(p.s.n) * d;
  c.q = {const_cast<float*>(p.q.data()) + static_cast<std::ptrdiff_t>(begin) * d, Dtype::f32, {1, hq, end - begin, d}, {0, head, d, 1}};
  c.k = {const_cast<std::uint16_t*>(p.k.data()), Dtype::f16, {1, hkv, n_keys, d}, {0, head, d, 1}};
  c.v = {const_cast<std::uint16_t*>(p.v.data()), Dtype::f16, {1, hkv, n_keys, d}, {0, head, d, 1}};
  c.out = contiguous(to.out.data(), Dtype::f32, 1, hq, end - begin, d);
  c.lse = to.lse.data();
  return c;
}

// Several sequences in one cache: the new rows of each (from first_row on), every token's cell.
struct Slot {
  const Problem* problem;
  int first_row;
  std::vector<std::int32_t> cell;  // [n] of token t
};

// Owns one call over mixed cells. Cells of nobody hold large finite values.
struct MixedCall {
  std::vector<float> q;
  std::vector<std::uint16_t> k, v, mask;
  std::vector<std::int32_t> row_cell, cell_pos;
  Output output;
  AttendCall call;

  MixedCall(const std::vector<Slot>& slots, int n_cells) : output(0, 0, 0) {
    const Shape& s = slots[0].problem->s;
    int rows = 0;
    for (const auto& slot : slots) rows += slot.problem->s.n - slot.first_row;
    const auto d = static_cast<std::size_t>(s.d);
    q.resize(static_cast<std::size_t>(s.hq) * rows * d);
    k.assign(static_cast<std::size_t>(s.hkv) * n_cells * d, float_to_half(11.0f));
    v.assign(k.size(), float_to_half(-300.0f));
    mask.assign(static_cast<std::size_t>(rows) * n_cells, kHidden);
    row_cell.resize(static_cast<std::size_t>(rows));
    cell_pos.assign(static_cast<std::size_t>(n_cells), -1);
    int row = 0;
    for (const auto& [p, first, cell] : slots) {
      for (int t = 0; t < p->s.n; ++t) {
        cell_pos[static_cast<std::size_t>(cell[t])] = t;
        for (int h = 0; h < s.hkv; ++h)
          for (std::size_t x = 0; x < d; ++x) {
            k[(static_cast<std::size_t>(h) * n_cells + cell[t]) * d + x] = p->k[p->at(h, t) + x];
            v[(static_cast<std::size_t>(h) * n_cells + cell[t]) * d + x] = p->v[p->at(h, t) + x];
          }
      }
      for (int t = first; t < p->s.n; ++t, ++row) {
        row_cell[static_cast<std::size_t>(row)] = cell[t];
        for (int h = 0; h < s.hq; ++h)
          for (std::size_t x = 0; x < d; ++x)
            q[(static_cast<std::size_t>(h) * rows + row) * d + x] = p->q[p->at(h, t) + x];
        for (int j = 0; j <= t; ++j) mask[static_cast<std::size_t>(row) * n_cells + cell[j]] = 0;
      }
    }
    output = Output(s.hq, rows, s.d);
    call.q = contiguous(q.data(), Dtype::f32, 1, s.hq, rows, s.d);
    call.k = contiguous(k.data(), Dtype::f16, 1, s.hkv, n_cells, s.d);
    call.v = contiguous(v.data(), Dtype::f16, 1, s.hkv, n_cells, s.d);
    call.out = contiguous(output.out.data(), Dtype::f32, 1, s.hq, rows, s.d);
    call.lse = output.lse.data();
    call.mask = {mask.data(), n_cells, row_cell.data(), cell_pos.data()};
  }
  MixedCall(const MixedCall&) = delete;
  MixedCall& operator=(const MixedCall&) = delete;
};

// A permutation of 0 .. n-1.
inline std::vector<std::int32_t> shuffled(int n, Rng& rng) {
  std::vector<std::int32_t> a(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) a[static_cast<std::size_t>(i)] = i;
  for (int i = n - 1; i > 0; --i)
    std::swap(a[static_cast<std::size_t>(i)], a[rng.below(static_cast<std::uint64_t>(i) + 1)]);
  return a;
}

// Whether the plan keeps the pair (head h, row i of the segment, key j, which lies in `cell`).
inline bool keeps(const Plan& plan, const Grid& grid, int h, int i, std::int64_t j, std::int64_t cell) {
  const Route r = plan.route(h);
  if (r < 0) return r == kRouteFull;
  const Pattern& pattern = plan.patterns[static_cast<std::size_t>(r)];
  return std::visit([&](const auto& p) { return p.keeps(grid, h, i, names_cells(pattern) ? cell : j); }, pattern);
}

// The pairs that a call attends, [hq][rows][cells]: visible, and kept by the method's own plan, which is asked
// through the engine's path, and by the ground truth keeps().
struct AttendedPairs {
  std::vector<char> all;
  std::int64_t rows = 0, cells = 0;
  char operator()(int h, int i, std::int64_t cell) const {
    return all[static_cast<std::size_t>((h * rows + i) * cells + cell)];
  }
};
inline Result<AttendedPairs> attended_pairs(const std::string& spec, const AttendCall& c,
                                            Precision precision = Precision::high) {
  Session::Impl s;
  auto method = make_method(spec);
  if (!method.ok()) return method.error();
  s.method = std::move(method.value());
  s.options.precision = precision;
  s.have = detect_features();
  s.own_pool = make_thread_pool(1);
  s.parallel = s.own_pool.get();
  auto& mask = s.mask_entry(c);
  const op::Attend::Args args = s.base_args(c, mask);
  AttendedPairs pairs{std::vector<char>(static_cast<std::size_t>(args.hq * args.n_rows * args.n_cells), 0), args.n_rows,
                      args.n_cells};
  for (const auto& segment : mask.visible.segments()) {
    auto plan = s.plan(*s.method, c, mask, segment, args);
    if (!plan.ok()) return plan.error();
    if (auto good = check_plan(plan.value(), {args.hq, segment.rows(), segment.n_keys, 0}, args.hkv, args.n_cells); !good.ok()) return good.error();
    const Grid grid{args.hq, segment.rows(), segment.n_keys, segment.key_of_row.empty() ? 0 : segment.key_of_row[0]};
    for (int h = 0; h < args.hq; ++h)
      for (int i = 0; i < segment.rows(); ++i)
        for (std::int64_t j = 0; j < segment.n_keys; ++j) {
          const std::int64_t cell = segment.cell(j), row = segment.row_begin + i;
          pairs.all[static_cast<std::size_t>((h * pairs.rows + row) * pairs.cells + cell)] =
              mask.visible.sees(static_cast<std::int32_t>(row), cell) && keeps(plan.value(), grid, h, i, j, cell);
        }
  }
  return pairs;
}

// Exact attention over these pairs, in double precision.
inline Result<Output> kept_attention(const std::string& spec, const AttendCall& c) {
  const auto pairs = attended_pairs(spec, c);
  if (!pairs.ok()) return pairs.error();
  const op::Attend::Args a = test::textbook_args(c);
  const test::Textbook exact = test::exact_attention(a, pairs.value());
  Output o(a.hq, a.n_rows, a.dv);
  std::copy(exact.out.begin(), exact.out.end(), o.out.begin());
  std::copy(exact.lse.begin(), exact.lse.end(), o.lse.begin());
  return o;
}

}  // namespace lacuna::testing
