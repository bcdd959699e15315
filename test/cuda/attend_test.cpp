// SPDX-License-Identifier: Apache-2.0
// Op attend on the GPU against the reference in double precision: random calls in which every pair of
// levels of any two factors occurs, with the bound of every other kernel (twice plain f32's error).
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include "gpu_test.h"
#include "kernel/cuda/attend.h"
#include "support/attend_case.h"
#include "support/pairwise.h"

namespace lacuna {
namespace {

using test::AttendCase;
using test::AttendResult;
using test::AttendSpec;
using test::MaskKind;
using test::must;

// Device copies of a call's arrays; what the kernel wrote comes back by fetch().
class DeviceCall {
 public:
  explicit DeviceCall(const op::Attend::Args& host) : args(host) {
    const auto& h = host;
    const auto up = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    const std::size_t rows = up(std::int64_t{h.hq} * h.n_rows), element = up(block_bytes(h.k_type));
    args.q = copy(h.q, up((h.hq - 1) * h.q_head + (h.n_rows - 1) * h.q_row + h.dk));
    args.k = bytes(h.k, up((h.hkv - 1) * h.k_head + (h.n_cells - 1) * h.k_cell + h.dk) * element);
    args.v = bytes(h.v, up((h.hkv - 1) * h.v_head + (h.n_cells - 1) * h.v_cell + h.dv) * element);
    const std::size_t pointers = up(h.runs.heads) * up(h.runs.n_blocks() + 1);
    const auto n_runs = up(h.runs.row_ptr[pointers - 1]);
    std::int32_t words = 0;
    for (std::size_t r = 0; r < n_runs; ++r) words = std::max(words, h.runs.runs[r].bits + 1);
    args.runs.row_ptr = copy(h.runs.row_ptr, pointers);
    args.runs.runs = copy(h.runs.runs, n_runs);
    args.runs.words = copy(h.runs.words, up(words) * up(h.runs.block_q));
    args.sinks = copy(h.sinks, up(h.hq));
    args.slope = copy(h.slope, up(h.hq));
    args.bias = copy(h.bias, up((h.n_rows - 1) * h.bias_row + h.n_cells));
    args.out = back(h.out, up((h.hq - 1) * h.out_head + (h.n_rows - 1) * h.out_row + h.dv));
    args.lse = back(h.lse, rows);
    args.resume = {back(h.resume.m, rows), back(h.resume.l, rows), back(h.resume.acc, rows * up(h.dv))};
  }
  ~DeviceCall() {
    for (void* p : owned_) cudaFree(p);
  }
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  void fetch() {
    must(cudaDeviceSynchronize());
    for (const auto& b : back_) must(cudaMemcpy(b.host, b.device, b.bytes, cudaMemcpyDeviceToHost));
  }
  op::Attend::Args args;

 private:
  struct Back {
    void* host;
    const void* device;
    std::size_t bytes;
  };
  void* bytes(const void* host, std::size_t n) {
    if (!host) return nullptr;
    void* device = nullptr;
    must(cudaMalloc(&device, n ? n : 1));
    owned_.push_back(device);
    must(cudaMemcpy(device, host, n, cudaMemcpyHostToDevice));
    return device;
  }
  template <class T>
  T* copy(const T* host, std::size_t n) {
    return static_cast<T*>(bytes(host, n * sizeof(T)));
  }
  float* back(float* host, std::size_t n) {
    float* device = copy(host, n);
    if (host) back_.push_back({host, device, n * sizeof(float)});
    return device;
  }
  std::vector<void*> owned_;
  std::vector<Back> back_;
};

constexpr int kDims[] = {16, 24, 64, 80, 128, 200, 256};
constexpr int kOtherDims[] = {0, 16, 136};  // dv; 0 = as dk
constexpr std::pair<int, int> kHeads[] = {{1, 1}, {8, 2}, {5, 5}, {9, 1}};
constexpr int kRows[] = {1, 2, 5, 17, 65};
constexpr std::int64_t kCells[] = {1, 31, 32, 33, 127, 389};
constexpr int kBlocks[] = {1, 16, 33, 128};
constexpr float kCaps[] = {0.0f, 20.0f};
constexpr float kSpreads[] = {1.0f, 4.0f, 40.0f};

std::vector<AttendSpec> specs() {
  std::vector<AttendSpec> all;
  for (const auto& x : test::pairwise({3, 7, 3, 4, 5, 6, 4, 5, 2, 2, 2, 3, 3, 2, 2, 3, 2}, 30)) {
    AttendSpec s;
    s.kv = static_cast<Dtype>(x[0]);
    s.dk = kDims[x[1]];
    s.dv = kOtherDims[x[2]] ? kOtherDims[x[2]] : s.dk;
    s.hq = kHeads[x[3]].first;
    s.hkv = kHeads[x[3]].second;
    s.n_rows = kRows[x[4]];
    s.n_cells = kCells[x[5]];
    s.block_q = kBlocks[x[6]];
    s.mask = static_cast<MaskKind>(x[7]);
    s.lists = x[8] ? test::Lists::per_head : test::Lists::shared;
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
    s.seed = 500 + all.size();
    all.push_back(s);
  }
  return all;
}

class CudaAttend : public test::GpuTest {};

TEST_F(CudaAttend, BoundOfEveryKernel) {
  const kernel::Kernel<op::Attend> as{.name = "cuda.sm80", .pack = PackFormat::lane16_f32};  // f32 throughout
  int taken = 0;
  double worst = 0;
  for (const AttendSpec& s : specs()) {
    AttendCase c(s);
    AttendResult got;
    const op::Attend::Args a = c.args(PackFormat::none, Precision::high, got);
    ASSERT_EQ(kernel::cuda::attend_why_not(a), nullptr) << s.line();
    for (int again = 0; again < 2; ++again) {
      AttendResult fresh;
      DeviceCall call(c.args(PackFormat::none, Precision::high, fresh));
      ASSERT_EQ(kernel::cuda::attend(call.args, nullptr), nullptr) << s.line();
      call.fetch();
      if (HasFatalFailure()) return;
      EXPECT_TRUE(!again || got.same_bits(fresh)) << "other bits the second time: " << s.line();
      got = fresh;
    }
    const AttendResult want = c.reference();
    const auto allowed = test::allowed_error(as, c, want);
    const auto error = c.distance(got, want);
    EXPECT_TRUE(error.same_shape && error.out <= allowed.out && error.lse <= allowed.lse)
        << "out off by " << error.out << " (allowed " << allowed.out << "), lse by " << error.lse << " (allowed "
        << allowed.lse << "), shape " << error.same_shape << ": " << s.line();
    worst = std::max(worst, error.out / allowed.out);
    ++taken;
  }
  RecordProperty("cases", taken);
  fmt::print("{} cases, largest error {:.2f} of the allowed one\n", taken, worst);
}

TEST_F(CudaAttend, RefusesWhatItCannotTake) {
  op::Attend::Args a;
  a.hq = 3;
  a.hkv = 2;
  a.dk = a.dv = 64;
  EXPECT_NE(kernel::cuda::attend_why_not(a), nullptr);
  a.hkv = 1;
  EXPECT_EQ(kernel::cuda::attend_why_not(a), nullptr);
  a.dv = 264;
  EXPECT_NE(kernel::cuda::attend_why_not(a), nullptr);
}

}  // namespace
}  // namespace lacuna
