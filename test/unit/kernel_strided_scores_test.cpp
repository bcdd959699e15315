// SPDX-License-Identifier: Apache-2.0
// Every strided_scores kernel against the fp64 reference over the same packed keys.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/buffer.h"
#include "base/half.h"
#include "base/rng.h"
#include "engine/pick.h"
#include "op/pack_ref.h"
#include "op/strided_scores_ref.h"

namespace lacuna::test {
namespace {

constexpr std::uint32_t kUntouched = 0x7fc0dead;

struct StridedSpec {
  int stride = 8, hq = 2, hkv = 1, dk = 64, n_rows = 64;
  std::int64_t n_keys = 200, first_cell = 0, first_key_of_row0 = -1;
  std::uint64_t seed = 1;
  int more_heads = 0;  // KV heads of the cache that the call does not ask for
  std::string line() const {
    return fmt::format("strided_scores stride={} hq={} hkv={} dk={} nq={} nkv={} first_cell={} causal_from={} seed={} more_heads={}", stride,
                       hq, hkv, dk, n_rows, n_keys, first_cell, first_key_of_row0, seed, more_heads);
  }
};

bool check_strided(const kernel::Kernel<op::StridedScores>& k, const StridedSpec& s) {
  Rng rng(s.seed);
  const auto normal = [&] { return static_cast<float>(rng.normal()); };
  const PackFormat format = k.pack == PackFormat::none ? PackFormat::lane16_f32 : k.pack;
  // Cells around the segment hold other keys, one of them NaN.
  const std::int64_t cells = s.first_cell + s.n_keys + 40;
  const int heads = s.hkv + s.more_heads;
  std::vector<float> q(static_cast<std::size_t>(s.hq) * s.n_rows * (s.dk + 3), NAN);
  std::vector<float> raw(static_cast<std::size_t>(cells * heads * s.dk));
  for (int i = 0; i < s.hq * s.n_rows; ++i)
    for (int d = 0; d < s.dk; ++d) q[static_cast<std::size_t>(i) * (s.dk + 3) + d] = normal();
  for (auto& x : raw) x = normal();
  raw[static_cast<std::size_t>(s.first_cell + s.n_keys) * heads * s.dk] = NAN;
  Buffer storage;
  PackedView view{nullptr, format, heads, s.dk, cells};
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(cells) * heads);
  view.data = storage.grow(bytes);
  std::memset(storage.data(), 0, bytes);
  op::Pack::Args pack;
  pack.dtype = Dtype::f32;
  pack.raw = raw.data();
  pack.head = s.dk;
  pack.cell = static_cast<std::int64_t>(heads) * s.dk;
  pack.n = cells;
  pack.format = format;
  pack.heads = heads;
  pack.dim = s.dk;
  pack.packed = storage.data();
  op::pack_ref(pack);

  op::StridedScores::Args a;
  a.stride = s.stride; a.hq = s.hq; a.hkv = s.hkv; a.dk = s.dk; a.n_rows = s.n_rows;
  a.n_keys = s.n_keys; a.first_cell = s.first_cell;
  a.q = q.data();
  a.q_row = s.dk + 3;
  a.q_head = s.n_rows * a.q_row;
  a.packed_k = view;
  a.first_key_of_row0 = s.first_key_of_row0;
  a.score_row = a.n_cols() + 5;
  if (k.why_not && k.why_not(a, 1)) return false;
  std::vector<float> want(static_cast<std::size_t>(s.hq * a.m_rows() * a.score_row), std::bit_cast<float>(kUntouched));
  std::vector<float> plain = want;
  const auto run = [&](int workers) {
    std::vector<float> got(want.size(), std::bit_cast<float>(kUntouched));
    a.score = got.data();
    const auto pool = make_thread_pool(workers);
    Workspace space;
    run_kernel(k, a, *pool, space);
    return got;
  };
  const std::vector<float> got = run(1), again = run(3);
  EXPECT_EQ(std::memcmp(got.data(), again.data(), got.size() * 4), 0) << k.name << " 1 or 3 workers: " << s.line();

  for (int h = 0; h < s.hq; ++h)
    for (std::int64_t m = 0; m < a.m_rows(); ++m) {
      a.score = want.data();
      op::strided_scores_row_ref(a, h, m);
    }
  // The plain way in the kernel's precision: q rounded like the packed keys.
  std::vector<float> rounded = q;
  if (format == PackFormat::pair16_bf16)
    for (auto& x : rounded) x = bf16_to_float(float_to_bf16(x));
  a.q = rounded.data();
  a.score = plain.data();
  for (int h = 0; h < s.hq; ++h)
    for (std::int64_t m = 0; m < a.m_rows(); ++m) op::strided_scores_row_ref(a, h, m);
  double worst = 0, allowed = 0;
  bool in_place = true;
  for (int h = 0; h < s.hq; ++h)
    for (std::int64_t m = 0; m < a.m_rows(); ++m)
      for (std::int64_t n = 0; n < a.score_row; ++n) {
        const std::size_t at = static_cast<std::size_t>((h * a.m_rows() + m) * a.score_row + n);
        if (n >= a.n_cols()) in_place = in_place && std::bit_cast<std::uint32_t>(got[at]) == kUntouched;
        if (n >= a.causal_end(m)) continue;
        in_place = in_place && std::isfinite(got[at]);
        worst = std::max<double>(worst, std::fabs(got[at] - want[at]));
        allowed = std::max<double>(allowed, std::fabs(plain[at] - want[at]));
      }
  EXPECT_TRUE(in_place) << k.name << " not finite, or written past the columns: " << s.line();
  EXPECT_LE(worst, 2 * allowed + 1e-4) << k.name << ": " << s.line();
  return true;
}

TEST(StridedScoresKernels, EqualTheReference) {
  for (const auto* k : kernel::strided_scores_list) {
    const std::string missing = missing_features(detect_features(), k->needs);
    if (!missing.empty()) {
      std::printf("not run: %s: %s\n", k->name, missing.c_str());
      continue;
    }
    int taken = 0;
    for (const int stride : {1, 2, 4, 8, 16}) {
      for (int d = 16; d <= 256; d += 24) taken += check_strided(*k, {.stride = stride, .dk = d, .n_rows = 33, .n_keys = 70});
      for (int n = 1; n <= 70; n += 3)
        taken += check_strided(*k, {.stride = stride, .hq = 4, .hkv = 2, .dk = 32, .n_rows = 1 + n * 7 % 67, .n_keys = n,
                                    .first_cell = n % 5 * 16, .seed = static_cast<std::uint64_t>(n)});
      for (const int from : {0, 5, 64})
        taken += check_strided(*k, {.stride = stride, .dk = 40, .n_rows = 150, .n_keys = 150 + from, .first_cell = 16,
                                    .first_key_of_row0 = from});
      // Some heads of a cache, few rows of each: rows of a group may be multiplied together.
      for (const int rows : {1, 8, 20, 70})
        taken += check_strided(*k, {.stride = stride, .hq = 6, .hkv = 2, .n_rows = rows, .n_keys = 100, .first_key_of_row0 = 100 - rows,
                                    .more_heads = 1});
    }
    EXPECT_GT(taken, 0) << k->name;
  }
}

}  // namespace
}  // namespace lacuna::test
