// SPDX-License-Identifier: Apache-2.0
// Walks the kernel lists: every kernel this machine can run, under every law of docs/laws.md that
// speaks of kernels. A new kernel is tested by its line in kernel/list/ alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

#include "base/machine.h"
#include "conformance/laws.h"
#include "engine/packed_tensor.h"
#include "support/attend_case.h"
#include "support/pairwise.h"
#include "support/thin.h"

namespace lacuna::conformance {
namespace {

using test::AttendCase;
using test::AttendResult;
using test::AttendSpec;
using test::Gather;
using test::Levels;
using test::Lists;
using test::MaskKind;
using AttendKernel = kernel::Kernel<op::Attend>;

constexpr Precision kPrecisions[] = {Precision::fast, Precision::high};

// Scratch of one worker with guards behind it; garbage inside, as the contract allows.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_((bytes + 63) & ~std::size_t{63}) {
    std::memset(storage_.grow(bytes_ + kGuard), 0xff, bytes_ + kGuard);  // every float a NaN
    std::memset(static_cast<char*>(storage_.data()) + bytes_, 0x5a, kGuard);
  }
  void* data() const { return storage_.data(); }
  bool intact() const {
    const auto* p = static_cast<const unsigned char*>(storage_.data()) + bytes_;
    return std::all_of(p, p + kGuard, [](unsigned char x) { return x == 0x5a; });
  }

 private:
  static constexpr std::size_t kGuard = 1024;
  std::size_t bytes_;
  Buffer storage_;
};

// Runs a kernel's tasks in a random order, each on a random worker, one at a time.
template <class Op>
void run_shuffled(const kernel::Kernel<Op>& k, const typename Op::Args& args, int workers, Rng& rng) {
  std::vector<Guarded> scratch;
  for (int w = 0; w < workers; ++w) scratch.emplace_back(k.scratch_bytes ? k.scratch_bytes(args) : 0);
  Guarded shared(k.shared_bytes ? k.shared_bytes(args, workers) : 0);
  for (int phase = 0; phase < k.phases; ++phase) {
    std::vector<int> order(static_cast<std::size_t>(k.tasks(args, phase, workers)));
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    for (const int task : order)
      k.run(args, phase, task, workers, scratch[rng.below(static_cast<std::uint64_t>(workers))].data(), shared.data());
  }
  for (const auto& s : scratch) EXPECT_TRUE(s.intact()) << k.name << " wrote behind its scratch";
  EXPECT_TRUE(shared.intact()) << k.name << " wrote behind its shared memory";
}

// The pairwise list. Level tables first; one case is a Levels, one level per table.
constexpr int kDims[] = {16, 24, 40, 64, 72, 80, 96, 112, 128, 192, 200, 256};
constexpr int kOtherDims[] = {0, 16, 136};  // dv; 0 = as dk
constexpr std::pair<int, int> kHeads[] = {{1, 1}, {2, 1}, {8, 2}, {5, 5}, {9, 1}};
constexpr int kRows[] = {1, 2, 5, 8, 17, 64, 65};
constexpr std::int64_t kCells[] = {1, 31, 32, 33, 63, 96, 127, 200, 389};
constexpr int kBlocks[] = {1, 16, 33, 64, 128};
constexpr float kCaps[] = {0.0f, 20.0f, 3.0f};
constexpr float kSpreads[] = {1.0f, 4.0f, 40.0f};

// Types of K and V: each alone, and with a quantised one others beside it.
constexpr std::pair<Dtype, Dtype> kTypes[] = {
    {Dtype::f32, Dtype::f32},   {Dtype::f16, Dtype::f16},   {Dtype::bf16, Dtype::bf16}, {Dtype::q8_0, Dtype::q8_0},
    {Dtype::q4_0, Dtype::q4_0}, {Dtype::q8_0, Dtype::q4_0}, {Dtype::f16, Dtype::q8_0},  {Dtype::q4_0, Dtype::f32}};
constexpr int kTypeCount = static_cast<int>(std::size(kTypes));

// Types by number; quantised ones are every other time read where they lie.
void set_types(AttendSpec& s, int i) {
  s.kv = kTypes[i % kTypeCount].first;
  s.v = kTypes[i % kTypeCount].second;
  s.in_place = s.seed % 2;
  s.fit_types();
}

std::vector<AttendSpec> attend_specs() {
  const std::vector<int> counts = {kTypeCount, 12, 3, 5, 7, 9, 5, 5, 3, 2, 3, 3, 3, 2, 2, 3, 2, 3};
  std::vector<AttendSpec> all;
  constexpr std::size_t kInFull = 5;  // in the long run: every type with every dk, dv, heads and number of rows
  for (const Levels& x : test::full_run() ? test::product(counts, kInFull, 20 + test::seed_shift()) : test::pairwise(counts, 20)) {
    AttendSpec s;
    s.dk = kDims[x[1]];
    s.dv = kOtherDims[x[2]] ? kOtherDims[x[2]] : s.dk;
    s.hq = kHeads[x[3]].first;
    s.hkv = kHeads[x[3]].second;
    s.n_rows = kRows[x[4]];
    s.n_cells = kCells[x[5]];
    s.block_q = kBlocks[x[6]];
    s.mask = static_cast<MaskKind>(x[7]);
    s.lists = static_cast<Lists>(x[8]);
    s.sinks = x[9];
    s.softcap = kCaps[x[10]];
    s.bias = x[11] > 0;
    s.slopes = x[11] > 1;
    s.resume = x[12] > 0;
    s.normalise = x[12] != 2;
    s.lse = x[13];
    s.nan_hidden = x[14];
    s.spread = kSpreads[x[15]];
    s.token_major = x[16];
    s.gather = static_cast<Gather>(x[17]);
    s.seed = 100 + all.size() + test::seed_shift();
    set_types(s, x[0]);
    all.push_back(s);
  }
  return all;
}

using test::allowed_error;

bool takes(const AttendKernel& k, AttendCase& c, Precision precision, int workers = 1) {
  AttendResult r;
  const op::Attend::Args a = c.args(format_for(k, c.s.cache()), precision, r);
  return !k.why_not || !k.why_not(a, workers);
}

// ---- laws of op attend; each returns how many cases the kernel took ----

// LACUNA_CASE=n runs one case of the list alone.
int bound(const AttendKernel& k) {
  const char* only = std::getenv("LACUNA_CASE");
  int taken = 0, at = 0;
  for (const AttendSpec& s : attend_specs()) {
    if (only ? std::atoi(only) != at++ : at++ % test::kThin != 0) continue;
    SCOPED_TRACE(fmt::format("again: LACUNA_CASE={} lacuna-tests --gtest_filter=KernelLaws.*bound", at - 1));
    taken += test::check_attend(k, s, {Precision::fast, Precision::high});
    if (::testing::Test::HasFailure()) break;
  }
  return taken;
}

// Guards lie around out, lse and scratch in check_attend and run_shuffled; here the state and the
// smallest calls: none of the optional outputs, and no rows at all.
int edges(const AttendKernel& k) {
  int taken = 0;
  constexpr std::pair<int, Gather> kCases[] = {
      {1, Gather::none}, {3, Gather::some}, {40, Gather::none}, {1, Gather::all}, {40, Gather::some}};
  for (const auto& [rows, gather] : kCases) {
    AttendCase c({.hq = 4, .hkv = 2, .dk = 48, .dv = 24, .n_rows = rows, .n_cells = 75, .block_q = 16, .gather = gather,
                  .resume = true});
    if (!takes(k, c, Precision::fast)) continue;
    ++taken;
    AttendResult r;
    op::Attend::Args a = c.args(format_for(k, c.s.cache()), Precision::fast, r);
    a.normalise = false;
    constexpr std::size_t kGuard = 64;
    const std::size_t n = r.m.size(), wide = r.acc.size();
    const float mark = std::bit_cast<float>(AttendResult::kUntouched);
    std::vector<float> m(n + 2 * kGuard, mark), l(m), acc(wide + 2 * kGuard, mark);
    std::copy(r.m.begin(), r.m.end(), m.begin() + kGuard);
    std::copy(r.l.begin(), r.l.end(), l.begin() + kGuard);
    std::copy(r.acc.begin(), r.acc.end(), acc.begin() + kGuard);
    a.resume = {m.data() + kGuard, l.data() + kGuard, acc.data() + kGuard};
    Rng rng(5);
    run_shuffled(k, a, 3, rng);
    const auto untouched = [&](const std::vector<float>& x, std::size_t used) {
      for (std::size_t i = 0; i < x.size(); ++i)
        if ((i < kGuard || i >= kGuard + used) && std::bit_cast<std::uint32_t>(x[i]) != AttendResult::kUntouched) return false;
      return true;
    };
    EXPECT_TRUE(untouched(m, n) && untouched(l, n) && untouched(acc, wide)) << "state: " << c.s.line();
    EXPECT_TRUE(untouched(r.out, 0) && untouched(r.lse, 0)) << "out or lse written without normalise: " << c.s.line();
  }
  return taken;
}

int order(const AttendKernel& k) {
  int taken = 0;
  Rng rng(11);
  const auto specs = attend_specs();
  for (std::size_t i = 0; i < specs.size(); i += 4 * test::kThin)
    for (const Precision p : kPrecisions) {
      AttendCase c(specs[i]);
      if (!takes(k, c, p, 1) || !takes(k, c, p, 2) || !takes(k, c, p, 5)) continue;
      ++taken;
      const AttendResult want = c.reference();
      const auto bound = allowed_error(k, c, want);
      for (const int workers : {1, 2, 5}) {
        AttendResult a, b;
        run_shuffled(k, c.args(format_for(k, c.s.cache()), p, a), workers, rng);
        run_shuffled(k, c.args(format_for(k, c.s.cache()), p, b), workers, rng);
        EXPECT_TRUE(a.same_bits(b)) << workers << " workers: " << c.s.line();
        const auto error = c.distance(a, want);
        EXPECT_TRUE(error.same_shape && error.out <= bound.out && error.lse <= bound.lse)
            << workers << " workers, out off by " << error.out << " (allowed " << bound.out << "), lse by " << error.lse
            << " (allowed " << bound.lse << "): " << c.s.line();
        if (::testing::Test::HasFailure()) return taken;
      }
    }
  return taken;
}

// The runs of `all` whose tile falls to `part` of three, as a selection of its own.
struct PartRuns {
  std::vector<std::int32_t> row_ptr{};
  std::vector<TileRun> runs;
  PartRuns(const TileRuns& all, int part) {
    for (int list = 0; list < all.heads; ++list) {
      row_ptr.push_back(static_cast<std::int32_t>(runs.size()));
      for (int b = 0; b < all.n_blocks(); ++b) {
        const std::int32_t* p = all.row_ptr + static_cast<std::ptrdiff_t>(list) * (all.n_blocks() + 1) + b;
        for (std::int32_t r = p[0]; r < p[1]; ++r)
          for (std::int32_t t = all.runs[r].begin; t < all.runs[r].end; ++t)
            if ((t * 7 + b) % 3 == part) runs.push_back({t, t + 1, all.runs[r].bits});
        row_ptr.push_back(static_cast<std::int32_t>(runs.size()));
      }
    }
  }
};

int merge(const AttendKernel& k) {
  int taken = 0;
  Rng rng(3);
  const int orders[3][3] = {{0, 1, 2}, {2, 0, 1}, {1, 2, 0}};
  for (int i = 0; i < 24; i += test::kThin) {
    AttendSpec s{.hq = 4, .hkv = 2, .dk = kDims[i % 12], .dv = kDims[(i * 5) % 12], .n_rows = kRows[i % 7],
                 .n_cells = 40 + 37 * i, .block_q = kBlocks[i % 5], .mask = static_cast<MaskKind>(i % 4),
                 .lists = static_cast<Lists>(i / 2 % 3),
                 .gather = static_cast<Gather>(i / 6 % 3)};
    s.seed = static_cast<std::uint64_t>(i) + 1;
    set_types(s, i);
    AttendCase joint_case(s);
    const AttendResult want = joint_case.reference();
    AttendSpec with_state = s;
    with_state.resume = true;
    AttendCase c(with_state);
    for (const Precision p : kPrecisions) {
      if (!takes(k, c, p) || !takes(k, joint_case, p)) continue;
      ++taken;
      const auto bound = allowed_error(k, joint_case, want);
      // Through the state, from a fresh one; the last call normalises.
      AttendResult r;
      op::Attend::Args a = c.args(format_for(k, c.s.cache()), p, r);
      std::fill(r.m.begin(), r.m.end(), -INFINITY);
      std::fill(r.l.begin(), r.l.end(), 0.0f);
      std::fill(r.acc.begin(), r.acc.end(), 0.0f);
      const TileRuns whole = a.runs;
      for (int step = 0; step < 3; ++step) {
        const PartRuns part(whole, orders[i % 3][step]);
        a.runs.row_ptr = part.row_ptr.data();
        a.runs.runs = part.runs.data();
        a.normalise = step == 2;
        run_shuffled(k, a, 2, rng);
      }
      AttendResult bare = r;  // the joint result has no state to compare
      bare.m.clear();
      bare.l.clear();
      bare.acc.clear();
      const auto error = joint_case.distance(bare, want);
      EXPECT_TRUE(error.same_shape && error.out <= bound.out && error.lse <= bound.lse)
          << "resumed three times: out off by " << error.out << " (allowed " << bound.out << "), lse by " << error.lse
          << ": " << s.line();

      // By log-sums: out = sum_p exp(lse_p - lse) out_p.
      const std::size_t rows = static_cast<std::size_t>(s.hq) * s.n_rows, dv = static_cast<std::size_t>(s.dv);
      std::vector<double> lse(rows * 3), part_out(rows * 3 * dv);
      op::Attend::Args b;
      for (int part = 0; part < 3; ++part) {
        AttendResult one;
        b = joint_case.args(format_for(k, s.cache()), p, one);
        const PartRuns runs(whole, part);
        b.runs.row_ptr = runs.row_ptr.data();
        b.runs.runs = runs.runs.data();
        run_shuffled(k, b, 1, rng);
        for (std::size_t row = 0; row < rows; ++row) {
          const auto h = static_cast<std::int64_t>(row) / s.n_rows, n = static_cast<std::int64_t>(row) % s.n_rows;
          lse[row * 3 + static_cast<std::size_t>(part)] = b.lse[row];
          for (std::size_t d = 0; d < dv; ++d)
            part_out[(row * 3 + static_cast<std::size_t>(part)) * dv + d] = b.out[h * b.out_head + n * b.out_row + static_cast<std::int64_t>(d)];
        }
      }
      AttendResult unused = want;
      const op::Attend::Args at = joint_case.args(PackFormat::none, p, unused);  // for the strides alone
      for (std::size_t row = 0; row < rows; ++row) {
        const double* x = &lse[row * 3];
        const double top = std::max({x[0], x[1], x[2]});
        if (top == -INFINITY) continue;
        const double sum = std::exp(x[0] - top) + std::exp(x[1] - top) + std::exp(x[2] - top);
        const std::size_t gap = static_cast<std::size_t>(at.out - unused.out.data());
        const std::size_t to = gap + (row / static_cast<std::size_t>(s.n_rows)) * static_cast<std::size_t>(at.out_head) +
                               (row % static_cast<std::size_t>(s.n_rows)) * static_cast<std::size_t>(at.out_row);
        for (std::size_t d = 0; d < dv; ++d) {
          double merged = 0;
          for (std::size_t part = 0; part < 3; ++part) merged += std::exp(x[part] - top) / sum * part_out[(row * 3 + part) * dv + d];
          if (std::abs(merged - want.out[to + d]) > bound.out) {
            ADD_FAILURE() << "merged by log-sums: off by " << std::abs(merged - want.out[to + d]) << ": " << s.line();
            return taken;
          }
        }
      }
      if (::testing::Test::HasFailure()) return taken;
    }
  }
  return taken;
}

int nonfinite(const AttendKernel& k) {
  int taken = 0;
  const float values[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 48; i += test::kThin == 1 ? 1 : 5) {  // 5: all types and values still occur
    AttendSpec s{.hq = 4, .hkv = 2, .dk = 32 + 8 * (i % 3), .dv = 40, .n_rows = i % 2 ? 1 + i : 2, .n_cells = 150,
                 .block_q = 16, .mask = i % 5 ? MaskKind::causal : MaskKind::random,
                 .gather = static_cast<Gather>(i / 3 % 3)};
    s.seed = static_cast<std::uint64_t>(i) + 7;
    set_types(s, i);
    const float bad = values[i % 3];
    for (int where = 0; where < 3; ++where) {  // 0 q, 1 k, 2 v
      AttendCase c(s);
      if (!takes(k, c, Precision::fast)) continue;
      ++taken;
      Rng rng(s.seed);
      AttendResult clean, dirty;
      run_shuffled(k, c.args(format_for(k, c.s.cache()), Precision::fast, clean), 1, rng);
      op::Attend::Args a = c.args(PackFormat::none, Precision::fast, dirty);
      const int head = i % s.hq, row = s.n_rows - 1 - i % std::min(s.n_rows, 3), channel = (i * 3) % 32;
      const std::int64_t cell = s.n_cells - 1 - (i * 5) % (s.n_rows + 20);
      const int kv_head = head / 2;
      if (where == 0) const_cast<float*>(a.q)[head * a.q_head + row * a.q_row + channel] = bad;
      if (where == 1) test::store_as(const_cast<void*>(a.k), s.kv, kv_head * a.k_head + cell * a.k_cell + channel, bad);
      if (where == 2) test::store_as(const_cast<void*>(a.v), s.v_type(), kv_head * a.v_head + cell * a.v_cell + channel, bad);
      a = c.args(format_for(k, c.s.cache()), Precision::fast, dirty);  // packs again
      run_shuffled(k, a, 1, rng);
      const float* before = clean.out.data() + (a.out - dirty.out.data());
      for (int h = 0; h < s.hq; ++h)
        for (int n = 0; n < s.n_rows; ++n) {
          bool any = false;
          for (std::int64_t x = 0; x < s.n_cells; ++x) any = any || c.sees(h, n, x);
          const bool group = h / 2 == kv_head;
          const bool hit = where == 0 ? h == head && n == row && any : group && c.sees(h, n, cell);
          const bool unspecified = where == 2 && group && c.reads(h, n / s.block_q, cell) && !hit;
          if (unspecified) continue;
          const float* x = a.out + h * a.out_head + n * a.out_row;
          const float* y = before + h * a.out_head + n * a.out_row;
          if (!hit) {
            EXPECT_EQ(0, std::memcmp(x, y, sizeof(float) * static_cast<std::size_t>(s.dv)))
                << "a row that does not see it changed: head " << h << " row " << n << ", " << bad << " in "
                << "qkv"[where] << ": " << s.line();
          } else if (where == 2) {
            EXPECT_FALSE(std::isfinite(x[channel])) << "lost: head " << h << " row " << n << ", " << bad << " in v: " << s.line();
          } else if (std::isnan(bad)) {
            EXPECT_TRUE(std::isnan(x[0]) && std::isnan(x[s.dv - 1]))
                << "lost: head " << h << " row " << n << ", NaN in " << "qk"[where] << ": " << s.line();
          }
        }
      if (::testing::Test::HasFailure()) return taken;
    }
  }
  return taken;
}

using KernelTest = int (*)(const AttendKernel&);
constexpr std::pair<std::string_view, KernelTest> kTests[] = {
    {"bound", bound}, {"edges", edges}, {"order", order}, {"merge", merge}, {"nonfinite", nonfinite}};

class KernelLaw : public ::testing::Test {
 public:
  KernelLaw(const AttendKernel& k, const Law& law) : kernel_(k), law_(law) {}
  void TestBody() override {
    const std::string missing = missing_features(detect_features(), kernel_.needs);
    if (!missing.empty()) GTEST_SKIP() << kernel_.name << ": this machine lacks what it " << missing;
    SCOPED_TRACE(fmt::format("law {} of kernel {}", law_.name, kernel_.name));
    for (const auto& [name, test] : kTests)
      if (name == law_.name) {
        const int taken = test(kernel_);
        EXPECT_GT(taken, 0) << kernel_.name << " refused every case of this law";
        RecordProperty("cases", taken);
        return;
      }
    FAIL() << "no test of this name";
  }

 private:
  const AttendKernel& kernel_;
  const Law& law_;
};

const bool kRegistered = [] {
  for (const auto* k : kernel::attend_list)
    for (const Law& law : kLaws)
      if (law.of == Of::kernel) {
        std::string name = k->name;
        std::replace(name.begin(), name.end(), '.', '_');
        ::testing::RegisterTest("KernelLaws", fmt::format("{}_{}", name, law.name).c_str(), nullptr, nullptr, __FILE__,
                                __LINE__, [k, &law]() -> ::testing::Test* { return new KernelLaw(*k, law); });
      }
  return true;
}();

}  // namespace
}  // namespace lacuna::conformance
