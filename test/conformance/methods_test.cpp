// SPDX-License-Identifier: Apache-2.0
// Walks the registry: every method, with its card's small spec and its presets, under every law of
// docs/laws.md that speaks of methods. A new method is tested by its line in list.inc alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "conformance/laws.h"
#include "kv/quantise.h"
#include "support/problem.h"
#include "support/thin.h"

namespace lacuna::conformance {
namespace {

using testing::Output;
using testing::Problem;
using testing::Shape;

// What a law is tried on.
struct Case {
  const Card* card;
  std::string spec;
  Shape shape;
  bool small;  // the card's small spec; else a preset, which may keep everything at this length
  bool first;  // one case of each method: for laws that vary the shape themselves
  std::string text() const { return fmt::format("spec={} {}", spec, shape.text()); }
};

constexpr double kClose = 3e-5;  // between two sums in another order, values of size 1

// Compares rows [a_first, a_first + rows) of a with rows from b_first of b.
void expect_rows(const Output& a, int a_first, const Output& b, int b_first, int rows, int heads, double tolerance,
                 const std::string& what, int b_head = 0) {
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < rows; ++i) {
      const float *x = a.row(h, a_first + i), *y = b.row(b_head + h, b_first + i);
      const float p = a.log_sum(h, a_first + i), q = b.log_sum(b_head + h, b_first + i);
      double worst = p == q ? 0 : std::abs(static_cast<double>(p) - q);
      for (int d = 0; d < a.d; ++d) worst = std::max(worst, std::abs(static_cast<double>(x[d]) - y[d]) + (std::isnan(x[d]) ? kClose + INFINITY : 0));
      if (!(worst <= tolerance)) {
        ADD_FAILURE() << what << ": head " << h << " row " << a_first + i << " differs by " << worst << ", allowed "
                      << tolerance;
        return;
      }
    }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(float)));
}

// Opens a session and runs rows [begin, end) over n_keys keys; a failure is reported, not thrown.
Output run(Session& session, const Problem& p, int begin, int end, int n_keys) {
  Output o(p.s.hq, end - begin, p.s.d);
  const auto done = session.attend(testing::call_of(p, begin, end, n_keys, o));
  EXPECT_TRUE(done.ok()) << done.error().what;
  return o;
}
Output one_shot(const std::string& spec, const Problem& p, int threads = 1) {
  auto session = testing::open(spec, threads);
  if (!session.ok()) {
    ADD_FAILURE() << session.error().what;
    return Output(p.s.hq, p.s.n, p.s.d);
  }
  return run(*session.value(), p, 0, p.s.n, p.s.n);
}
Output run_call(const std::string& spec, const AttendCall& c, const Output& to) {
  auto session = testing::open(spec);
  EXPECT_TRUE(session.ok());
  const auto done = session.value()->attend(c);
  EXPECT_TRUE(done.ok()) << done.error().what;
  return to;
}

// Law "kept" for one call.
void expect_kept(const std::string& spec, const AttendCall& c, Output& to, const std::string& what) {
  const auto wanted = testing::kept_attention(spec, c);
  ASSERT_TRUE(wanted.ok()) << wanted.error().what;
  const Output got = run_call(spec, c, to);
  expect_rows(got, 0, wanted.value(), 0, static_cast<int>(c.q.tokens()), static_cast<int>(c.q.heads()), kClose, what);
}

// ---- the laws ----

void keep_all(const Case& c) {
  ASSERT_FALSE(c.card->keep_all.empty()) << "the card names no keep_all spec; add one, or an exemption with its reason";
  const Problem p(c.shape);
  expect_rows(one_shot(std::string(c.card->keep_all), p), 0, one_shot("dense", p), 0, p.s.n, p.s.hq, kClose, "keep_all");
}

void sparse(const Case& c) {
  if (!c.small) return;  // a preset may well keep all of so short a text
  const Problem p(c.shape);
  auto session = testing::open(c.spec);
  ASSERT_TRUE(session.ok());
  run(*session.value(), p, 0, p.s.n, p.s.n);
  EXPECT_LT(session.value()->report().prefill.density(), 0.97) << "nothing left out: the laws prove little";
  EXPECT_GT(session.value()->report().prefill.density(), 0.0);
}

// A call over a Problem as hosts and models have them: any type of cache, copies kept by the host, and what
// changes a softmax. Causal, by a mask where it has a bias.
struct Dressed {
  Dtype type;
  Precision precision;
  float softcap;
  bool sinks, kept;
  int alibi;  // 0 none, 1 the same for all heads, 2 a slope for each
  std::string text() const {
    return fmt::format("kv={} precision={} softcap={} sinks={} alibi={} packed_by={}", name_of(type),
                       precision == Precision::fast ? "fast" : "high", softcap, sinks, alibi,
                       kept ? "host" : "session");
  }
};

void expect_kept_dressed(const std::string& spec, const Problem& p, int rows, const Dressed& x) {
  const int n = p.s.n, first = n - rows;
  std::vector<unsigned char> raw[2];
  for (int t = 0; t < 2; ++t) {
    const auto& from = t == 0 ? p.k : p.v;
    const auto size = static_cast<std::int64_t>(from.size());
    std::vector<float> value;
    for (const std::uint16_t half : from) value.push_back(half_to_float(half) * 1.0009765625f);  // times 1 + 2^-10: what no narrow type holds
    raw[t].resize(static_cast<std::size_t>(bytes_of(x.type, size)));
    store_elements(raw[t].data(), x.type, 0, value.data(), size);
  }
  Output o(p.s.hq, rows, p.s.d);
  AttendCall c = testing::call_of(p, first, n, n, o);
  c.k = contiguous(raw[0].data(), x.type, 1, p.s.hkv, n, p.s.d);
  c.v = contiguous(raw[1].data(), x.type, 1, p.s.hkv, n, p.s.d);
  c.softcap = x.softcap;
  std::vector<float> sinks, slopes;
  for (int h = 0; h < p.s.hq; ++h)
    sinks.push_back(1.5f - static_cast<float>(h)), slopes.push_back(std::exp2(-static_cast<float>(h + 1)));
  if (x.sinks) c.sinks = sinks.data();
  std::vector<std::uint16_t> mask;
  if (x.alibi > 0) {
    mask.assign(static_cast<std::size_t>(rows) * static_cast<std::size_t>(n), testing::kHidden);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j <= first + i; ++j)
        mask[static_cast<std::size_t>(i * n + j)] = float_to_half(-0.03125f * static_cast<float>(first + i - j));
    c.mask = {mask.data(), n, nullptr, nullptr};
    if (x.alibi > 1) c.slopes = slopes.data();
  }
  Options options;
  options.method = spec;
  options.precision = x.precision;
  options.threads = 1;
  options.windowed = true;
  auto session = Session::open(options);
  ASSERT_TRUE(session.ok()) << session.error().what;
  PackedTensor packed_k(PackedTensor::Role::key, x.type, n, p.s.hkv, p.s.d, x.precision, {}, {},
                        session.value()->side(0));
  PackedTensor packed_v(PackedTensor::Role::value, x.type, n, p.s.hkv, p.s.d, x.precision);
  if (x.kept) {
    packed_k.write(c.k, 0, n);
    packed_v.write(c.v, 0, n);
    c.packed_k = &packed_k, c.packed_v = &packed_v;
  }
  const auto pairs = testing::attended_pairs(spec, c, x.precision);
  ASSERT_TRUE(pairs.ok()) << pairs.error().what;
  const auto done = session.value()->attend(c);
  ASSERT_TRUE(done.ok()) << done.error().what;

  const op::Attend::Args a = test::textbook_args(c);
  const bool bf16 = choose_format(detect_features(), x.type, x.precision) == PackFormat::pair16_bf16;
  const test::Textbook want = test::exact_attention(a, pairs.value());
  const test::Distance error = test::distance(o.out, o.lse, want);
  const test::Distance allowed = test::allowed_distance(a, pairs.value(), bf16, want);
  EXPECT_TRUE(error.same_shape) << "NaN or infinity";
  EXPECT_LE(error.out, allowed.out) << "out";
  EXPECT_LE(error.lse, allowed.lse) << "log-sum";
}

void kept(const Case& c) {
  const Problem p(c.shape);
  for (const int rows : {p.s.n, 130, 37, 1}) {
    Output o(p.s.hq, rows, p.s.d);
    expect_kept(c.spec, testing::call_of(p, p.s.n - rows, p.s.n, p.s.n, o), o, fmt::format("last {} rows", rows));
  }
  if (!c.first) return;
  constexpr float kCaps[] = {0.0f, 20.0f, 3.0f};
  for (const test::Levels& x : test::pairwise({5, 2, 3, 2, 2, 3}, 30 + test::seed_shift())) {
    if (p.s.d % block_size(static_cast<Dtype>(x[0]))) continue;
    const Dressed how{
        static_cast<Dtype>(x[0]), x[1] ? Precision::high : Precision::fast, kCaps[x[2]], x[3] > 0, x[4] > 0, x[5]};
    for (const int rows : {200, 1}) {
      SCOPED_TRACE(fmt::format("last {} rows, {}", rows, how.text()));
      expect_kept_dressed(c.spec, p, rows, how);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

void causal(const Case& c) {
  const Problem p(c.shape);
  const Output before = one_shot(c.spec, p);
  const auto granule = static_cast<int>(c.card->granule);
  for (const int wish : {1, 65, 131, 384, p.s.n - 1}) {
    const int from = wish / granule * granule;  // the first token that changes
    Problem changed = p;
    Rng rng(c.shape.seed + 99);
    for (int h = 0; h < p.s.hkv; ++h)
      for (std::size_t i = p.at(h, from); i < p.at(h, p.s.n - 1) + static_cast<std::size_t>(p.s.d); ++i) {
        changed.k[i] = float_to_half(static_cast<float>(4 * rng.normal()));
        changed.v[i] = float_to_half(static_cast<float>(4 * rng.normal()));
      }
    expect_rows(one_shot(c.spec, changed), 0, before, 0, from, p.s.hq, 0.0, fmt::format("tokens from {} on changed", from));
  }
}

void chunks(const Case& c) {
  const Problem p(c.shape);
  const Output whole = one_shot(c.spec, p);
  int tried = 0;
  for (const int size : {1, 37, 128, 512}) {
    if (size % c.card->granule != 0) continue;
    ++tried;
    auto session = testing::open(c.spec);
    ASSERT_TRUE(session.ok());
    if (c.card->reads_prompt_end) session.value()->announce(0, p.s.n);
    const int start = size == 1 ? p.s.n - 48 : 0;  // single steps: the tail is enough
    for (int begin = start; begin < p.s.n; begin += size) {
      const int end = std::min(begin + size, p.s.n);
      expect_rows(run(*session.value(), p, begin, end, end), 0, whole, begin, end - begin, p.s.hq, kClose,
                  fmt::format("chunks of {}, rows {}..{}", size, begin, end));
    }
  }
  EXPECT_GT(tried, 0) << "no chunk size is a multiple of the card's granule " << c.card->granule;
}

void repeat(const Case& c) {
  const Problem p(c.shape);
  std::vector<float> first;
  double pairs = 0;
  for (const int threads : {1, 1, 2, 5}) {
    auto session = testing::open(c.spec, threads, Audit::sample);
    ASSERT_TRUE(session.ok());
    Output o = run(*session.value(), p, 0, 400, 400);
    const Output rest = run(*session.value(), p, 400, p.s.n, p.s.n);
    o.out.insert(o.out.end(), rest.out.begin(), rest.out.end());
    o.out.push_back(static_cast<float>(session.value()->report().prefill.lost.mean));
    const double now = session.value()->report().prefill.attended_pairs;
    if (first.empty()) {
      first = o.out;
      pairs = now;
    }
    EXPECT_TRUE(same_bits(first, o.out)) << threads << " threads";
    EXPECT_EQ(pairs, now) << threads << " threads";
  }
}

void paged(const Case& c) {
  const Problem p(c.shape);
  Rng rng(c.shape.seed);
  const int n_cells = p.s.n + 45;
  const std::vector<std::int32_t> scattered = testing::shuffled(n_cells, rng);
  std::vector<std::int32_t> rotated;  // pages of 16, the last ones first
  for (int t = 0; t < p.s.n; ++t) rotated.push_back((t + 208) % ((p.s.n + 15) / 16 * 16));
  std::vector<std::int32_t> shifted;  // in order, from a cell that is no multiple of anything
  for (int t = 0; t < p.s.n; ++t) shifted.push_back(t + 37);
  const Output whole = one_shot(c.spec, p);
  for (const auto& cells : {std::vector<std::int32_t>(scattered.begin(), scattered.begin() + p.s.n), rotated, shifted}) {
    testing::MixedCall m({{&p, 0, cells}}, n_cells);
    run_call(c.spec, m.call, m.output);
    expect_rows(m.output, 0, whole, 0, p.s.n, p.s.hq, kClose,
                fmt::format("token 0 in cell {}", cells[0]));
  }
}

void batch(const Case& c) {
  std::vector<Problem> all;
  int total = 0;
  const int lengths[] = {c.shape.n, 1, 300, 33};
  const int firsts[] = {256, 0, 299, 0};  // a second chunk, a first token, a decode step, a short prompt
  for (int i = 0; i < 4; ++i) {
    Shape s = c.shape;
    s.n = lengths[i];
    s.seed += 10 + static_cast<std::uint64_t>(i);
    all.emplace_back(s);
    total += s.n;
  }
  Rng rng(c.shape.seed);
  const auto cells = testing::shuffled(total + 19, rng);
  std::vector<testing::Slot> slots;
  int at = 0;
  for (int i = 0; i < 4; ++i) {
    slots.push_back({&all[static_cast<std::size_t>(i)], firsts[i], {cells.begin() + at, cells.begin() + at + lengths[i]}});
    at += lengths[i];
  }
  testing::MixedCall m(slots, total + 19);
  run_call(c.spec, m.call, m.output);
  int row = 0;
  for (int i = 0; i < 4; ++i) {
    auto session = testing::open(c.spec);
    ASSERT_TRUE(session.ok());
    const int rows = lengths[i] - firsts[i];
    const Output alone = run(*session.value(), all[static_cast<std::size_t>(i)], firsts[i], lengths[i], lengths[i]);
    expect_rows(alone, 0, m.output, row, rows, c.shape.hq, kClose, fmt::format("sequence {} of 4, rows from {}", i, row));
    row += rows;
  }
}

void head_slice(const Case& c) {
  Shape s = c.shape;
  s.hq = 4;
  s.hkv = 2;
  const Problem p(s);
  const Output all = one_shot(c.spec, p);
  for (int kv = 0; kv < 2; ++kv) {
    Output o(2, s.n, s.d);
    AttendCall call = testing::call_of(p, 0, s.n, s.n, o);
    call.q.n[1] = 2;
    call.k.n[1] = call.v.n[1] = 1;
    call.out.n[1] = 2;
    call.q.data = call.q.row(0, 2 * kv, 0);
    call.k.data = call.k.row(0, kv, 0);
    call.v.data = call.v.row(0, kv, 0);
    run_call(c.spec, call, o);
    expect_rows(o, 0, all, 0, s.n, 2, kClose, fmt::format("KV head {} alone", kv), 2 * kv);
  }
}

void residues(const Case& c) {
  if (!c.first) return;  // the shape is of no matter here, and presets keep nearly all of so short a text
  for (int n = 257; n <= 384; n += test::kThin) {
    Shape s{2, 1, n, 16, c.shape.seed + static_cast<std::uint64_t>(n)};
    const Problem p(s);
    Output o(s.hq, n, s.d);
    expect_kept(c.spec, testing::call_of(p, 0, n, n, o), o, fmt::format("n={}", n));
    if (::testing::Test::HasFailure()) return;
  }
}

void gqa(const Case& c) {
  Shape s = c.shape;
  s.hq = 4;
  s.hkv = 2;
  const Problem grouped(s);
  Problem own = grouped;
  own.s.hkv = 4;
  own.k.clear();
  own.v.clear();
  const auto head = static_cast<std::ptrdiff_t>(s.n) * s.d;
  for (int h = 0; h < 4; ++h) {
    own.k.insert(own.k.end(), grouped.k.begin() + h / 2 * head, grouped.k.begin() + (h / 2 + 1) * head);
    own.v.insert(own.v.end(), grouped.v.begin() + h / 2 * head, grouped.v.begin() + (h / 2 + 1) * head);
  }
  expect_rows(one_shot(c.spec, own), 0, one_shot(c.spec, grouped), 0, s.n, s.hq, kClose, "KV heads repeated");
}

// Every parameter with its bounds, as numbers.
struct Bounds final : ParamVisitor {
  struct One {
    std::string name, below, above, lo, hi;
  };
  std::vector<One> all;
  void operator()(std::int64_t&, std::string_view name, std::int64_t lo, std::int64_t hi, std::string_view) override {
    all.push_back({std::string(name), fmt::format("{}", lo - 1), fmt::format("{}", hi + 1), fmt::format("{}", lo), fmt::format("{}", hi)});
  }
  void operator()(double&, std::string_view name, double lo, double hi, std::string_view, bool open_low) override {
    all.push_back({std::string(name), fmt::format("{:g}", open_low ? lo : lo - 0.5), fmt::format("{:g}", hi * 2 + 1),
                   fmt::format("{:g}", lo), fmt::format("{:g}", hi)});
  }
  void operator()(bool&, std::string_view name, std::string_view) override {
    all.push_back({std::string(name), "perhaps", "2", "on", "off"});
  }
  void operator()(std::string&, std::string_view name, std::string_view allowed, std::string_view) override {
    if (!allowed.empty()) all.push_back({std::string(name), "perhaps", "2", std::string(allowed), ""});
  }
};

// A spec of this method alone, with something before it if it is a wrapper: the base of its small spec.
std::string spec_of(const Card& card, const std::string& rest) {
  const std::string small(card.small);
  const std::size_t plus = small.rfind('+');
  return fmt::format("{}{}{}", plus == std::string::npos ? "" : small.substr(0, plus + 1), card.slug, rest);
}

void params(const Case& c) {
  auto method = make_method(c.spec);
  ASSERT_TRUE(method.ok()) << method.error().what;
  Bounds bounds;
  method.value()->params(bounds);
  for (const auto& b : bounds.all)
    for (const std::string& value : {b.below, b.above, std::string("x"), std::string("1e999"), std::string("nan")}) {
      const std::string spec = spec_of(*c.card, fmt::format(":{}={}", b.name, value));
      const auto made = make_method(spec);
      ASSERT_FALSE(made.ok()) << spec << " was taken";
      const std::string& what = made.error().what;
      for (const auto& part : {fmt::format("{}.{}", c.card->slug, b.name), value, b.lo, b.hi})
        EXPECT_NE(what.find(part), std::string::npos) << spec << ": '" << what << "' does not name " << part;
    }
  const auto again = make_method(canonical_spec(*method.value()));
  ASSERT_TRUE(again.ok()) << again.error().what;
  EXPECT_EQ(canonical_spec(*again.value()), canonical_spec(*method.value()));
}

void sizes(const Case& c) {
  const auto check = [&](int rows, int keys) {
    Shape s = c.shape;
    s.n = std::max({rows, keys, 1});
    const Problem p(s);
    Output o(s.hq, rows, s.d);
    AttendCall call = testing::call_of(p, 0, rows, keys, o);
    expect_kept(c.spec, call, o, fmt::format("{} rows, {} keys", rows, keys));
  };
  for (const auto& [rows, keys] : {std::pair{0, 0}, {0, 5}, {1, 0}, {7, 0}, {1, 1}, {2, 2}, {15, 15}, {31, 31}, {33, 33}, {5, 3},
                                   {2, 1}, {200, 70}, {129, 128}, {70, 300}, {63, 300}, {1, 129}})
    check(rows, keys);
}

void empty_rows(const Case& c) {
  const Problem p(c.shape);
  std::vector<std::int32_t> cells;
  for (int t = 0; t < p.s.n; ++t) cells.push_back(t);
  testing::MixedCall m({{&p, 0, cells}}, p.s.n);
  for (const int row : {0, 1, 99, 300, p.s.n - 1}) {
    std::fill_n(m.mask.begin() + static_cast<std::ptrdiff_t>(row) * p.s.n, p.s.n, testing::kHidden);
    m.row_cell[static_cast<std::size_t>(row)] = -1;
  }
  expect_kept(c.spec, m.call, m.output, "rows 0 1 99 300 and the last hidden");
  for (int h = 0; h < p.s.hq; ++h)
    for (const int row : {0, 1, 99, 300, p.s.n - 1}) {
      EXPECT_EQ(m.output.log_sum(h, row), -testing::kInfinity) << "row " << row;
      for (int d = 0; d < p.s.d; ++d) EXPECT_EQ(m.output.row(h, row)[d], 0.0f) << "row " << row;
    }
}

void lost(const Case& c) {
  const Problem p(c.shape);
  const Output exact = one_shot("dense", p);
  auto session = testing::open(c.spec, 1, Audit::full);
  ASSERT_TRUE(session.ok());
  const Output some = run(*session.value(), p, 0, p.s.n, p.s.n);
  for (std::size_t i = 0; i < some.lse.size(); ++i) ASSERT_LE(some.lse[i], exact.lse[i] + kClose) << "entry " << i;
  const Report r = session.value()->report();
  EXPECT_EQ(r.prefill.lost.rows, static_cast<std::int64_t>(p.s.hq) * (p.s.n - kMinAuditedKeys + 1));
  EXPECT_GE(r.prefill.lost.mean, 0.0);
  EXPECT_LE(r.prefill.lost.mean, r.prefill.lost.max);
  EXPECT_LE(r.prefill.lost.p95, r.prefill.lost.max);
  EXPECT_LE(r.prefill.lost.max, 1.0);
  double mean = 0;  // from the log-sums themselves
  for (int h = 0; h < p.s.hq; ++h)
    for (int i = kMinAuditedKeys - 1; i < p.s.n; ++i) mean += lost_mass(some.log_sum(h, i), exact.log_sum(h, i));
  EXPECT_NEAR(r.prefill.lost.mean, mean / static_cast<double>(r.prefill.lost.rows), 1e-4);
  if (r.prefill.density() < 1.0) { EXPECT_GT(r.prefill.lost.mean, 0.0); }
  else EXPECT_LE(r.prefill.lost.max, kClose);  // two log-sums of the same keys in another order
}

void needle(const Case& c) {
  if (!c.first) return;
  for (const int place : {0, 60, 255, 400}) {
    Shape s = c.shape;
    s.d = 32;
    Problem p(s);
    for (auto& x : p.q) x *= 0.1f;
    for (int h = 0; h < s.hkv; ++h)  // k . q = 80, scaled 14: far above the rest together
      for (int d = 0; d < s.d; ++d) p.k[p.at(h, place) + static_cast<std::size_t>(d)] = float_to_half(d % 2 ? 2.0f : -2.0f);
    for (int h = 0; h < s.hq; ++h)
      for (int t = s.n - 64; t < s.n; ++t)
        for (int d = 0; d < s.d; ++d) p.q[p.at(h, t) + static_cast<std::size_t>(d)] = d % 2 ? 1.25f : -1.25f;
    const Output got = one_shot(c.spec, p), exact = one_shot("dense", p);
    expect_rows(got, s.n - 1, exact, s.n - 1, 1, s.hq, 0.05, fmt::format("needle at {}", place));
  }
}

using LawTest = void (*)(const Case&);
constexpr std::pair<std::string_view, LawTest> kTests[] = {
    {"keep_all", keep_all}, {"sparse", sparse},         {"kept", kept},         {"causal", causal},
    {"chunks", chunks},     {"repeat", repeat},         {"paged", paged},       {"batch", batch},
    {"head_slice", head_slice}, {"residues", residues}, {"gqa", gqa},           {"params", params},
    {"sizes", sizes},       {"empty_rows", empty_rows}, {"lost", lost},         {"needle", needle},
};

LawTest test_of(std::string_view law) {
  for (const auto& [name, test] : kTests)
    if (name == law) return test;
  return nullptr;
}

std::vector<Case> cases_of(const Card& card) {
  std::vector<Case> cases;
  if (!card.small.empty())
    for (const Shape& s : {Shape{2, 1, 600, 16, 1}, Shape{3, 3, 577, 32, 2}, Shape{4, 2, 640, 24, 3}})
      if (cases.empty() || test::kThin == 1) cases.push_back({&card, std::string(card.small), s, true, cases.empty()});
  for (const char* preset : {"auto", "paper"})
    cases.push_back({&card, spec_of(card, fmt::format(":preset={}", preset)), Shape{2, 1, 611, 16, 4}, false, false});
  return cases;
}

// One test per (method, law), named slug_law, hyphens as underscores: a filter takes '-' for "not".
std::string test_name(const Card& card, const Law& law) {
  std::string name = fmt::format("{}_{}", card.slug, law.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class MethodLaw : public ::testing::Test {
 public:
  MethodLaw(const Card& card, const Law& law) : card_(card), law_(law) {}
  void TestBody() override {
    for (const Exemption& e : card_.exemptions)
      if (e.law == law_.name) GTEST_SKIP() << card_.slug << " is exempt from " << law_.name << ": " << e.reason;
    const LawTest test = test_of(law_.name);
    ASSERT_NE(test, nullptr) << "no test of this name";
    ASSERT_FALSE(card_.small.empty()) << "the card of " << card_.slug << " names no small spec: say with which "
                                      << "parameters it leaves something out at 512 tokens";
    for (const Case& c : cases_of(card_)) {
      SCOPED_TRACE(fmt::format("law {}: {}\nagain: lacuna-tests --gtest_filter=MethodLaws.{}", law_.name, c.text(),
                               test_name(card_, law_)));
      test(c);
      if (HasFailure()) return;
    }
  }

 private:
  const Card& card_;
  const Law& law_;
};

const bool kRegistered = [] {
  for (const auto& entry : all_methods())
    for (const Law& law : kLaws)
      if (law.of == Of::method)
        ::testing::RegisterTest("MethodLaws", test_name(*entry.card, law).c_str(), nullptr, nullptr,
                                __FILE__, __LINE__, [&entry, &law]() -> ::testing::Test* {
                                  return new MethodLaw(*entry.card, law);
                                });
  return true;
}();

}  // namespace
}  // namespace lacuna::conformance
