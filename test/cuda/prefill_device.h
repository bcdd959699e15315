// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/prefill.h on the device, and the list of calls that tests go through.
#pragma once

#include "gpu_test.h"
#include "prefill_case.h"
#include "support/pairwise.h"

namespace lacuna::test {

// A case's arrays on the device.
class DeviceCase : public DeviceOut {
 public:
  explicit DeviceCase(const PrefillCase& c)
      : DeviceOut(c),
        q_(c.q.data),
        k_(c.k.data),
        v_(c.v.data),
        row_ptr_(c.row_ptr),
        columns_(c.columns),
        bits_(c.bits),
        words_(c.words),
        work_(2) {
    const PrefillSpec& s = c.s;
    a.dtype = s.dtype, a.batch = s.batch, a.hq = s.hq, a.hkv = s.hkv, a.nq = s.nq, a.nk = s.nk, a.dk = s.dk,
    a.dv = s.dv;
    a.q = like(c.q, q_.data()), a.k = like(c.k, k_.data()), a.v = like(c.v, v_.data());
    a.out = out_argument(), a.lse = lse_argument();
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
  }
  static int masks(const PrefillCase& c) { return static_cast<int>(c.words.size()) / (c.s.block_q * c.s.block_k / 32); }
  kernel::cuda::ListError list_error() const {
    const DeviceArray<kernel::cuda::ListError> found(std::vector<kernel::cuda::ListError>{{}});
    if (kernel::cuda::check_lists(a, found.data(), nullptr)) return kernel::cuda::ListError{~0u};  // not started
    return found.get()[0];
  }
  std::vector<std::uint32_t> work() const { return work_.get(); }

  kernel::cuda::Prefill a;

 private:
  DeviceArray<std::uint16_t> q_, k_, v_;
  DeviceArray<std::int32_t> row_ptr_, columns_, bits_;
  DeviceArray<std::uint32_t> words_, work_;
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
