// SPDX-License-Identifier: Apache-2.0
// XAttention's choice on the GPU against the ops that method xattention is made of (strided_scores, segment_mass) and
// its budget. Masses must agree; which blocks carry a share is open where masses are closer than rounding, so
// the tolerance is on mass: every list must carry the share, and must not without its least block. Given the masses that
// the GPU found, its choice must be the budget's, block by block.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <semaphore>
#include <thread>

#include "block/budget/top_mass.h"
#include "choose_case.h"
#include "kernel/cuda/estimate/xattention.h"
#include "op/pack_ref.h"
#include "op/segment_mass_ref.h"
#include "op/strided_scores_ref.h"
#include "support/pairwise.h"

namespace lacuna {
namespace {

using kernel::cuda::ListError;
using kernel::cuda::Prefill;
using kernel::cuda::XAttention;
using test::ChooseCase;
using test::ChooseSpec;
using test::DeviceArray;
using test::GotLists;
using test::must;

// The mass of every [head][row block][key block] of sequence b, by the references of the ops.
std::vector<float> masses(const ChooseCase& c, int b) {
  const ChooseSpec& s = c.s;
  const int first_key = s.nk - s.nq, skip = (s.stride - first_key % s.stride) % s.stride, key_blocks = c.key_blocks();
  std::vector<float> queries(static_cast<std::size_t>(s.hq) * s.nq * s.dk), keys(static_cast<std::size_t>(s.hkv) * s.nk * s.dk);
  for (int h = 0; h < s.hq; ++h)
    for (int i = 0; i < s.nq; ++i)
      for (int d = 0; d < s.dk; ++d) queries[(static_cast<std::size_t>(h) * s.nq + i) * s.dk + d] = c.q.number(b, h, i, d);
  for (int h = 0; h < s.hkv; ++h)
    for (int i = 0; i < s.nk; ++i)
      for (int d = 0; d < s.dk; ++d) keys[(static_cast<std::size_t>(h) * s.nk + i) * s.dk + d] = c.k.number(b, h, i, d);
  PackedView packed{nullptr, PackFormat::lane16_f32, s.hkv, s.dk, s.nk};
  std::vector<char> room(static_cast<std::size_t>(tiles_of(s.nk)) * s.hkv * packed.block_bytes() + 64);
  packed.data = room.data() + (64 - reinterpret_cast<std::uintptr_t>(room.data()) % 64);
  op::pack_ref({.dtype = Dtype::f32, .raw = keys.data(), .head = std::int64_t{s.nk} * s.dk, .cell = s.dk, .n = s.nk, .format = packed.format,
                .heads = s.hkv, .dim = s.dk, .packed = const_cast<void*>(packed.data)});
  op::StridedScores::Args scores;
  scores.stride = s.stride, scores.hq = s.hq, scores.hkv = s.hkv, scores.dk = s.dk;
  scores.n_rows = s.nq - skip, scores.n_keys = s.nk;
  scores.q = queries.data() + std::int64_t{skip} * s.dk, scores.q_head = std::int64_t{s.nq} * s.dk, scores.q_row = s.dk;
  scores.packed_k = packed;
  scores.first_key_of_row0 = first_key + skip;
  scores.score_row = scores.good_row();
  std::vector<float> score(static_cast<std::size_t>(s.hq * scores.m_rows() * scores.score_row));
  scores.score = score.data();
  std::vector<std::int32_t> ends, groups;
  for (std::int64_t m = 0; m < scores.m_rows(); ++m) ends.push_back(static_cast<std::int32_t>(scores.causal_end(m)));
  for (int u = 0; u < c.row_blocks(); ++u) groups.push_back(std::max(0, u * s.block - skip) / s.stride);
  groups.push_back(static_cast<std::int32_t>(scores.m_rows()));
  std::vector<float> mass(static_cast<std::size_t>(s.hq) * c.row_blocks() * key_blocks);
  const op::SegmentMass::Args sums{.heads = s.hq,
                                   .groups = c.row_blocks(),
                                   .columns = static_cast<std::int32_t>(scores.n_cols()),
                                   .group_ptr = groups.data(),
                                   .end = ends.data(),
                                   .score = score.data(),
                                   .score_head = scores.m_rows() * scores.score_row,
                                   .score_row = scores.score_row,
                                   .scale = c.scale() / (static_cast<float>(s.stride) * s.norm),
                                   .segment = s.block / s.stride,
                                   .mass = mass.data(),
                                   .mass_head = std::int64_t{c.row_blocks()} * key_blocks};
  EXPECT_EQ(sums.segments(), key_blocks);
  for (int h = 0; h < s.hq; ++h) {
    for (std::int64_t m = 0; m < scores.m_rows(); ++m) op::strided_scores_row_ref(scores, h, m);
    for (int u = 0; u < c.row_blocks(); ++u) op::segment_mass_group_ref(sums, h, u);
  }
  return mass;
}

// A case's call on the device, all that it may write poisoned.
class OnDevice {
 public:
  explicit OnDevice(const ChooseCase& c)
      : c_(c), q_(c.q.data), k_(c.k.data), row_ptr_(static_cast<std::size_t>(c.s.batch) * c.s.hq * (c.row_blocks() + 1)),
        estimate_(static_cast<std::size_t>(c.s.batch) * c.s.hq * c.row_blocks() * c.key_blocks()) {
    const ChooseSpec& s = c.s;
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk;
    a.q = test::tensor_of(c.q, q_.data()), a.k = test::tensor_of(c.k, k_.data());
    a.scale = c.scale(), a.norm = s.norm, a.stride = s.stride, a.block = s.block;
    a.mass = static_cast<float>(s.mass), a.sink = s.sink, a.window = s.window;
    columns_ = std::make_unique<DeviceArray<std::int32_t>>(static_cast<std::size_t>(xattention_entries(a)));
    room_ = std::make_unique<DeviceArray<char>>(static_cast<std::size_t>(xattention_room(a)));
    a.row_ptr = row_ptr_.data(), a.columns = columns_->data(), a.estimate = estimate_.data(), a.room = room_->data();
    poison();
  }
  void poison() {
    must(cudaMemset(row_ptr_.data(), 0xff, row_ptr_.size() * 4));
    must(cudaMemset(columns_->data(), 0xff, columns_->size() * 4));
    must(cudaMemset(estimate_.data(), 0xff, estimate_.size() * 4));
    must(cudaMemset(room_->data(), 0xff, room_->size()));
  }
  void run(cudaStream_t stream = nullptr) {
    ASSERT_EQ(xattention_why_not(a), nullptr) << c_.s.line();
    ASSERT_EQ(xattention(a, stream), nullptr) << c_.s.line();
    must(cudaStreamSynchronize(stream));
  }
  GotLists lists() const { return {row_ptr_.get(), columns_->get(), c_.row_blocks()}; }
  std::vector<float> estimate() const { return estimate_.get(); }
  void set(const ChooseCase& c) { q_.set(c.q.data), k_.set(c.k.data); }
  // The call that reads the lists.
  Prefill prefill(const DeviceArray<std::uint16_t>& v, DeviceArray<std::uint16_t>& out, std::uint32_t* work) const {
    Prefill p;
    p.dtype = a.dtype, p.batch = a.batch, p.hq = a.hq, p.hkv = a.hkv, p.nq = a.nq, p.nk = a.nk, p.dk = p.dv = a.dk;
    p.q = a.q, p.k = a.k, p.v = a.k;
    p.v.data = v.data();
    p.out = {out.data(), std::int64_t{a.hq} * a.nq * a.dk, std::int64_t{a.nq} * a.dk, a.dk};
    p.scale = a.scale, p.causal = true, p.work = work;
    p.lists = lists_of(a);
    return p;
  }
  ListError list_error() const {
    Prefill p;
    p.batch = a.batch, p.hq = a.hq, p.hkv = a.hkv, p.nq = a.nq, p.nk = a.nk, p.lists = lists_of(a);
    const DeviceArray<ListError> found(std::vector<ListError>{{}});
    if (kernel::cuda::check_lists(p, found.data(), nullptr)) return ListError{~0u};
    return found.get()[0];
  }

  XAttention a;

 private:
  const ChooseCase& c_;
  DeviceArray<std::uint16_t> q_, k_;
  DeviceArray<std::int32_t> row_ptr_;
  DeviceArray<float> estimate_;
  std::unique_ptr<DeviceArray<std::int32_t>> columns_;
  std::unique_ptr<DeviceArray<char>> room_;
};

class CudaXAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no GPU here";
  }
};

std::vector<ChooseSpec> specs() {
  static constexpr std::pair<int, int> kHeads[] = {{1, 1}, {4, 2}, {3, 1}};
  static constexpr std::pair<int, int> kLengths[] = {{700, 700}, {1024, 1024}, {1500, 1500}, {300, 901}, {129, 1000}, {2307, 2307}, {65, 2500}};
  static constexpr int kDims[] = {64, 128, 96, 72}, kStrides[] = {16, 8, 4};
  static constexpr double kMasses[] = {0.5, 0.9, 0.999};
  std::vector<ChooseSpec> all;
  for (const auto& x : test::pairwise({2, 3, 7, 4, 3, 2, 3, 2, 2, 2, 2, 2, 2}, 3)) {
    ChooseSpec s;
    s.dtype = x[0] ? Dtype::f16 : Dtype::bf16;
    s.hq = kHeads[x[1]].first, s.hkv = kHeads[x[1]].second;
    s.nq = kLengths[x[2]].first, s.nk = kLengths[x[2]].second;
    s.dk = kDims[x[3]], s.stride = kStrides[x[4]], s.block = x[5] ? 64 : 128, s.mass = kMasses[x[6]];
    s.token_major = x[7], s.gap = x[8] ? 8 : 4, s.spread = x[9] ? 8 : 40, s.batch = 1 + static_cast<int>(x[10]);
    s.sink = x[11] ? 1 : 130, s.window = x[12] ? 1 : 200;
    s.seed = 40 + all.size();
    all.push_back(s);
  }
  ChooseSpec s;  // the exact block mass (sheet: S = 1), and the wide stride between
  s.stride = 1, s.nq = s.nk = 450, s.seed = 5;
  all.push_back(s);
  s.stride = 2, s.block = 64, s.seed = 6;
  all.push_back(s);
  s.stride = 1, s.nq = 300, s.nk = 2500, s.hq = 1, s.seed = 7;  // more than a band of tiles of columns
  all.push_back(s);
  s.stride = 16, s.block = 128, s.nq = s.nk = 5000, s.dk = 128, s.spread = 30, s.seed = 8;
  all.push_back(s);
  return all;
}

// One row's list against masses that it must carry the share of, within `slack` of a row block's whole.
void judge_list(const ChooseSpec& s, const std::vector<std::int32_t>& list, const float* mass, int n, int sinks, int oldest,
                double slack) {
  std::vector<bool> kept(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < list.size(); ++i) {
    ASSERT_TRUE(list[i] >= 0 && list[i] < n) << s.line();
    ASSERT_TRUE(i == 0 || list[i] > list[i - 1]) << s.line();
    kept[static_cast<std::size_t>(list[i])] = true;
  }
  double total = 0, sum = 0, least = INFINITY, most_left = 0;
  for (int b = 0; b < n; ++b) {
    const bool forced = b < sinks || b >= oldest;
    EXPECT_TRUE(!forced || kept[static_cast<std::size_t>(b)]) << "block " << b << " is forced: " << s.line();
    total += mass[b];
    if (kept[static_cast<std::size_t>(b)]) sum += mass[b];
    if (kept[static_cast<std::size_t>(b)] && !forced) least = std::min<double>(least, mass[b]);
    if (!kept[static_cast<std::size_t>(b)]) most_left = std::max<double>(most_left, mass[b]);
  }
  const double goal = s.mass * total;
  EXPECT_GE(sum, goal - slack * total) << s.line();
  if (least < INFINITY) {
    EXPECT_LT(sum - least, goal + slack * total) << "a block too many: " << s.line();
    EXPECT_GE(least, most_left - slack * total) << "a larger one was left out: " << s.line();
  }
}

TEST_F(CudaXAttention, MassAndListsOfTheOps) {
  // References take longer than the GPU: as many at a time as there are cores.
  static std::counting_semaphore<> cores(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  struct Expected {
    std::unique_ptr<ChooseCase> c;
    std::vector<std::vector<float>> masses;  // of each sequence
  };
  std::vector<std::future<Expected>> coming;
  for (const ChooseSpec& s : specs())
    coming.push_back(std::async(std::launch::async, [s] {
      cores.acquire();
      Expected e{std::make_unique<ChooseCase>(s), {}};
      for (int b = 0; b < s.batch; ++b) e.masses.push_back(masses(*e.c, b));
      cores.release();
      return e;
    }));
  double worst = 0;
  for (auto& future : coming) {
    const Expected expected = future.get();
    const ChooseCase& c = *expected.c;
    const ChooseSpec& s = c.s;
    OnDevice on(c);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none) << s.line();
    const GotLists got = on.lists();
    const std::vector<float> found = on.estimate();
    std::vector<float> work(static_cast<std::size_t>(c.key_blocks()));
    std::vector<std::int32_t> kept(work.size());
    int off = 0, kept_blocks = 0, seen_blocks = 0;
    for (int b = 0; b < s.batch; ++b) {
      const std::vector<float>& want = expected.masses[static_cast<std::size_t>(b)];
      for (int h = 0; h < s.hq; ++h)
        for (int u = 0; u < c.row_blocks(); ++u) {
          const int n = c.seen(u), rows = s.block / s.stride;
          const auto at = (static_cast<std::size_t>(h) * c.row_blocks() + u) * c.key_blocks();
          const float *mass = want.data() + at, *mine = found.data() + static_cast<std::size_t>(b) * want.size() + at;
          double difference = 0;
          for (int i = 0; i < n; ++i) {
            // Cells are rounded to 11 bits, and weights below 2^-24 of their tile's largest to fewer or none.
            const double allowed = 1e-3 * mass[i] + 1e-5 * rows;
            difference = std::max(difference, std::fabs(static_cast<double>(mass[i]) - mine[i]) / allowed);
            ASSERT_LE(std::fabs(static_cast<double>(mass[i]) - mine[i]), allowed) << "row block " << u << " block " << i << ": " << s.line();
          }
          worst = std::max(worst, difference);
          const int first_own = s.nk - s.nq + u * s.block, sinks = std::min<int>(n, static_cast<int>((s.sink + s.block - 1) / s.block));
          const int oldest = static_cast<int>(std::max<std::int64_t>(0, first_own - s.window + 1) / s.block);
          const auto list = got.row(b * s.hq + h, u);
          judge_list(s, list, mass, n, sinks, oldest, 1.5e-3);
          // The budget on the GPU's own masses: the same blocks, but where the sum meets the goal within rounding.
          const std::int32_t count = block::top_mass(mine, n, sinks, oldest, static_cast<float>(s.mass),
                                                     block::TopMass::reach, work.data(), kept.data());
          if (list != std::vector<std::int32_t>(kept.begin(), kept.begin() + count)) {
            judge_list(s, list, mine, n, sinks, oldest, 1e-6);
            ++off;
          }
          kept_blocks += static_cast<int>(list.size());
          seen_blocks += n;
        }
    }
    EXPECT_LE(off, 1 + seen_blocks / 100) << s.line();
    if (s.mass < 0.6) {
      EXPECT_LT(kept_blocks, seen_blocks) << s.line();
    }
    const std::vector<std::int32_t> row_ptr = got.row_ptr, columns = got.columns;
    on.a.most_room = 1;  // one KV head after the other, in the room of all
    on.poison();
    on.run();
    EXPECT_EQ(row_ptr, on.lists().row_ptr) << "not the same again: " << s.line();
    EXPECT_EQ(columns, on.lists().columns) << "not the same again: " << s.line();
  }
  fmt::print("largest distance of a mass: {:.2f} of what is allowed\n", worst);
}

// Rows and keys that hold nothing but one direction, and a strong one at some of them.
ChooseCase quiet(const ChooseSpec& s) {
  ChooseCase c(s);
  for (int h = 0; h < s.hq; ++h)
    for (int i = 0; i < s.nq; ++i)
      for (int d = 0; d < s.dk; ++d) c.q.at(0, h, i, d) = c.q.of(d == 0 ? 1.0f : 0.0f);
  for (int h = 0; h < s.hkv; ++h)
    for (int i = 0; i < s.nk; ++i)
      for (int d = 0; d < s.dk; ++d) c.k.at(0, h, i, d) = 0;
  return c;
}

// Sheet: a vertical line lifts its block over the others, wherever in the square it stands.
TEST_F(CudaXAttention, SeesVerticalLines) {
  for (const int stride : {8, 16})
    for (const int column : {160, 171, 199}) {
      ChooseSpec s;
      s.hq = 1, s.nq = s.nk = 1024, s.stride = stride, s.mass = 0.5, s.spread = 8;
      ChooseCase c = quiet(s);
      c.k.at(0, 0, column, 0) = c.k.of(10.0f * static_cast<float>(stride));
      OnDevice on(c);
      on.run();
      const std::vector<float> found = on.estimate();
      for (int u = 2; u < c.row_blocks(); ++u) {
        EXPECT_GT(found[static_cast<std::size_t>(u) * c.key_blocks() + 1], 0.9f * s.block / stride);
        const auto list = on.lists().row(0, u);
        EXPECT_TRUE(std::find(list.begin(), list.end(), 1) != list.end()) << stride << " " << column << " " << u;
        EXPECT_LT(static_cast<int>(list.size()), 4);
      }
    }
}

// Sheet: a slash line at an odd distance is seen, the same at an even one is not (N 512, block 128, S 8, height 20).
TEST_F(CudaXAttention, SeesOddSlashLinesOnly) {
  for (const int distance : {251, 250}) {
    ChooseSpec s;
    s.hq = 1, s.nq = s.nk = 512, s.stride = 8, s.dk = 256, s.spread = 1;
    ChooseCase c = quiet(s);
    // Row i and key j hold the same one of 256 directions where i - j is the distance, or 256 more or less. Of those
    // a square on the diagonal has one: its antidiagonal reaches beyond the row. Without it the block would have 7.7.
    for (int i = 0; i < s.nq; ++i)
      for (int d = 0; d < s.dk; ++d) {
        c.q.at(0, 0, i, d) = c.q.of((i + 2 * s.dk - distance) % s.dk == d ? 1.0f : 0.0f);
        c.k.at(0, 0, i, d) = c.k.of(i % s.dk == d ? 20.0f * 16 : 0.0f);
      }
    OnDevice on(c);
    on.run();
    const std::vector<float> found = on.estimate();
    const float* last = found.data() + 3 * c.key_blocks();  // of rows 384 on: their line meets keys 133 to 260 at 251
    float flat = 0;                                         // what a whole block has of rows that weigh all squares alike
    for (int m = 48; m < 64; ++m) flat += 16.0f / static_cast<float>(m + 1);
    if (distance == 250) {
      for (int b = 0; b < 3; ++b) EXPECT_NEAR(last[b], flat, 0.01f) << b;
    } else {
      EXPECT_NEAR(last[1], 6.7f, 0.1f);
      EXPECT_LT(last[0], 4.0f);
      EXPECT_LT(last[2], 4.0f);
    }
  }
}

// mass = 1: every block that a row sees, and attention over the lists is dense attention.
TEST_F(CudaXAttention, EverythingIsDense) {
  for (const double mass : {1.0, 0.9}) {
    ChooseSpec s;
    s.hq = 4, s.hkv = 2, s.nq = mass < 1 ? 10 : 900, s.nk = 1000, s.mass = mass;  // 10 rows: fewer than two strides
    const ChooseCase c(s);
    OnDevice on(c);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none);
    const GotLists got = on.lists();
    for (int h = 0; h < s.hq; ++h)
      for (int u = 0; u < c.row_blocks(); ++u) {
        const auto list = got.row(h, u);
        ASSERT_EQ(static_cast<int>(list.size()), c.seen(u));
        for (int i = 0; i < c.seen(u); ++i) EXPECT_EQ(list[static_cast<std::size_t>(i)], i);
      }
    const DeviceArray<std::uint16_t> v(c.k.data);
    DeviceArray<std::uint16_t> by_lists(static_cast<std::size_t>(s.hq) * s.nq * s.dk), dense(by_lists.size());
    const DeviceArray<std::uint32_t> work(std::vector<std::uint32_t>{0, 0});
    Prefill p = on.prefill(v, by_lists, work.data());
    ASSERT_EQ(prefill_why_not(p), nullptr);
    ASSERT_EQ(kernel::cuda::prefill(p, nullptr), nullptr);
    p.lists = {};
    p.out.data = dense.data();
    ASSERT_EQ(kernel::cuda::prefill(p, nullptr), nullptr);
    must(cudaDeviceSynchronize());
    const auto x = by_lists.get(), y = dense.get();
    double worst = 0;  // the order of sums differs
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::max(worst, std::fabs(static_cast<double>(bf16_to_float(x[i])) - bf16_to_float(y[i])));
    EXPECT_LT(worst, 0.05);
  }
}

// A graph of choice and attention, replayed on other numbers in the same places: what a call from scratch gives.
TEST_F(CudaXAttention, GraphsReplayIt) {
  ChooseSpec s;
  s.hq = 4, s.hkv = 2, s.nq = s.nk = 1500, s.dk = 64, s.spread = 30;
  const ChooseCase c(s);
  s.seed = 2;
  const ChooseCase other(s);
  OnDevice on(c), on_other(other);
  on_other.run();
  on.a.estimate = nullptr;
  const DeviceArray<std::uint16_t> v(c.k.data);
  DeviceArray<std::uint16_t> out(static_cast<std::size_t>(s.hq) * s.nq * s.dk), direct(out.size());
  const DeviceArray<std::uint32_t> work(std::vector<std::uint32_t>{0, 0});
  const Prefill p = on.prefill(v, out, work.data());
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  must(cudaStreamCreate(&stream));
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  ASSERT_EQ(xattention(on.a, stream), nullptr);
  ASSERT_EQ(kernel::cuda::prefill(p, stream), nullptr);
  must(cudaStreamEndCapture(stream, &graph));
  must(cudaGraphInstantiate(&replay, graph, 0));
  must(cudaGraphLaunch(replay, stream));
  must(cudaStreamSynchronize(stream));
  const auto first = on.lists();
  on.set(other);
  for (int i = 0; i < 2; ++i) must(cudaGraphLaunch(replay, stream));
  must(cudaStreamSynchronize(stream));
  const GotLists again = on.lists(), want = on_other.lists();
  EXPECT_EQ(again.row_ptr, want.row_ptr);
  EXPECT_NE(first.row_ptr, want.row_ptr);
  const auto n = static_cast<std::size_t>(want.row_ptr.back());
  EXPECT_TRUE(std::equal(want.columns.begin(), want.columns.begin() + static_cast<std::ptrdiff_t>(n), again.columns.begin()));
  Prefill same = on_other.prefill(v, direct, work.data());
  ASSERT_EQ(kernel::cuda::prefill(same, nullptr), nullptr);
  must(cudaDeviceSynchronize());
  EXPECT_EQ(out.get(), direct.get());
  must(cudaGraphExecDestroy(replay));
  must(cudaGraphDestroy(graph));
  must(cudaStreamDestroy(stream));
}

// A key that is no number: no mass is NaN, and lists are still lists.
TEST_F(CudaXAttention, NanStaysOutOfMass) {
  for (const int gap : {8, 4}) {
    ChooseSpec s;
    s.hq = s.hkv = 1, s.nq = s.nk = 600, s.gap = gap;
    ChooseCase c(s);
    c.k.at(0, 0, 300, 5) = 0x7fc0;
    c.q.at(0, 0, 200, 7) = 0x7f80;  // an infinity
    OnDevice on(c);
    on.run();
    EXPECT_EQ(on.list_error(), ListError::none);
    const std::vector<float> found = on.estimate();
    for (int u = 0; u < c.row_blocks(); ++u)
      for (int b = 0; b < c.seen(u); ++b) EXPECT_TRUE(std::isfinite(found[static_cast<std::size_t>(u) * c.key_blocks() + b])) << u << " " << b;
  }
}

TEST_F(CudaXAttention, NothingToDo) {
  ChooseSpec s;
  const ChooseCase c(s);
  OnDevice on(c);
  on.a.batch = 0;
  on.run();
  on.a.batch = 1, on.a.nq = 0;
  on.run();
  EXPECT_EQ(on.lists().row_ptr[0], -1);  // untouched
}

TEST_F(CudaXAttention, RefusesWhatItCannotTake) {
  const ChooseCase c({});
  const OnDevice on(c);
  const auto reason = [&](auto&& spoil) {
    XAttention a = on.a;
    spoil(a);
    const char* why = xattention_why_not(a);
    return std::string(why ? why : "");
  };
  EXPECT_EQ(reason([](XAttention&) {}), "");
  const auto names = [](const std::string& why, const char* what) { return why.find(what) != std::string::npos; };
  EXPECT_TRUE(names(reason([](XAttention& a) { a.dtype = Dtype::f32; }), "bf16 or f16"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.hq = 3, a.hkv = 2; }), "query heads"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.nq = a.nk + 1; }), "more rows than keys"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.nk = -1; }), "keys"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.dk = 60; }), "head_dim"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.scale = NAN; }), "scale"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.norm = 0; }), "norm"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.stride = 12; }), "stride"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.block = 96; }), "block"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.mass = NAN; }), "mass"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.mass = 0; }), "mass"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.sink = 0; }), "sink"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.k.data = nullptr; }), "null"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.columns = nullptr; }), "columns"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.room = nullptr; }), "room"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.room = static_cast<char*>(a.room) + 8; }), "aligned"));
  EXPECT_TRUE(names(reason([](XAttention& a) { a.nq = a.nk = 1 << 20, a.stride = 1; }), "stride"));
}

}  // namespace
}  // namespace lacuna
