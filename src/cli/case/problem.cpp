// SPDX-License-Identifier: Apache-2.0
#include "cli/case/problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/clock.h"
#include "base/rng.h"
#include "engine/packed_tensor.h"
#include "kv/quantise.h"

namespace lacuna::cli {
void fill_normal(void* to, Dtype type, std::int64_t n, std::uint64_t seed) {
  // Long tensors repeat a table of prime length: no period of a tile or a head, and quick to fill.
  constexpr std::int64_t kTable = 65521;
  Rng rng(seed);
  std::vector<float> table(static_cast<std::size_t>(std::min(n, kTable)));
  for (float& x : table) x = static_cast<float>(rng.normal());
  const std::int64_t block = block_size(type);
  for (std::int64_t i = 0; i < n; i += block) {
    float x[32];
    for (std::int64_t j = 0; j < block; ++j) x[j] = table[static_cast<std::size_t>((i + j) % kTable)];
    store_elements(to, type, i, x, block);
  }
}

Features features_of(const Case& c) {
  bool known = true;
  return c.machine.empty() ? detect_features() : mask_features(detect_features(), c.machine.c_str(), &known);
}

op::StridedScores::Args strided_args(const Case& c, const op::Attend::Args& packed) {
  op::StridedScores::Args a;
  a.stride = static_cast<std::int32_t>(c.stride);
  a.hq = packed.hq;
  a.hkv = packed.hkv;
  a.dk = packed.dk;
  a.n_rows = packed.n_rows;
  a.n_keys = c.nkv;
  a.q = packed.q;
  a.q_head = packed.q_head;
  a.q_row = packed.q_row;
  a.packed_k = packed.packed_k;
  a.first_key_of_row0 = c.nkv - c.nq;
  return a;
}

// Random pages (of `block` keys) or tokens for every KV head: those with own keys of a row block always.
Pattern lists_of(const Case& c, const Grid& grid, std::uint64_t seed) {
  Ranges list;
  list.heads = static_cast<std::int32_t>(c.hkv);
  list.block_q = std::min<std::int32_t>(64, grid.n_rows);
  list.n_rows = grid.n_rows;
  list.n = grid.n_keys;
  const std::int64_t page = c.layout == Layout::tokens ? 1 : c.block;
  Rng rng(seed);
  for (std::int32_t h = 0; h < list.heads; ++h)
    for (std::int32_t qb = 0; qb <= list.q_blocks(); ++qb) {
      list.row_ptr.push_back(static_cast<std::int32_t>(list.ranges.size()));
      if (qb == list.q_blocks()) break;
      const std::int64_t first = grid.first_key + std::int64_t{qb} * list.block_q;
      const std::int64_t last = std::min<std::int64_t>(first + list.block_q, grid.first_key + grid.n_rows) - 1;
      const std::int64_t own = first / page, end = last / page + 1;
      std::int64_t need = std::max<std::int64_t>(0, std::llround(c.keep * static_cast<double>(end)) - (end - own));
      for (std::int64_t k = 0; k < end; ++k) {
        const bool take = k >= own || static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(own - k))) < need;
        if (!take) continue;
        if (k < own) --need;
        const auto from = static_cast<std::int32_t>(k * page), to = static_cast<std::int32_t>(std::min((k + 1) * page, grid.n_keys));
        if (static_cast<std::size_t>(list.row_ptr.back()) < list.ranges.size() && list.ranges.back().end == from) list.ranges.back().end = to;
        else list.ranges.push_back({from, to});
      }
    }
  return list;
}

Pattern pattern_of(const Case& c, const Grid& grid, std::uint64_t seed) {
  if (c.layout == Layout::closed) {
    if (c.keep >= 1 && c.window == 0) return Dense{};
    Window w;
    w.sink = c.sink;
    // By share: of the mean number of keys a row sees.
    const double mean = static_cast<double>(grid.n_keys) - 0.5 * (grid.n_rows - 1);
    w.window = c.window ? c.window : std::max<std::int64_t>(1, std::llround(c.keep * mean));
    return w;
  }
  if (c.layout == Layout::tokens || c.layout == Layout::pages) return lists_of(c, grid, seed);
  BlockMap map;
  map.heads = grid.heads;
  map.block_k = static_cast<std::int32_t>(c.block);
  map.block_q = static_cast<std::int32_t>(std::min<std::int64_t>(c.block, kMaxBlockQ));
  map.n_rows = grid.n_rows;
  map.n_keys = grid.n_keys;
  Rng rng(seed);
  for (std::int32_t h = 0; h < grid.heads; ++h)
    for (std::int32_t qb = 0; qb <= map.q_blocks(); ++qb) {
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
      if (qb == map.q_blocks()) break;
      // Blocks that hold own keys of the rows are the diagonal: always kept, and counted in `keep`.
      const std::int64_t first = grid.first_key + static_cast<std::int64_t>(qb) * map.block_q;
      const std::int64_t last = std::min<std::int64_t>(first + map.block_q, grid.first_key + grid.n_rows) - 1;
      const std::int64_t diagonal = first / map.block_k, end = last / map.block_k + 1;
      const std::int64_t must = end - diagonal + (diagonal > 0 ? 1 : 0);
      std::int64_t need = std::max<std::int64_t>(0, std::llround(c.keep * static_cast<double>(end)) - must);
      if (diagonal > 0) map.cols.push_back(0);
      for (std::int64_t k = 1; k < diagonal; ++k) {  // each of the rest is as likely as the others
        if (static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(diagonal - k))) >= need) continue;
        map.cols.push_back(static_cast<std::int32_t>(k));
        --need;
      }
      for (std::int64_t k = diagonal; k < end; ++k) map.cols.push_back(static_cast<std::int32_t>(k));
    }
  return map;
}

AttendProblem::AttendProblem(const Case& c, int batch) : case_(c) {
  const std::uint64_t seed = c.seed * 1000003 + static_cast<std::uint64_t>(batch) * 7;
  const auto dv = static_cast<std::int64_t>(c.value_dim());
  q_.resize(static_cast<std::size_t>(c.nq * c.hq * c.d));
  k_.resize(static_cast<std::size_t>(bytes_of(c.kv, c.nkv * c.hkv * c.d)));
  v_.resize(static_cast<std::size_t>(bytes_of(c.v_type(), c.nkv * c.hkv * dv)));
  fill_normal(q_.data(), Dtype::f32, static_cast<std::int64_t>(q_.size()), seed + 1);
  fill_normal(k_.data(), c.kv, c.nkv * c.hkv * c.d, seed + 2);
  fill_normal(v_.data(), c.v_type(), c.nkv * c.hkv * dv, seed + 3);

  const double start = now();
  const auto rows = static_cast<std::int32_t>(c.nq), heads = static_cast<std::int32_t>(c.hq);
  const Visibility visible = Visibility::causal(rows, c.nkv);
  const Segment& segment = visible.segments().front();
  for (std::int32_t i = 0; i < rows; ++i) allowed_ += static_cast<double>(visible.visible_keys(i)) * heads;
  const Grid grid{heads, rows, segment.n_keys, segment.key_of_row.front()};
  const Plan plan = plan_of(pattern_of(c, grid, seed + 4));
  constexpr std::int32_t kRowsPerBlock = 64;  // as a session has it
  lower_plan(plan, visible, segment,
             {.q_heads = heads, .kv_heads = static_cast<std::int32_t>(c.hkv), .block_q = block_q_of(plan, kRowsPerBlock)}, runs_);
  lower_seconds_ = now() - start;
  attended_ = runs_.attended_pairs * (heads / runs_.heads);
}

PackedView AttendProblem::pack(Features have, op::Pack::Role role, PackFormat format, ParallelFor& threads, Buffer& storage) {
  const bool key = role == op::Pack::Role::key;
  const auto dim = key ? case_.d : static_cast<std::int64_t>(case_.value_dim());
  PackedView view{nullptr, format, static_cast<std::int32_t>(case_.hkv), static_cast<std::int32_t>(dim), case_.nkv};
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(view.cells) * view.heads);
  view.data = storage.grow(bytes + 64);
  std::memset(storage.data(), 0, bytes);
  const Tensor raw = token_major((key ? k_ : v_).data(), key ? case_.kv : case_.v_type(), 1, case_.hkv, case_.nkv, dim);
  op::Pack::Args a = pack_args(role, raw, view);
  a.n = case_.nkv;
  const double start = now();
  pack_cells(have, a, &threads);
  pack_seconds_ += now() - start;
  return view;
}

op::Attend::Args AttendProblem::args(Features have, PackFormat format, ParallelFor& threads) {
  const Case& c = case_;
  op::Attend::Args a;
  a.hq = static_cast<std::int32_t>(c.hq);
  a.hkv = static_cast<std::int32_t>(c.hkv);
  a.dk = static_cast<std::int32_t>(c.d);
  a.dv = c.value_dim();
  a.n_rows = static_cast<std::int32_t>(c.nq);
  a.n_cells = c.nkv;
  a.q = q_.data();
  a.q_head = c.d;
  a.q_row = c.hq * c.d;
  a.k = k_.data();
  a.v = v_.data();
  a.k_type = c.kv;
  a.v_type = c.v_type();
  a.k_head = c.d;
  a.k_cell = c.hkv * c.d;
  a.v_head = a.dv;
  a.v_cell = c.hkv * a.dv;
  if (format != PackFormat::none) {
    pack_seconds_ = 0;
    a.packed_k = pack(have, op::Pack::Role::key, format, threads, packed_k_);
    a.packed_v = pack(have, op::Pack::Role::value, format, threads, packed_v_);
  }
  a.runs = runs_.view();
  a.precision = c.precision;
  a.scale = 1.0f / std::sqrt(static_cast<float>(c.d));
  a.softcap = static_cast<float>(c.softcap);
  out_.assign(static_cast<std::size_t>(c.nq * c.hq * a.dv), NAN);
  lse_.assign(static_cast<std::size_t>(c.nq * c.hq), NAN);
  a.out = out_.data();
  a.out_head = a.dv;
  a.out_row = c.hq * a.dv;
  a.lse = lse_.data();
  return a;
}

}  // namespace lacuna::cli
