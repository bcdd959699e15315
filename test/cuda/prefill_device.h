// SPDX-License-Identifier: Apache-2.0
// A generated call on the device, the distance between results, and the list of calls that tests go through.
#pragma once

#include "device.h"
#include "prefill_case.h"
#include "support/pairwise.h"

namespace lacuna::test {

// A case's arrays on the device, and its outputs with poison around and between the rows.
class DeviceCase {
 public:
  explicit DeviceCase(const PrefillCase& c)
      : q_(c.q.data),
        k_(c.k.data),
        v_(c.v.data),
        row_ptr_(c.row_ptr),
        columns_(c.columns),
        bits_(c.bits),
        words_(c.words),
        out_(layout(c).data),
        lse_(static_cast<std::size_t>(c.s.batch) * c.s.hq * c.s.nq + 2 * kGap),
        work_(2) {
    const PrefillSpec& s = c.s;
    const auto tensor = [](const HostTensor& t, void* data) {
      return kernel::cuda::Tensor4{data, t.batch, t.head, t.row};
    };
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk,
    a.dv = s.dv;
    a.q = tensor(c.q, q_.data()), a.k = tensor(c.k, k_.data()), a.v = tensor(c.v, v_.data());
    a.out = tensor(layout(c), out_.data());
    if (s.lse) a.lse = lse_.data() + kGap;
    a.scale = c.scale(), a.causal = s.causal;
    if (s.cover != Cover::dense) {
      a.lists.block_q = s.block_q, a.lists.block_k = s.block_k, a.lists.batches = c.list_batches(),
      a.lists.heads = c.lists();
      a.lists.n_entries = static_cast<int>(c.columns.size()), a.lists.n_bits = masks(c);
      a.lists.row_ptr = row_ptr_.data(), a.lists.columns = columns_.data();
      if (s.cover == Cover::partial) a.lists.bits = bits_.data(), a.lists.words = words_.data();
    }
    work_.set({0, 0});
    a.work = work_.data();
    poison();
  }
  static int masks(const PrefillCase& c) { return static_cast<int>(c.words.size()) / (c.s.block_q * c.s.block_k / 32); }
  static HostTensor layout(const PrefillCase& c) {
    HostTensor t;
    t.shape(c.s.batch, c.s.hq, c.s.nq, c.s.dv, c.s.token_major);
    return t;
  }
  void poison() {
    must(cudaMemset(lse_.data(), 0xff, lse_.size() * sizeof(float)));
    out_.set(std::vector<std::uint16_t>(out_.size(), HostTensor::kUntouched));
  }
  kernel::cuda::ListError list_error() const {
    const DeviceArray<kernel::cuda::ListError> found(std::vector<kernel::cuda::ListError>{{}});
    if (kernel::cuda::check_lists(a, found.data(), nullptr)) return kernel::cuda::ListError{~0u};  // not started
    return found.get()[0];
  }
  std::vector<std::uint16_t> out() const { return out_.get(); }
  std::vector<float> lse() const { return lse_.get(); }
  std::vector<std::uint32_t> work() const { return work_.get(); }

  static constexpr std::size_t kGap = 9;
  kernel::cuda::Prefill a;

 private:
  DeviceArray<std::uint16_t> q_, k_, v_;
  DeviceArray<std::int32_t> row_ptr_, columns_, bits_;
  DeviceArray<std::uint32_t> words_;
  DeviceArray<std::uint16_t> out_;
  DeviceArray<float> lse_;
  DeviceArray<std::uint32_t> work_;
};

// Largest distances, and whether NaN, infinities and what must not be touched agree.
struct Distance {
  double out = 0, lse = 0;
  bool same_shape = true;
  void add(double& worst, float x, float y) {
    if (x == y || (std::isnan(x) && std::isnan(y))) return;
    if (!std::isfinite(x) || !std::isfinite(y))
      same_shape = false;
    else
      worst = std::max(worst, std::fabs(static_cast<double>(x) - y));
  }
};

// Random calls in which every pair of levels of any two factors occurs.
inline std::vector<PrefillSpec> specs() {
  static constexpr std::pair<int, int> kDims[] = {{64, 64}, {80, 80}, {96, 96}, {128, 128}, {192, 128}, {256, 256}};
  static constexpr std::pair<int, int> kHeads[] = {{1, 1}, {4, 2}, {3, 3}, {6, 2}, {8, 1}};
  static constexpr std::pair<int, int> kLengths[] = {{1, 1},     {1, 300},   {64, 64},   {65, 129},
                                                     {127, 255}, {129, 128}, {200, 77},  {300, 420},
                                                     {384, 384}, {193, 512}, {500, 131}, {130, 1}};
  static constexpr double kDensities[] = {0.1, 0.5, 1.0};
  static constexpr float kSpreads[] = {1.0f, 8.0f};
  std::vector<PrefillSpec> all;
  for (const auto& x : pairwise({2, 6, 5, 12, 2, 2, 2, 2, 2, 2, 5, 3, 3, 2, 2}, 30)) {
    PrefillSpec s;
    s.dtype = x[0] ? Dtype::f16 : Dtype::bf16;
    s.dk = kDims[x[1]].first, s.dv = kDims[x[1]].second;
    s.hq = kHeads[x[2]].first, s.hkv = kHeads[x[2]].second;
    s.nq = kLengths[x[3]].first, s.nk = kLengths[x[3]].second;
    s.block_q = x[4] ? 64 : 128, s.block_k = x[5] ? 64 : 128;
    s.causal = x[6], s.token_major = x[7], s.lse = !x[8], s.lists_of_sequences = x[9];
    s.cover = static_cast<Cover>(x[10]), s.share = static_cast<Share>(x[11]);
    s.density = kDensities[x[12]], s.spread = kSpreads[x[13]], s.batch = 1 + static_cast<int>(x[14]);
    s.seed = 300 + all.size();
    all.push_back(s);
  }
  return all;
}

}  // namespace lacuna::test
