// SPDX-License-Identifier: Apache-2.0
// SpargeAttn's choice on the GPU against what method spargeattn is made of: op alike's reference, means in double, and
// the budget of block/budget/guarded_blocks.h. The lists must be the same, but for blocks whose sum of mass meets the
// bound within rounding; no case has a block whose similarity does.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>

#include "block/budget/guarded_blocks.h"
#include "choose_case.h"
#include "kernel/cuda/estimate/spargeattn.h"
#include "op/alike_ref.h"
#include "support/pairwise.h"

namespace lacuna {
namespace {

using kernel::cuda::ListError;
using kernel::cuda::Prefill;
using kernel::cuda::SpargeAttn;
using test::ChooseCase;
using test::ChooseSpec;
using test::DeviceArray;
using test::GotLists;
using test::must;

struct SpargeSpec {
  ChooseSpec s;
  int row_block = 128;
  float similarity = 0.3f;
  bool smooth = true;
  std::string line() const { return fmt::format("{} row_block={} similarity={} smooth={}", s.line(), row_block, similarity, smooth); }
};

// Blocks of 128 tokens point one way or anywhere; keys have a mean besides.
ChooseCase topical(const SpargeSpec& x) {
  ChooseCase c(x.s);
  const ChooseSpec& s = x.s;
  Rng rng(s.seed + 99);
  for (auto [t, heads, n, mean] : {std::tuple{&c.q, s.hq, s.nq, 0.0f}, {&c.k, s.hkv, s.nk, 1.0f}})
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < heads; ++h)
        for (int block = 0; block * 128 < n; ++block) {
          const bool alike = rng.below(4) != 0;
          std::vector<float> way(static_cast<std::size_t>(s.dk));
          for (float& w : way) w = alike ? 1.6f * static_cast<float>(rng.normal()) : 0.0f;
          for (int i = block * 128; i < std::min(n, (block + 1) * 128); ++i)
            for (int d = 0; d < s.dk; ++d) t->at(b, h, i, d) = t->of(t->number(b, h, i, d) + way[static_cast<std::size_t>(d)] + mean);
        }
  return c;
}

class OnDevice {
 public:
  OnDevice(const ChooseCase& c, const SpargeSpec& x) : q_(c.q.data), k_(c.k.data) {
    const ChooseSpec& s = c.s;
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk;
    a.q = test::tensor_of(c.q, q_.data()), a.k = test::tensor_of(c.k, k_.data());
    a.scale = c.scale(), a.row_block = x.row_block, a.block = s.block, a.mass = static_cast<float>(s.mass);
    a.similarity = x.similarity, a.sink = s.sink, a.smooth = x.smooth;
    rows_ = (s.nq + x.row_block - 1) / x.row_block;
    row_ptr_ = std::make_unique<DeviceArray<std::int32_t>>(static_cast<std::size_t>(s.batch) * s.hq * (rows_ + 1));
    columns_ = std::make_unique<DeviceArray<std::int32_t>>(static_cast<std::size_t>(spargeattn_entries(a)));
    room_ = std::make_unique<DeviceArray<char>>(static_cast<std::size_t>(spargeattn_room(a)));
    a.row_ptr = row_ptr_->data(), a.columns = columns_->data(), a.room = room_->data();
    poison();
  }
  void poison() {
    must(cudaMemset(row_ptr_->data(), 0xff, row_ptr_->size() * 4));
    must(cudaMemset(columns_->data(), 0xff, columns_->size() * 4));
    must(cudaMemset(room_->data(), 0xff, room_->size()));
  }
  void run() {
    ASSERT_EQ(spargeattn_why_not(a), nullptr);
    ASSERT_EQ(spargeattn(a, nullptr), nullptr);
    must(cudaDeviceSynchronize());
  }
  GotLists lists() const { return {row_ptr_->get(), columns_->get(), rows_}; }
  ListError list_error() const {
    Prefill p;
    p.batch = a.batch, p.hq = a.hq, p.hkv = a.hkv, p.nq = a.nq, p.nk = a.nk, p.lists = lists_of(a);
    const DeviceArray<ListError> found(std::vector<ListError>{{}});
    if (kernel::cuda::check_lists(p, found.data(), nullptr)) return ListError{~0u};
    return found.get()[0];
  }
  SpargeAttn a;

 private:
  DeviceArray<std::uint16_t> q_, k_;
  std::unique_ptr<DeviceArray<std::int32_t>> row_ptr_, columns_;
  std::unique_ptr<DeviceArray<char>> room_;
  int rows_ = 0;
};

class CudaSpargeAttn : public ::testing::Test {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no GPU here";
  }
};

// Rows of a head as f32, without gaps; their mean.
std::vector<float> numbers(const test::Rows16& t, int b, int h, int n, int dim) {
  std::vector<float> x;
  for (int i = 0; i < n; ++i)
    for (int d = 0; d < dim; ++d) x.push_back(t.number(b, h, i, d));
  return x;
}
std::vector<float> mean_of(const std::vector<float>& x, int from, int to, int dim) {
  std::vector<float> mean;
  for (int d = 0; d < dim; ++d) {
    double sum = 0;
    for (int i = from; i < to; ++i) sum += x[static_cast<std::size_t>(i) * dim + d];
    mean.push_back(static_cast<float>(sum / (to - from)));
  }
  return mean;
}
std::vector<float> alike(const std::vector<float>& x, int n, int dim, int block, const float* less) {
  std::vector<float> sim(static_cast<std::size_t>((n + block - 1) / block));
  op::alike_head_ref({.heads = 1, .dim = dim, .block = block, .n = n, .dtype = Dtype::f32, .x = x.data(), .row = dim,
                      .less = less, .sim = sim.data()}, 0);
  return sim;
}

TEST_F(CudaSpargeAttn, ListsOfTheBudget) {
  static constexpr std::pair<int, int> kHeads[] = {{1, 1}, {4, 2}, {3, 1}};
  static constexpr std::pair<int, int> kLengths[] = {{700, 700}, {2048, 2048}, {1500, 1500}, {300, 1901}, {129, 1000}, {9001, 9001}};
  static constexpr int kDims[] = {64, 128, 96, 72};
  static constexpr double kMasses[] = {0.3, 0.9, 0.98};
  int lists = 0, off = 0, kept_blocks = 0, seen_blocks = 0;
  int number = 0;
  for (const auto& f : test::pairwise({2, 3, 6, 4, 2, 2, 3, 2, 2, 2, 2}, 3)) {
    SpargeSpec x;
    ChooseSpec& s = x.s;
    s.dtype = f[0] ? Dtype::f16 : Dtype::bf16;
    s.hq = kHeads[f[1]].first, s.hkv = kHeads[f[1]].second;
    s.nq = kLengths[f[2]].first, s.nk = kLengths[f[2]].second;
    s.dk = kDims[f[3]], s.block = f[4] ? 64 : 128, x.row_block = f[5] ? 64 : 128, s.mass = kMasses[f[6]];
    s.token_major = f[7], x.smooth = f[8], s.batch = s.nq > 4000 ? 1 : 1 + static_cast<int>(f[9]), s.sink = f[10] ? 0 : 130;
    s.spread = 0.5f, s.seed = 70 + static_cast<std::uint64_t>(number++);
    const ChooseCase c = topical(x);
    OnDevice on(c, x);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none) << x.line();
    const GotLists got = on.lists();
    const int first_key = s.nk - s.nq, row_blocks = (s.nq + x.row_block - 1) / x.row_block, key_blocks = c.key_blocks();
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h) {
        const auto q = numbers(c.q, b, h, s.nq, s.dk), k = numbers(c.k, b, h / (s.hq / s.hkv), s.nk, s.dk);
        const auto mean = mean_of(k, 0, s.nk, s.dk);
        const auto of_rows = alike(q, s.nq, s.dk, x.row_block, nullptr), of_keys = alike(k, s.nk, s.dk, s.block, x.smooth ? mean.data() : nullptr);
        for (const auto& all : {of_rows, of_keys})
          for (const float sim : all) ASSERT_GT(std::fabs(sim - x.similarity), 1e-4) << "a case that rounding decides: " << x.line();
        std::vector<std::vector<float>> means;
        for (int v = 0; v < key_blocks; ++v) means.push_back(mean_of(k, v * s.block, std::min(s.nk, (v + 1) * s.block), s.dk));
        for (int u = 0; u < row_blocks; ++u) {
          const int end = std::min(s.nq, (u + 1) * x.row_block), seen = first_key + end, n = (seen - 1) / s.block + 1;
          const auto q_mean = mean_of(q, u * x.row_block, end, s.dk), last = mean_of(k, (n - 1) * s.block, std::min(seen, s.nk), s.dk);
          std::vector<float> score;
          for (int v = 0; v < n; ++v) {
            double sum = 0;
            for (int d = 0; d < s.dk; ++d) sum += static_cast<double>(q_mean[d]) * (v == n - 1 ? last : means[v])[d];
            score.push_back(static_cast<float>(sum));
          }
          const block::GuardRule rule{.similarity = x.similarity, .mass = static_cast<float>(s.mass), .sinks = (s.sink + s.block - 1) / s.block};
          const block::GuardedRow row{.score = score.data(), .scale = c.scale(), .blocks = n, .own = (first_key + u * x.row_block) / s.block,
                                      .call_blocks = key_blocks, .rows_alike = of_rows[u], .keys_alike = of_keys.data()};
          block::GuardWork work;
          std::vector<std::uint8_t> want(static_cast<std::size_t>(n)), have(want.size());
          block::keep_guarded(rule, row, work, want.data());
          for (const int v : got.row(b * s.hq + h, u)) {
            ASSERT_TRUE(v >= 0 && v < n) << x.line();
            have[static_cast<std::size_t>(v)] = 1;
          }
          ++lists;
          kept_blocks += static_cast<int>(got.row(b * s.hq + h, u).size());
          seen_blocks += n;
          if (have == want) continue;
          ++off;
          // The sum of a block and of all that weigh more, where the two differ, is the bound within rounding.
          double all = 0, top = -INFINITY;
          const auto weight = [&](int v) { return of_keys[v] > x.similarity ? std::exp((static_cast<double>(score[v]) - top) * c.scale()) : 0.0; };
          for (int v = 0; v < n; ++v)
            if (of_keys[v] > x.similarity) top = std::max<double>(top, score[v]);
          for (int v = 0; v < n; ++v) all += weight(v);
          for (int v = 0; v < n; ++v) {
            if (have[v] == want[v]) continue;
            double with = 0;
            for (int w = 0; w < n; ++w)
              if (weight(w) >= weight(v)) with += weight(w);
            EXPECT_NEAR(with / all, s.mass, 1e-4) << "row block " << u << " block " << v << ": " << x.line();
          }
        }
      }
    on.poison();
    on.run();
    EXPECT_EQ(got.row_ptr, on.lists().row_ptr) << x.line();
    EXPECT_EQ(got.columns, on.lists().columns) << x.line();
  }
  EXPECT_LE(off, lists / 100);
  EXPECT_LT(kept_blocks, seen_blocks * 9 / 10);  // something was chosen
  fmt::print("{} lists, {} off by rounding, {:.2f} of the blocks kept\n", lists, off, static_cast<double>(kept_blocks) / seen_blocks);
}

// Sheet: a block of identical keys has similarity 1, one of random signs about 1/n and is kept whatever its mean is.
TEST_F(CudaSpargeAttn, BlocksThatAreNotAlikeAreKept) {
  SpargeSpec x;
  x.smooth = false, x.similarity = 0.5f;
  x.s.hq = x.s.hkv = 1, x.s.nq = x.s.nk = 1024, x.s.sink = 0, x.s.mass = 0.5, x.s.spread = 8;
  ChooseCase c(x.s);
  Rng rng(3);
  for (int i = 0; i < 1024; ++i)
    for (int d = 0; d < x.s.dk; ++d) {
      c.q.at(0, 0, i, d) = c.q.of(d == 0 ? 1.0f : 0.0f);
      const bool random = i / 128 == 2;  // of mean about 0, while others score 1 and block 4 scores 40
      c.k.at(0, 0, i, d) = c.k.of(random ? (rng.below(2) ? 1.0f : -1.0f) : d == 0 ? (i / 128 == 4 ? 40.0f : 1.0f) : 0.0f);
    }
  OnDevice on(c, x);
  on.run();
  EXPECT_EQ(on.lists().row(0, 7), (std::vector<std::int32_t>{2, 4, 7}));
  EXPECT_EQ(on.lists().row(0, 1).size(), 2u);  // the larger of two alike (at least one), and its own
}

TEST_F(CudaSpargeAttn, EverythingWithoutABudget) {
  for (const int what : {0, 1, 2}) {
    SpargeSpec x;
    x.s.mass = what == 0 ? 1.0 : 0.5;
    x.s.nq = what == 1 ? 31 : 700;                 // too few rows
    x.similarity = what == 2 ? 1.0f : 0.3f;        // nothing is trusted
    const ChooseCase c = topical(x);
    OnDevice on(c, x);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none);
    const GotLists got = on.lists();
    for (int h = 0; h < x.s.hq; ++h)
      for (int u = 0; u < c.row_blocks(); ++u) EXPECT_EQ(static_cast<int>(got.row(h, u).size()), c.seen(u)) << what;
  }
}

TEST_F(CudaSpargeAttn, RefusesWhatItCannotTake) {
  const SpargeSpec x;
  const ChooseCase c(x.s);
  const OnDevice on(c, x);
  const auto names = [&](const char* what, auto&& spoil) {
    SpargeAttn a = on.a;
    spoil(a);
    const char* why = spargeattn_why_not(a);
    return why && std::string(why).find(what) != std::string::npos;
  };
  EXPECT_EQ(spargeattn_why_not(on.a), nullptr);
  EXPECT_TRUE(names("bf16 or f16", [](SpargeAttn& a) { a.dtype = Dtype::f32; }));
  EXPECT_TRUE(names("more rows", [](SpargeAttn& a) { a.nq = a.nk + 1; }));
  EXPECT_TRUE(names("query heads", [](SpargeAttn& a) { a.hq = 3, a.hkv = 2; }));
  EXPECT_TRUE(names("head_dim", [](SpargeAttn& a) { a.dk = 264; }));
  EXPECT_TRUE(names("scale", [](SpargeAttn& a) { a.scale = 0; }));
  EXPECT_TRUE(names("block", [](SpargeAttn& a) { a.row_block = 32; }));
  EXPECT_TRUE(names("mass", [](SpargeAttn& a) { a.mass = 0; }));
  EXPECT_TRUE(names("similarity", [](SpargeAttn& a) { a.similarity = NAN; }));
  EXPECT_TRUE(names("sink", [](SpargeAttn& a) { a.sink = -1; }));
  EXPECT_TRUE(names("null", [](SpargeAttn& a) { a.q.data = nullptr; }));
  EXPECT_TRUE(names("room", [](SpargeAttn& a) { a.room = nullptr; }));
  EXPECT_TRUE(names("12288", [](SpargeAttn& a) { a.nq = 64, a.nk = 1 << 21; }));
}

}  // namespace
}  // namespace lacuna
