// SPDX-License-Identifier: Apache-2.0
// Random plans through a whole session: a method of this file answers with any valid plan, over any cache that
// a host may have, and the result is attention in double precision over what is visible AND kept, within
// the bound of law `bound`. What is visible and kept is read off the mask and the plan by plain walks; nothing
// of segments, lowering, or packing is believed.
#include <gtest/gtest.h>

#include <cstdlib>

#include <fmt/format.h>

#include "base/rng.h"
#include "engine/session.h"
#include "kv/quantise.h"
#include "support/draw_plan.h"
#include "support/draw_scene.h"
#include "support/exact.h"
#include "support/pairwise.h"
#include "support/thin.h"

namespace lacuna::conformance {
namespace {

using test::Draw;

// A plan for some rows of a call, as it was handed to the engine.
struct Given {
  std::int32_t row_begin, row_end;
  Plan plan;
};

constexpr Card kAnyPlan{.slug = "any-plan", .title = "Any plan", .family = "test", .summary = "A random valid plan."};
class AnyPlan final : public Method {
 public:
  AnyPlan(Draw& draw, std::vector<Given>& given) : draw_(draw), given_(given) {}
  const Card& card() const override { return kAnyPlan; }
  void params(ParamVisitor&) override {}
  Result<Plan> plan(const AttentionView& x, Context&) const override {
    const test::PlanShape shape{x.grid.heads, x.hkv, x.grid.n_rows, x.grid.n_keys, x.cells.n};
    given_.push_back({x.cells.segment->row_begin, x.cells.segment->row_end, test::draw_plan(draw_, shape)});
    return given_.back().plan;
  }

 private:
  Draw& draw_;
  std::vector<Given>& given_;
};

std::vector<std::uint8_t> random_bytes(std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::uint8_t> bytes(std::size_t{1} << 15);
  for (auto& b : bytes) b = static_cast<std::uint8_t>(rng.next() >> 32);
  return bytes;
}

// A cache and the calls over it. Memory behind the call's cells belongs to the cache too.
struct Cache {
  int hq, hkv, dk, dv;
  std::int64_t cells;
  Dtype type;
  std::vector<unsigned char> k, v;
  Tensor all_k, all_v;

  Cache(Draw& d, const test::DrawnScene& scene, Rng& rng) {
    constexpr std::pair<int, int> kHeads[] = {{1, 1}, {4, 2}, {3, 3}, {6, 2}, {2, 1}, {4, 1}};
    constexpr int kDims[] = {16, 24, 40, 64, 80};
    std::tie(hq, hkv) = kHeads[d.below(6)];
    dk = kDims[d.below(5)];
    dv = d.flip() ? dk : kDims[d.below(5)];
    type = static_cast<Dtype>(d.below(5));
    if (is_quantised(type)) dk = (dk + 31) / 32 * 32, dv = (dv + 31) / 32 * 32;
    cells = scene.n_cells + d.below(50);
    const bool broken = d.flip();  // keys that no row sees are NaN
    const bool head_major = d.flip();
    for (auto [bytes, tensor, dim] : {std::tuple{&k, &all_k, dk}, {&v, &all_v, dv}}) {
      bytes->resize(static_cast<std::size_t>(bytes_of(type, cells * hkv * dim)));
      std::vector<float> row(static_cast<std::size_t>(dim));
      *tensor = (head_major ? contiguous : token_major)(bytes->data(), type, 1, hkv, cells, dim);
      for (std::int64_t c = 0; c < cells; ++c) {
        bool seen = false;
        for (std::int32_t i = 0; c < scene.n_cells && i < scene.n_rows; ++i) seen = seen || scene.sees(i, c);
        for (int h = 0; h < hkv; ++h) {
          for (float& value : row) {
            value = static_cast<float>(rng.normal()) + (bytes == &v ? 0.5f : 0.0f);
            if (!seen) value = bytes == &v ? -300.0f : broken ? NAN : 30.0f;
          }
          store_elements(tensor->row(0, h, c), type, 0, row.data(), dim);
        }
      }
    }
  }
};

void check_case(std::uint64_t seed) {
  const std::vector<std::uint8_t> bytes = random_bytes(seed);
  Draw d(bytes);
  Rng rng(seed + 5);
  const test::DrawnScene scene = test::draw_scene(d, {.sequences = 3, .longest = 70, .most_rows = 24, .blind = true});
  Cache cache(d, scene, rng);
  constexpr const char* kMachines[] = {"", "", "avx2", "avx512", "avx512bf16"};
  const char* machine = kMachines[d.below(5)];

  std::vector<Given> given;
  Session::Impl s;
  s.method = std::make_unique<AnyPlan>(d, given);
  s.options.precision = d.flip() ? Precision::fast : Precision::high;
  s.options.audit = d.below(4) == 0 ? Audit::full : Audit::off;
  s.options.windowed = true;  // any mask is drawn, windows too
  bool known = true;
  s.have = mask_features(detect_features(), machine, &known);
  s.own_pool = make_thread_pool(1 + d.below(3));
  s.parallel = s.own_pool.get();
  s.graphs = true;

  const auto rows = static_cast<std::size_t>(scene.n_rows);
  std::vector<float> q(static_cast<std::size_t>(cache.hq) * rows * static_cast<std::size_t>(cache.dk)), sinks, slopes;
  for (float& x : q) x = static_cast<float>(rng.normal());
  for (int h = 0; h < cache.hq; ++h)
    sinks.push_back(2 * static_cast<float>(rng.normal())), slopes.push_back(std::exp2(-static_cast<float>(h + 1)));
  std::vector<float> out(static_cast<std::size_t>(cache.hq) * rows * static_cast<std::size_t>(cache.dv)),
      lse(static_cast<std::size_t>(cache.hq) * rows);

  AttendCall c;
  c.q = (d.flip() ? contiguous : token_major)(q.data(), Dtype::f32, 1, cache.hq, scene.n_rows, cache.dk);
  c.k = cache.all_k;
  c.v = cache.all_v;
  c.k.n[2] = c.v.n[2] = scene.n_cells;
  c.out = contiguous(out.data(), Dtype::f32, 1, cache.hq, scene.n_rows, cache.dv);
  c.lse = lse.data();
  c.mask = scene.mask();
  const bool softcap = d.below(3) == 0, sunk = d.below(3) == 0, sloped = d.flip(), kept = d.flip();
  if (softcap) c.softcap = 5.0f;
  if (sunk) c.sinks = sinks.data();
  if (sloped) c.slopes = slopes.data();
  PackedTensor packed_k(PackedTensor::Role::key, cache.type, cache.cells, cache.hkv, cache.dk, s.options.precision,
                        machine);
  PackedTensor packed_v(PackedTensor::Role::value, cache.type, cache.cells, cache.hkv, cache.dv, s.options.precision,
                        machine);
  if (kept) {
    packed_k.write(cache.all_k, 0, cache.cells);
    packed_v.write(cache.all_v, 0, cache.cells);
    c.packed_k = &packed_k, c.packed_v = &packed_v;
  }
  SCOPED_TRACE(fmt::format(
      "rows={} cells={} sequences announced={} biased={} hq={} hkv={} dk={} dv={} kv={} precision={} machine={} "
      "softcap={} sinks={} slopes={} packed={}",
      scene.n_rows, scene.n_cells, scene.announced, scene.biased, cache.hq, cache.hkv, cache.dk, cache.dv,
      name_of(cache.type), s.options.precision == Precision::fast ? "fast" : "high", machine, softcap, sunk, sloped,
      kept));

  for (c.layer = 0; c.layer < 2; ++c.layer) {  // other plans over the same mask
    given.clear();
    s.prefill = s.decode = {};
    std::fill(out.begin(), out.end(), NAN);
    std::fill(lse.begin(), lse.end(), NAN);
    const Status done = s.attend(c);
    ASSERT_TRUE(done.ok()) << done.error().what;

    // Everything visible, less what a plan leaves out of its rows.
    std::vector<char> pair(static_cast<std::size_t>(cache.hq) * rows * static_cast<std::size_t>(scene.n_cells), 0);
    const auto at = [&](std::int32_t h, std::int32_t i, std::int64_t cell) -> char& {
      return pair[(static_cast<std::size_t>(h) * rows + static_cast<std::size_t>(i)) *
                      static_cast<std::size_t>(scene.n_cells) +
                  static_cast<std::size_t>(cell)];
    };
    double visible = 0, attended = 0;
    for (std::int32_t h = 0; h < cache.hq; ++h)
      for (std::int32_t i = 0; i < scene.n_rows; ++i)
        for (std::int64_t cell = 0; cell < scene.n_cells; ++cell) visible += at(h, i, cell) = scene.sees(i, cell);
    for (const Given& g : given) {
      const test::KeptByPlan kept_by{g.plan, cache.hq};
      const auto keys = scene.keys(g.row_begin, g.row_end);
      for (std::int32_t i = g.row_begin; i < g.row_end; ++i) {
        const std::int64_t own = scene.own(i, keys);
        for (std::int32_t h = 0; h < cache.hq; ++h)
          for (std::size_t j = 0; j < keys.size(); ++j)
            if (!kept_by(h, i - g.row_begin, own, static_cast<std::int64_t>(j), keys[j])) at(h, i, keys[j]) = 0;
      }
    }
    for (const char x : pair) attended += x;
    EXPECT_EQ(s.prefill.report.allowed_pairs + s.decode.report.allowed_pairs, visible);
    EXPECT_EQ(s.prefill.report.attended_pairs + s.decode.report.attended_pairs, attended);

    const op::Attend::Args a = test::textbook_args(c);
    const bool bf16 = choose_format(s.have, cache.type, s.options.precision) == PackFormat::pair16_bf16;
    const test::Textbook want = test::exact_attention(a, at);
    const test::Distance error = test::distance(out, lse, want), allowed = test::allowed_distance(a, at, bf16, want);
    EXPECT_TRUE(error.same_shape) << "NaN or infinity where there is none, or the other way round";
    EXPECT_LE(error.out, allowed.out) << "out, layer " << c.layer;
    EXPECT_LE(error.lse, allowed.lse) << "log-sum, layer " << c.layer;
    if (::testing::Test::HasFailure()) return;
  }
}

// LACUNA_CASE=n runs one case alone.
TEST(AnyPlanThroughASession, IsAttentionOverVisibleAndKept) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  const char* only = std::getenv("LACUNA_CASE");
  const int cases = (test::full_run() ? 5000 : 800) / test::kThin;
  for (int i = 0; i < cases; ++i) {
    if (only && std::atoi(only) != i) continue;
    SCOPED_TRACE(fmt::format("again: LACUNA_SEED={} LACUNA_CASE={} lacuna-tests --gtest_filter=AnyPlan*",
                             test::seed_shift() / 100000, i));
    check_case(test::seed_shift() + static_cast<std::uint64_t>(i) * 7 + 3);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace lacuna::conformance
