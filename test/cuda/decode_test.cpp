// SPDX-License-Identifier: Apache-2.0
// The decode kernel on the GPU against op attend's reference: random calls in which every pair of levels of any two
// factors occurs, poisoned outputs, the same bits again and through a CUDA graph.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "decode_case.h"
#include "gpu_test.h"
#include "support/pairwise.h"

namespace lacuna {
namespace {

using kernel::cuda::Decode;
using kernel::cuda::PageError;
using test::DecodeCase;
using test::DecodeSpec;
using test::DeviceArray;
using test::Distance;
using test::HostTensor;
using test::must;
using test::Names;

// A case's arrays on the device.
class DeviceCase : public test::DeviceOut {
 public:
  explicit DeviceCase(const DecodeCase& c)
      : DeviceOut(c),
        q_(c.q.data),
        k_(c.s.page ? c.cache_k.data : c.k.data),
        v_(c.s.page ? c.cache_v.data : c.v.data),
        lengths_(c.lengths),
        counts_(c.counts),
        pages_(c.pages),
        table_(c.table) {
    const DecodeSpec& s = c.s;
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk,
    a.dv = s.dv;
    a.q = test::like(c.q, q_.data()), a.out = out_argument(), a.lse = lse_argument();
    a.k = test::like(s.page ? c.cache_k : c.k, k_.data()), a.v = test::like(s.page ? c.cache_v : c.v, v_.data());
    if (s.lengths) a.lengths = lengths_.data();
    a.scale = c.scale(), a.causal = s.causal;
    if (s.names != Names::all) a.lists = {s.cells, c.list_heads(), c.most(), counts_.data(), pages_.data()};
    if (s.page) a.table = {s.page, c.table_most(), c.n_pages, table_.data()};
    work_ = std::make_unique<DeviceArray<unsigned char>>(kernel::cuda::decode_work_bytes(a));
    must(cudaMemset(work_->data(), 0, work_->size()));
    a.work = work_->data();
  }
  PageError error() const {
    DeviceArray<PageError> found(std::vector<PageError>{PageError::none});
    EXPECT_EQ(kernel::cuda::check_pages(a, found.data(), nullptr), nullptr);
    return found.get()[0];
  }

  Decode a;

 private:
  DeviceArray<std::uint16_t> q_, k_, v_;
  DeviceArray<std::int32_t> lengths_, counts_, pages_, table_;
  std::unique_ptr<DeviceArray<unsigned char>> work_;
};

std::vector<DecodeSpec> specs() {
  static constexpr std::pair<int, int> kDims[] = {{64, 64}, {80, 80}, {96, 96}, {128, 128}, {192, 128}, {256, 256}};
  static constexpr std::pair<int, int> kHeads[] = {{1, 1}, {8, 2}, {3, 3}, {16, 1}, {14, 2}};
  static constexpr int kQueries[] = {1, 2, 3, 8, 16};
  static constexpr int kKeys[] = {1, 15, 16, 65, 257, 1000, 3000};
  static constexpr int kCells[] = {1, 16, 32, 64}, kPages[] = {0, 1, 16, 64};
  static constexpr double kDensities[] = {0.1, 0.5, 1.0};
  static constexpr float kSpreads[] = {1.0f, 8.0f};
  std::vector<DecodeSpec> all;
  for (const auto& x : test::pairwise({2, 6, 5, 5, 7, 4, 4, 4, 3, 2, 2, 2, 2, 2, 2, 3}, 30)) {
    DecodeSpec s;
    s.dtype = x[0] ? Dtype::f16 : Dtype::bf16;
    s.dk = kDims[x[1]].first, s.dv = kDims[x[1]].second;
    s.hq = kHeads[x[2]].first, s.hkv = kHeads[x[2]].second;
    s.nq = kQueries[x[3]], s.nk = kKeys[x[4]];
    s.names = static_cast<Names>(x[5]), s.cells = kCells[x[6]], s.page = kPages[x[7]];
    s.density = kDensities[x[8]];
    s.causal = x[9], s.token_major = x[10], s.lse = !x[11], s.lengths = x[12], s.shared = x[13];
    s.spread = kSpreads[x[14]], s.batch = 1 + static_cast<int>(x[15]);
    s.seed = 700 + all.size();
    all.push_back(s);
  }
  return all;
}

void start(const DeviceCase& on, const DecodeSpec& s) {
  ASSERT_EQ(kernel::cuda::decode_why_not(on.a), nullptr) << s.line();
  ASSERT_EQ(kernel::cuda::decode(on.a, nullptr), nullptr) << s.line();
  must(cudaDeviceSynchronize());
}

class CudaDecode : public test::GpuTest {};

TEST_F(CudaDecode, BoundOfEveryKernel) {
  int taken = 0;
  double worst = 0;
  for (auto& future : test::coming(specs(), test::expect<DecodeCase, DecodeSpec>)) {
    const auto e = future.get();
    const DecodeSpec& s = e.c->s;
    DeviceCase on(*e.c);
    EXPECT_EQ(on.error(), PageError::none) << s.line();
    start(on, s);
    if (HasFatalFailure()) return;
    bool clean = true;
    const Distance d = test::between(on.result(*e.c, clean), e.want);
    EXPECT_TRUE(clean) << "a place not written, or one written that is not its own: " << s.line();
    EXPECT_TRUE(d.same_shape && d.out <= e.allowed.out && d.lse <= e.allowed.lse)
        << "out off by " << d.out << " (allowed " << e.allowed.out << "), lse by " << d.lse << " (allowed "
        << e.allowed.lse << "), shape " << d.same_shape << ": " << s.line();
    worst = std::max(worst, d.out / e.allowed.out);

    const std::vector<std::uint16_t> out = on.out();
    const std::vector<float> lse = on.lse();
    on.poison();
    start(on, s);
    EXPECT_EQ(out, on.out()) << "other bits the second time: " << s.line();
    EXPECT_EQ(0, std::memcmp(lse.data(), on.lse().data(), lse.size() * sizeof(float))) << s.line();
    ++taken;
  }
  fmt::print("{} cases, largest error {:.2f} of the allowed one\n", taken, worst);
}

// Uneven sequences that many thread blocks share, and other work on the card beside.
TEST_F(CudaDecode, SameBitsEveryTime) {
  for (const Names names : {Names::all, Names::some}) {
    DecodeSpec s;
    s.batch = 5, s.hq = 16, s.hkv = 4, s.nk = 3000, s.lengths = true, s.names = names, s.page = 16;
    DeviceCase on{DecodeCase(s)};
    start(on, s);
    test::same_bits_beside_other_work(
        300, s.line(), [&] { on.poison(); }, [&] { return kernel::cuda::decode(on.a, nullptr); },
        [&] { return on.out(); });
  }
}

// A graph holds the call, and reads lengths and lists anew each time.
TEST_F(CudaDecode, GraphsReplayIt) {
  DecodeSpec s;
  s.nk = 2000, s.lengths = true;
  const DecodeCase c(s), other([&] {
    DecodeSpec t = s;
    t.seed = 2;
    return t;
  }());
  ASSERT_NE(c.lengths, other.lengths);
  DeviceCase on(c);
  test::Graph graph([&](cudaStream_t stream) { ASSERT_EQ(kernel::cuda::decode(on.a, stream), nullptr); });
  for (const DecodeCase* now : {&c, &other, &c}) {
    must(cudaMemcpy(const_cast<std::int32_t*>(on.a.lengths), now->lengths.data(), now->lengths.size() * 4,
                    cudaMemcpyHostToDevice));
    must(cudaMemcpy(on.a.k.data, now->k.data.data(), now->k.data.size() * 2, cudaMemcpyHostToDevice));
    must(cudaMemcpy(on.a.v.data, now->v.data.data(), now->v.data.size() * 2, cudaMemcpyHostToDevice));
    must(cudaMemcpy(on.a.q.data, now->q.data.data(), now->q.data.size() * 2, cudaMemcpyHostToDevice));
    on.poison();
    must(cudaDeviceSynchronize());
    graph.replay(1);
    bool clean = true;
    const Distance d = test::between(on.result(*now, clean), now->reference());
    EXPECT_TRUE(clean && d.same_shape && d.out < 0.02 && d.lse < 0.02) << d.out << ' ' << d.lse;
  }
}

// A visible key that is no number spreads to the rows of its KV head that see it, and to no other.
TEST_F(CudaDecode, NanSpreadsToItsRows) {
  DecodeSpec s;
  s.nq = 8, s.nk = 500;
  DecodeCase c(s);
  c.k.data[c.k.at(1, 0, s.nk - 3, 5)] = HostTensor::kUntouched;  // the last three rows see it
  DeviceCase on(c);
  start(on, s);
  const auto out = on.out();
  const auto lse = on.lse();
  for (int b = 0; b < s.batch; ++b)
    for (int h = 0; h < s.hq; ++h)
      for (int i = 0; i < s.nq; ++i) {
        const bool sees = b == 1 && h < s.hq / s.hkv && i >= s.nq - 3;
        EXPECT_EQ(std::isnan(c.number(out[c.out_layout().at(b, h, i, 0)])), sees) << b << ' ' << h << ' ' << i;
        EXPECT_EQ(std::isnan(lse[DeviceCase::kGap + c.place(b, h, i)]), sees) << b << ' ' << h << ' ' << i;
      }
}

TEST_F(CudaDecode, NothingToDo) {
  DecodeSpec s;
  s.nk = 0;
  const DecodeCase c(s);
  DeviceCase on(c);
  on.a.k.data = on.a.v.data = nullptr;
  start(on, s);
  bool clean = true;
  const test::HostResult r = on.result(c, clean);
  EXPECT_TRUE(clean);
  for (const float x : r.out) EXPECT_EQ(x, 0.0f);
  for (const float x : r.lse) EXPECT_EQ(x, -INFINITY);
  on.a.batch = 0;
  start(on, s);
}

TEST_F(CudaDecode, ListsAreChecked) {
  DecodeSpec s;
  s.nk = 700, s.names = Names::some, s.density = 1, s.page = 32, s.lengths = true;
  const auto with = [&](auto&& spoil) {
    DecodeCase c(s);
    spoil(c);
    const DeviceCase on(c);
    start(on, s);  // wrong numbers read nothing outside the tensors: compute-sanitizer looks
    return on.error();
  };
  EXPECT_EQ(with([](DecodeCase&) {}), PageError::none);
  EXPECT_EQ(with([](DecodeCase& c) { c.lengths[1] = 701; }), PageError::length);
  EXPECT_EQ(with([](DecodeCase& c) { c.lengths[0] = -1; }), PageError::length);
  EXPECT_EQ(with([](DecodeCase& c) { c.counts[1] = c.most() + 1; }), PageError::count);
  EXPECT_EQ(with([](DecodeCase& c) { c.counts[1] = -1; }), PageError::count);
  EXPECT_EQ(with([](DecodeCase& c) { c.pages[3] = 44; }), PageError::page);
  EXPECT_EQ(with([](DecodeCase& c) { c.pages[3] = INT32_MAX; }), PageError::page);
  EXPECT_EQ(with([](DecodeCase& c) { c.pages[3] = INT32_MIN; }), PageError::page);
  EXPECT_EQ(with([](DecodeCase& c) { c.pages[0] = c.pages[1] = c.pages[2] = 1; }), PageError::twice);
  EXPECT_EQ(with([](DecodeCase& c) { c.table[2] = c.n_pages; }), PageError::table);
  EXPECT_EQ(with([](DecodeCase& c) { c.table[2] = -1; }), PageError::table);
}

TEST_F(CudaDecode, RefusesWhatItCannotTake) {
  DecodeSpec s;
  s.names = Names::some, s.page = 16;
  const DeviceCase on{DecodeCase(s)};
  const auto refuses = [&](auto&& spoil) {
    Decode a = on.a;
    spoil(a);
    return kernel::cuda::decode_why_not(a) != nullptr && kernel::cuda::decode_work_bytes(a) == 0;
  };
  EXPECT_FALSE(refuses([](Decode&) {}));
  EXPECT_TRUE(refuses([](Decode& a) { a.dtype = Dtype::f32; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.hq = 5; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.dk = 72; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.nq = 0; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.nq = 17; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.nk = -1; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.scale = 0; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.k.data = nullptr; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.q.data = static_cast<char*>(a.q.data) + 2; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.v.row += 4; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.k.head = -8; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.lists.cells = 48; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.lists.heads = 3; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.lists.pages = nullptr; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.table.cells = 0; }));
  EXPECT_TRUE(refuses([](Decode& a) { a.table.most = 1; }));
}

}  // namespace
}  // namespace lacuna
