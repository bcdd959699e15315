// SPDX-License-Identifier: Apache-2.0
// A plan holds index lists that lowering and kernels trust once check_plan has let them pass. Bytes become a
// cache with rows of several sequences and a plan for one of them, valid at first and then damaged here and
// there: what check_plan refuses must be bad, and what it lets pass must be what a plain mask says, in the
// runs of tiles, through the reference, and through the kernel that this machine would take.
#include <fmt/format.h>

#include "base/rng.h"
#include "engine/lower.h"
#include "engine/packed_tensor.h"
#include "fuzz/fuzz.h"
#include "kv/quantise.h"
#include "pattern/laws.h"
#include "support/draw_plan.h"
#include "support/draw_scene.h"
#include "support/exact.h"

namespace lacuna::fuzz {
namespace {

using test::Draw;
using test::PlanShape;

template <class T>
void put(Draw& d, T& field) {
  field = static_cast<T>(d.wild());
}

// One more or less: what is wrong by one is the likeliest to be overlooked.
template <class T>
void nudge(Draw& d, T& field) {
  field = static_cast<T>(static_cast<std::uint32_t>(field) + (d.flip() ? 1u : ~0u));
}

template <class T>
void damage_list(Draw& d, std::vector<T>& list) {
  const auto at = static_cast<std::size_t>(d.below(static_cast<std::int64_t>(list.size()) + 1));
  const std::int32_t how = d.below(6);
  if (how == 0) {
    list.resize(at);
  } else if (how == 1) {
    list.insert(list.begin() + static_cast<std::ptrdiff_t>(at), T{});
  } else if (at > 0) {
    T& one = list[at - 1];
    const auto change = [&](auto& field) { how < 4 ? nudge(d, field) : put(d, field); };
    if (how == 2)
      std::swap(one, list[static_cast<std::size_t>(d.below(static_cast<std::int64_t>(list.size())))]);
    else if constexpr (std::is_same_v<T, Range>)
      change(d.flip() ? one.begin : one.end);
    else
      change(one);
  }
}

// One thing becomes any other.
void damage(Draw& d, Plan& plan) {
  if (d.below(6) == 0) {
    if (d.flip())
      damage_list(d, plan.routes);
    else
      plan.patterns.resize(static_cast<std::size_t>(d.below(80)));
    return;
  }
  if (plan.patterns.empty()) return;
  Pattern& p = plan.patterns[static_cast<std::size_t>(d.below(static_cast<std::int64_t>(plan.patterns.size())))];
  if (auto* w = std::get_if<Window>(&p)) {
    std::int64_t* const fields[] = {&w->sink, &w->window, &w->dense_from};
    put(d, *fields[d.below(3)]);
  } else if (auto* b = std::get_if<BlockMap>(&p)) {
    std::int32_t* const fields[] = {&b->heads, &b->block_q, &b->block_k, &b->n_rows};
    const std::int32_t which = d.below(12);
    if (which < 4)
      put(d, *fields[which]);
    else if (which == 4)
      put(d, b->n_keys);
    else if (which < 8)
      damage_list(d, b->row_ptr);
    else
      damage_list(d, b->cols);
  } else if (auto* r = std::get_if<Ranges>(&p)) {
    std::int32_t* const fields[] = {&r->heads, &r->block_q, &r->n_rows};
    const std::int32_t which = d.below(12);
    if (which < 3)
      put(d, *fields[which]);
    else if (which == 3)
      put(d, r->n);
    else if (which == 4)
      r->of = r->of == Ranges::Of::keys ? Ranges::Of::cells : Ranges::Of::keys;
    else if (which < 8)
      damage_list(d, r->row_ptr);
    else
      damage_list(d, r->ranges);
  }
}

// One call over the rows of a segment: random numbers, packed as the machine's kernels read them.
struct Numbers {
  std::vector<float> q, sinks, slopes;
  std::vector<unsigned char> k, v;
  Buffer packed_k, packed_v;
  op::Attend::Args args;

  Numbers(Draw& d, const PlanShape& s, const Mask& mask, bool biased) {
    constexpr std::int32_t kDims[] = {16, 8, 40};
    auto& a = args;
    a.hq = s.hq, a.hkv = s.hkv, a.dk = kDims[d.below(3)], a.dv = kDims[d.below(3)];
    a.n_rows = s.rows, a.n_cells = s.cells;
    a.k_type = a.v_type = static_cast<Dtype>(d.below(3));
    a.precision = d.flip() ? Precision::high : Precision::fast;
    a.scale = 1.0f / std::sqrt(static_cast<float>(a.dk));
    if (d.below(4) == 0) a.softcap = 5.0f;
    Rng rng(d.byte());
    const auto normal = [&] { return static_cast<float>(rng.normal()); };
    for (std::int32_t i = 0; i < s.hq; ++i)
      sinks.push_back(normal()), slopes.push_back(std::exp2(-static_cast<float>(i)));
    if (d.below(4) == 0) a.sinks = sinks.data();
    if (biased) a.bias = mask.data, a.bias_row = mask.row_stride, a.slope = d.flip() ? slopes.data() : nullptr;
    q.resize(static_cast<std::size_t>(s.hq * s.rows * a.dk));
    for (float& x : q) x = normal();
    a.q = q.data(), a.q_row = a.dk, a.q_head = static_cast<std::int64_t>(s.rows) * a.dk;
    a.k_cell = static_cast<std::int64_t>(s.hkv) * a.dk, a.k_head = a.dk,
    a.v_cell = static_cast<std::int64_t>(s.hkv) * a.dv, a.v_head = a.dv;
    for (auto& [bytes, dim] : {std::pair{&k, a.dk}, {&v, a.dv}}) {
      const std::int64_t n = s.cells * s.hkv * dim;
      bytes->resize(static_cast<std::size_t>(bytes_of(a.k_type, n)));
      for (std::int64_t i = 0; i < n; ++i) {
        const float x = normal();
        store_elements(bytes->data(), a.k_type, i, &x, 1);
      }
    }
    a.k = k.data(), a.v = v.data();
    a.packed_k = pack(op::Pack::Role::key, k, a.dk, packed_k);
    a.packed_v = pack(op::Pack::Role::value, v, a.dv, packed_v);
  }

 private:
  PackedView pack(op::Pack::Role role, std::vector<unsigned char>& raw, int dim, Buffer& to) {
    const PackFormat format = choose_format(detect_features(), args.k_type, args.precision);
    if (format == PackFormat::none) return {};
    PackedView view{nullptr, format, args.hkv, dim, args.n_cells};
    const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(view.cells) * view.heads);
    view.data = std::memset(to.grow(bytes + 64), 0, bytes);
    op::Pack::Args p = pack_args(role, token_major(raw.data(), args.k_type, 1, args.hkv, args.n_cells, dim), view);
    p.n = args.n_cells;
    pack_cells(detect_features(), p, nullptr);
    return view;
  }
};

// Runs a kernel and compares it with the textbook; `want` is over the very pairs.
std::string run_one(const kernel::Kernel<op::Attend>& k, op::Attend::Args a, const test::Textbook& want,
                    ParallelFor& pool) {
  static Workspace space;
  std::vector<float> out(static_cast<std::size_t>(a.hq) * a.n_rows * a.dv, NAN),
      lse(static_cast<std::size_t>(a.hq) * a.n_rows, NAN);
  a.out = out.data(), a.out_row = a.dv, a.out_head = static_cast<std::int64_t>(a.n_rows) * a.dv;
  a.lse = lse.data();
  run_kernel(k, a, pool, space);
  const test::Distance d = test::distance(out, lse, want);
  // Coarse, and enough: the runs have been compared bit by bit. The laws hold kernels to their own bounds.
  const double allowed = k.pack == PackFormat::pair16_bf16 ? 0.1 : 1e-4;
  if (d.same_shape && d.out <= allowed && d.lse <= allowed) return "";
  return fmt::format("{}: out is off by {}, log-sum by {}, allowed {}{}", k.name, d.out, d.lse, allowed,
                     d.same_shape ? "" : "; NaN or infinity, where there is none");
}

std::string lower_and_run(Draw& d, const Plan& plan, const test::DrawnScene& scene, const Visibility& visible,
                          const Segment& segment, const PlanShape& s) {
  static LoweredRuns lowered;  // one for all, as a session has it
  const std::vector<std::int32_t> keys = scene.keys(segment.row_begin, segment.row_end);
  if (static_cast<std::int64_t>(keys.size()) != s.keys) return "the segment has other keys than its rows see";
  std::vector<std::int64_t> number(static_cast<std::size_t>(s.cells), -1), own;
  for (std::size_t j = 0; j < keys.size(); ++j)
    number[static_cast<std::size_t>(keys[j])] = static_cast<std::int64_t>(j);
  for (std::int32_t i = segment.row_begin; i < segment.row_end; ++i) own.push_back(scene.own(i, keys));
  const test::KeptByPlan kept{plan, s.hq};
  const auto attends = [&](std::int32_t h, std::int32_t i, std::int64_t c) {
    return scene.sees(segment.row_begin + i, c) &&
           kept(h, i, own[static_cast<std::size_t>(i)], number[static_cast<std::size_t>(c)], c);
  };

  Mask mask = scene.mask();
  mask.data += static_cast<std::int64_t>(segment.row_begin) * mask.row_stride;
  Numbers numbers(d, s, mask, visible.additive());
  const bool gather = !numbers.args.bias && d.byte() < 240;
  lower_plan(plan, visible, segment,
             {.q_heads = s.hq, .kv_heads = s.hkv, .block_q = block_q_of(plan, 64), .gather = gather}, lowered);
  const TileRuns t = numbers.args.runs = lowered.view();
  if (auto broken = law_runs_are_well_formed(t); !broken.empty()) return "runs: " + broken;
  double pairs = 0;
  std::vector<int> times(static_cast<std::size_t>(s.cells));
  for (std::int32_t h = 0; h < s.hq; ++h)
    for (std::int32_t i = 0; i < s.rows; ++i) {
      std::fill(times.begin(), times.end(), 0);
      const std::int32_t* list = t.list(h, i / t.block_q);
      for (std::int32_t r = list[0]; r < list[1]; ++r)
        for (std::int32_t tile = t.runs[r].begin; tile < t.runs[r].end; ++tile)
          for (int b = 0; b < kTileKeys; ++b)
            if (t.runs[r].bits < 0 || t.words[std::int64_t{t.runs[r].bits} * t.block_q + i % t.block_q] >> b & 1u)
              ++times[static_cast<std::size_t>(t.cell(tile, b))];
      for (std::int64_t c = 0; c < s.cells; ++c) {
        const int want = attends(h, i, c);
        pairs += want;
        if (times[static_cast<std::size_t>(c)] != want)
          return fmt::format("head {} row {} cell {}: {} times in the runs, need {}", h, i, c,
                             times[static_cast<std::size_t>(c)], want);
      }
    }
  if (lowered.attended_pairs * (s.hq / lowered.heads) != pairs)
    return fmt::format("{} pairs are counted of {}", lowered.attended_pairs * (s.hq / lowered.heads), pairs);

  static const auto pool = make_thread_pool(1);
  const test::Textbook want = test::exact_attention(numbers.args, attends);
  if (auto wrong = run_one(*find_attend("cpu.ref"), numbers.args, want, *pool); !wrong.empty()) return wrong;
  const auto* best = pick(kernel::attend_list, numbers.args, detect_features(), 1);
  return best ? run_one(*best, numbers.args, want, *pool) : "no kernel takes the call";
}

}  // namespace

std::string plan(Bytes bytes) {
  Draw d(bytes);
  constexpr std::pair<std::int32_t, std::int32_t> kHeads[] = {{1, 1}, {4, 2}, {3, 3}, {2, 1}};
  const auto [hq, hkv] = kHeads[d.below(4)];
  const test::DrawnScene scene = test::draw_scene(d, {.sequences = 2, .longest = 90, .most_rows = 36, .blind = true});
  const Visibility visible = Visibility::from_mask(scene.mask(), scene.n_rows, scene.n_cells);
  const auto& segments = visible.segments();
  if (segments.empty() || segments.front().row_begin != 0 || segments.back().row_end != scene.n_rows)
    return "rows of no segment";
  const Segment& segment = segments[static_cast<std::size_t>(d.below(static_cast<std::int64_t>(segments.size())))];
  const PlanShape s{hq, hkv, segment.rows(), segment.n_keys, scene.n_cells};
  const std::int32_t wounds = d.below(4);
  const std::uint8_t route = d.byte();
  Plan plan = test::draw_plan(d, s);
  if (wounds > 1)
    for (std::int32_t n = 1; n < wounds; ++n) damage(d, plan);
  else if (wounds == 1 && !plan.routes.empty())
    plan.routes.front() = static_cast<Route>(route);

  const Status good = check_plan(plan, {hq, s.rows, s.keys, 0}, hkv, s.cells);
  const std::string fault = test::plan_fault(plan, s);
  if (good.ok() && !fault.empty()) return "check_plan lets pass: " + fault;
  if (!good.ok()) return fault.empty() ? "check_plan refuses a good plan: " + good.error().what : "";
  return lower_and_run(d, plan, scene, visible, segment, s);
}

}  // namespace lacuna::fuzz

LACUNA_FUZZ_TARGET(plan)
