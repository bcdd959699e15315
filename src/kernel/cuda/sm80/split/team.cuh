// SPDX-License-Identifier: Apache-2.0
// A warp of a team: the online softmax of its 16 query rows over the team's units of a piece. Nobody outside the team
// is waited for.
#pragma once

#include "kernel/cuda/sm80/split/keys.cuh"
#include "kernel/cuda/softmax.cuh"

namespace lacuna::kernel::cuda::sm80::split {

// What a warp holds of its rows: sums of weighted values as the tensor cores leave them, and the softmax.
template <class S>
struct Sums {
  float o[S::kDv / 2];
  Softmax soft;
};

template <class S>
class Team {
  using T = typename S::Type;

 public:
  // q: the rows' queries in shared memory; ring: the team's stages.
  __device__ __forceinline__ Team(const Call& c, const Piece& p, const unsigned char* q, unsigned char* ring, int team,
                                  int warp, int lane)
      : c_(c), ring_(ring), team_(team), lane_(lane), keys_(c, p, team, warp, lane) {
    units_ = max(0, (p.end - p.begin - team + S::kTeams - 1) / S::kTeams);
    q_ = shared_address(q) + (warp * 16 + lane % 16) * S::kPitchK + lane / 16 * 16;
    for (int i = 0; i < 2; ++i) {
      const int row = p.row + warp * 16 + lane / 4 + 8 * i;
      last_[i] = c.causal ? p.length - c.nq + row % c.nq : p.length - 1;
    }
  }

  // The first stages are on their way; before attend() the thread block must have all its queries.
  __device__ __forceinline__ void begin() {
    for (int stage = 0; stage < S::kStages - 1; ++stage) keys_.load(ring_ + stage * S::kStageBytes);
  }

  __device__ __forceinline__ void attend(Sums<S>& x) {
    x.soft.clear();
#pragma unroll
    for (float& o : x.o) o = 0;
    int stage = 0, free = S::kStages - 1;
    for (int unit = 0; unit < units_; ++unit) {
      wait_copies<S::kStages - 2>();
      sync();
      keys_.load(ring_ + free * S::kStageBytes);  // where all were done a turn ago
      add(x, ring_ + stage * S::kStageBytes);
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
      free = free + 1 == S::kStages ? 0 : free + 1;
    }
    wait_copies<0>();
    x.soft.finish();
  }

 private:
  __device__ __forceinline__ void sync() const {
    if constexpr (S::kTeam == 1)
      __syncwarp();
    else
      named_sync(1 + team_, 32 * S::kTeam);
  }

  __device__ __forceinline__ void add(Sums<S>& x, unsigned char* stage) const {
    float s[S::kKeys / 2];
    score(s, shared_address(stage));
    hide(s, Keys<S>::numbers(stage));
    x.soft.weigh(s, c_.scale_log2);
#pragma unroll
    for (int i = 0; i < S::kDv / 2; ++i) x.o[i] *= x.soft.shrink[i / 2 % 2];
    add_values(x.o, s, shared_address(stage) + S::kKeys * S::kPitchK);
  }

  __device__ __forceinline__ void score(float (&s)[S::kKeys / 2], std::uint32_t k) const {
    const std::uint32_t row = k + (lane_ / 16 * 8 + lane_ % 8) * S::kPitchK + lane_ / 8 % 2 * 16;
#pragma unroll
    for (float& x : s) x = 0;
#pragma unroll
    for (int step = 0; step < S::kDk / 16; ++step) {
      std::uint32_t q[4], keys[4];
      load_matrices(q, q_ + step * 32);
#pragma unroll
      for (int g = 0; g < S::kKeys / 16; ++g) {
        load_matrices(keys, row + g * 16 * S::kPitchK + step * 32);
        multiply<T>(s + 8 * g, q, keys[0], keys[1]);
        multiply<T>(s + 8 * g + 4, q, keys[2], keys[3]);
      }
    }
  }

  __device__ __forceinline__ void hide(float (&s)[S::kKeys / 2], const std::int32_t* numbers) const {
#pragma unroll
    for (int g = 0; g < S::kKeys / 8; ++g) {
      const int2 key = *reinterpret_cast<const int2*>(numbers + 8 * g + lane_ % 4 * 2);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (key.x > last_[i]) s[4 * g + 2 * i] = minus_infinity();
        if (key.y > last_[i]) s[4 * g + 2 * i + 1] = minus_infinity();
      }
    }
  }

  __device__ __forceinline__ void add_values(float (&o)[S::kDv / 2], const float (&p)[S::kKeys / 2],
                                             std::uint32_t v) const {
    const std::uint32_t row = v + lane_ % 16 * S::kPitchV + lane_ / 16 * 16;
#pragma unroll
    for (int g = 0; g < S::kKeys / 16; ++g) {
      const float* w = p + 8 * g;
      const std::uint32_t weights[4] = {pack<T>(w[0], w[1]), pack<T>(w[2], w[3]), pack<T>(w[4], w[5]),
                                        pack<T>(w[6], w[7])};
#pragma unroll
      for (int step = 0; step < S::kDv / 16; ++step) {
        std::uint32_t values[4];
        load_transposed(values, row + g * 16 * S::kPitchV + step * 32);
        multiply<T>(o + 8 * step, weights, values[0], values[1]);
        multiply<T>(o + 8 * step + 4, weights, values[2], values[3]);
      }
    }
  }

  const Call& c_;
  unsigned char* const ring_;
  const int team_, lane_;
  Keys<S> keys_;
  int units_;        // of this team
  int last_[2];      // the last key that the thread's rows see
  std::uint32_t q_;  // where the lane reads queries
};

}  // namespace lacuna::kernel::cuda::sm80::split
