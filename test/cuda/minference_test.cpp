// SPDX-License-Identifier: Apache-2.0
// MInference's choice on the GPU: its line sums against exact attention in double, and, given the sums that the GPU found,
// the lines by sorting and the blocks they touch by looking at every pair, which must give the very lists.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "choose_case.h"
#include "kernel/cuda/estimate/minference.h"
#include "support/pairwise.h"

namespace lacuna {
namespace {

using kernel::cuda::ListError;
using kernel::cuda::MInference;
using kernel::cuda::Prefill;
using test::ChooseCase;
using test::ChooseSpec;
using test::DeviceArray;
using test::GotLists;
using test::must;

constexpr int kLast = 64;

struct Counts {
  int vertical = 20, slash = 60, sink = 4, window = 10;
};

class OnDevice {
 public:
  OnDevice(const ChooseCase& c, const Counts& n)
      : rows_(c.row_blocks()), q_(c.q.data), k_(c.k.data), row_ptr_(static_cast<std::size_t>(c.s.batch) * c.s.hq * (rows_ + 1)),
        lines_(static_cast<std::size_t>(c.s.batch) * c.s.hq * 2 * c.s.nk) {
    const ChooseSpec& s = c.s;
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk;
    a.q = test::tensor_of(c.q, q_.data()), a.k = test::tensor_of(c.k, k_.data());
    a.scale = c.scale(), a.block = s.block;
    a.vertical = n.vertical, a.slash = n.slash, a.sink = n.sink, a.window = n.window;
    columns_ = std::make_unique<DeviceArray<std::int32_t>>(static_cast<std::size_t>(minference_entries(a)));
    room_ = std::make_unique<DeviceArray<char>>(static_cast<std::size_t>(minference_room(a)));
    a.row_ptr = row_ptr_.data(), a.columns = columns_->data(), a.lines = lines_.data(), a.room = room_->data();
    poison();
  }
  void poison() {
    must(cudaMemset(row_ptr_.data(), 0xff, row_ptr_.size() * 4));
    must(cudaMemset(columns_->data(), 0xff, columns_->size() * 4));
    must(cudaMemset(lines_.data(), 0xff, lines_.size() * 4));
    must(cudaMemset(room_->data(), 0xff, room_->size()));
  }
  void run() {
    ASSERT_EQ(minference_why_not(a), nullptr);
    ASSERT_EQ(minference(a, nullptr), nullptr);
    must(cudaDeviceSynchronize());
  }
  GotLists lists() const { return {row_ptr_.get(), columns_->get(), rows_}; }
  std::vector<float> lines() const { return lines_.get(); }
  ListError list_error() const {
    Prefill p;
    p.batch = a.batch, p.hq = a.hq, p.hkv = a.hkv, p.nq = a.nq, p.nk = a.nk, p.lists = lists_of(a);
    const DeviceArray<ListError> found(std::vector<ListError>{{}});
    if (kernel::cuda::check_lists(p, found.data(), nullptr)) return ListError{~0u};
    return found.get()[0];
  }
  MInference a;

 private:
  int rows_;
  DeviceArray<std::uint16_t> q_, k_;
  DeviceArray<std::int32_t> row_ptr_;
  DeviceArray<float> lines_;
  std::unique_ptr<DeviceArray<std::int32_t>> columns_;
  std::unique_ptr<DeviceArray<char>> room_;
};

class CudaMInference : public ::testing::Test {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no GPU here";
  }
};

// Columns and distances of a head by exact attention: [2][nk].
std::vector<double> line_sums(const ChooseCase& c, int b, int h) {
  const ChooseSpec& s = c.s;
  std::vector<double> lines(2 * static_cast<std::size_t>(s.nk)), p(static_cast<std::size_t>(s.nk));
  const int kv = h / (s.hq / s.hkv);
  std::vector<float> keys;
  for (int j = 0; j < s.nk; ++j)
    for (int d = 0; d < s.dk; ++d) keys.push_back(c.k.number(b, kv, j, d));
  for (int i = s.nq - kLast; i < s.nq; ++i) {
    const int own = s.nk - s.nq + i;
    double top = -INFINITY, sum = 0;
    for (int j = 0; j <= own; ++j) {
      double x = 0;
      for (int d = 0; d < s.dk; ++d) x += static_cast<double>(c.q.number(b, h, i, d)) * keys[static_cast<std::size_t>(j) * s.dk + d];
      p[static_cast<std::size_t>(j)] = x * c.scale();
      top = std::max(top, p[static_cast<std::size_t>(j)]);
    }
    for (int j = 0; j <= own; ++j) sum += p[static_cast<std::size_t>(j)] = std::exp(p[static_cast<std::size_t>(j)] - top);
    for (int j = 0; j <= own; ++j) {
      lines[static_cast<std::size_t>(j)] += p[static_cast<std::size_t>(j)] / sum;
      lines[static_cast<std::size_t>(s.nk + own - j)] += p[static_cast<std::size_t>(j)] / sum;
    }
  }
  return lines;
}

// The lines of largest sums; of equal ones the lower index.
std::vector<bool> top(const float* sum, int n, int forced, int count) {
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin() + std::min(n, forced), order.end(), [&](int x, int y) { return sum[x] > sum[y]; });
  std::vector<bool> kept(order.size());
  for (int i = 0; i < std::min(n, std::max(forced, count)); ++i) kept[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;
  return kept;
}

TEST_F(CudaMInference, LinesAndTheirBlocks) {
  static constexpr std::pair<int, int> kHeads[] = {{1, 1}, {4, 2}, {3, 1}};
  static constexpr std::pair<int, int> kLengths[] = {{700, 700}, {1024, 1024}, {300, 1901}, {257, 1000}, {2111, 2111}};
  static constexpr int kDims[] = {64, 128, 96, 72};
  static constexpr Counts kCounts[] = {{20, 60, 4, 10}, {1, 1, 0, 1}, {30, 50, 30, 100}, {150, 200, 5, 64}};
  int number = 0, kept_blocks = 0, seen_blocks = 0;
  for (const auto& f : test::pairwise({2, 3, 5, 4, 2, 4, 2, 2, 2, 2}, 3)) {
    ChooseSpec s;
    s.dtype = f[0] ? Dtype::f16 : Dtype::bf16;
    s.hq = kHeads[f[1]].first, s.hkv = kHeads[f[1]].second;
    s.nq = kLengths[f[2]].first, s.nk = kLengths[f[2]].second;
    s.dk = kDims[f[3]], s.block = f[4] ? 64 : 128;
    s.token_major = f[6], s.gap = f[7] ? 8 : 4, s.spread = f[8] ? 2 : 12, s.batch = 1 + static_cast<int>(f[9]);
    s.seed = 500 + static_cast<std::uint64_t>(number++);
    const Counts counts = kCounts[f[5]];
    const ChooseCase c(s);
    OnDevice on(c, counts);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none) << s.line();
    const GotLists got = on.lists();
    const std::vector<float> found = on.lines();
    for (int h = 0; h < s.batch * s.hq; ++h) {
      const float* lines = found.data() + static_cast<std::size_t>(h) * 2 * s.nk;
      const auto want = line_sums(c, h / s.hq, h % s.hq);
      for (std::size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(lines[i], want[i], 1e-3 * want[i] + 1e-6) << "line " << i << ": " << s.line();
      const auto columns = top(lines, s.nk, counts.sink, counts.vertical), distances = top(lines + s.nk, s.nk, counts.window, counts.slash);
      std::vector<int> named, away;
      for (int i = 0; i < s.nk; ++i) {
        if (columns[static_cast<std::size_t>(i)]) named.push_back(i);
        if (distances[static_cast<std::size_t>(i)]) away.push_back(i);
      }
      for (int u = 0; u < c.row_blocks(); ++u) {
        const int n = c.seen(u), first_own = s.nk - s.nq + u * s.block, last_own = s.nk - s.nq + std::min((u + 1) * s.block, s.nq) - 1;
        std::vector<bool> kept(static_cast<std::size_t>(n));
        for (const int j : named)
          if (j <= last_own) kept[static_cast<std::size_t>(j / s.block)] = true;
        for (const int d : away)  // whole row blocks, as the CPU's ranges
          for (int own = first_own; own < first_own + s.block; ++own)
            if (own - d >= 0 && (own - d) / s.block < n) kept[static_cast<std::size_t>((own - d) / s.block)] = true;
        std::vector<std::int32_t> list;
        for (int v = 0; v < n; ++v)
          if (kept[static_cast<std::size_t>(v)]) list.push_back(v);
        ASSERT_EQ(got.row(h, u), list) << "head " << h << " row block " << u << ": " << s.line();
        kept_blocks += static_cast<int>(list.size());
        seen_blocks += n;
      }
    }
    on.poison();
    on.run();
    EXPECT_EQ(got.row_ptr, on.lists().row_ptr) << s.line();
    EXPECT_EQ(got.columns, on.lists().columns) << s.line();
  }
  EXPECT_LT(kept_blocks, seen_blocks);
  fmt::print("{:.2f} of the blocks kept\n", static_cast<double>(kept_blocks) / seen_blocks);
}

// Sheet: a planted column and a planted diagonal are in the top lists.
TEST_F(CudaMInference, SeesPlantedLines) {
  ChooseSpec s;
  s.hq = s.hkv = 1, s.nq = s.nk = 1024, s.dk = 256, s.block = 64, s.spread = 1;
  ChooseCase c(s);
  constexpr int kColumn = 333, kDistance = 250;  // a last row and the key so far away hold one of 128 directions
  for (int i = 0; i < s.nk; ++i)
    for (int d = 0; d < s.dk; ++d) {
      c.q.at(0, 0, i, d) = c.q.of(d == 200 || (i + 1024 - kDistance) % 128 == d ? 1.0f : 0.0f);
      const bool line = i >= 1024 - kLast - kDistance && i < 1024 - kDistance && i % 128 == d;
      c.k.at(0, 0, i, d) = c.k.of(line || (i == kColumn && d == 200) ? 16.0f * 8 : 0.0f);
    }
  OnDevice on(c, {.vertical = 1, .slash = 2, .sink = 0, .window = 1});
  on.run();
  const auto lines = on.lines();
  EXPECT_EQ(std::max_element(lines.begin(), lines.begin() + s.nk) - lines.begin(), kColumn);
  EXPECT_EQ(std::max_element(lines.begin() + s.nk, lines.end()) - lines.begin() - s.nk, kDistance);
  const auto list = on.lists().row(0, 15);  // own keys 960 to 1023, at distance 250 keys 710 to 773, column 333
  // Whole row blocks at distances 0 and 250: keys 960 to 1023 and 710 to 773.
  EXPECT_EQ(list, (std::vector<std::int32_t>{5, 11, 12, 15}));
}

TEST_F(CudaMInference, EverythingWhereNothingIsSaved) {
  for (const int what : {0, 1}) {
    ChooseSpec s;
    s.nq = what == 0 ? 255 : 700;
    const ChooseCase c(s);
    OnDevice on(c, {.vertical = 1, .slash = what == 1 ? 700 : 1, .sink = 0, .window = 1});
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none);
    const GotLists got = on.lists();
    for (int h = 0; h < s.hq; ++h)
      for (int u = 0; u < c.row_blocks(); ++u) EXPECT_EQ(static_cast<int>(got.row(h, u).size()), c.seen(u)) << what;
  }
}

TEST_F(CudaMInference, RefusesWhatItCannotTake) {
  const ChooseCase c({});
  const OnDevice on(c, {});
  const auto names = [&](const char* what, auto&& spoil) {
    MInference a = on.a;
    spoil(a);
    const char* why = minference_why_not(a);
    return why && std::string(why).find(what) != std::string::npos;
  };
  EXPECT_EQ(minference_why_not(on.a), nullptr);
  EXPECT_TRUE(names("bf16 or f16", [](MInference& a) { a.dtype = Dtype::f32; }));
  EXPECT_TRUE(names("more rows", [](MInference& a) { a.nq = a.nk + 1; }));
  EXPECT_TRUE(names("query heads", [](MInference& a) { a.hq = 3, a.hkv = 2; }));
  EXPECT_TRUE(names("head_dim", [](MInference& a) { a.dk = 4; }));
  EXPECT_TRUE(names("scale", [](MInference& a) { a.scale = -1; }));
  EXPECT_TRUE(names("block", [](MInference& a) { a.block = 32; }));
  EXPECT_TRUE(names("vertical", [](MInference& a) { a.vertical = 0; }));
  EXPECT_TRUE(names("window", [](MInference& a) { a.window = 0; }));
  EXPECT_TRUE(names("null", [](MInference& a) { a.k.data = nullptr; }));
  EXPECT_TRUE(names("room", [](MInference& a) { a.room = nullptr; }));
}

}  // namespace
}  // namespace lacuna
