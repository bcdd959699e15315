// SPDX-License-Identifier: Apache-2.0
// A consumer warpgroup: its 64 held rows against every stage that its team walks. With X, Y held and x, y walked:
//   s = X x^T, u = Y y^T, p = exp2(scale s - ..), ds = p (u - ..),   d_X += ds x, and of keys d_Y += p y
// By keys s and u are the transposed products of forward's, so that on both sides p and ds come in the registers of a
// left operand and never go through shared memory.
//
// u runs beside the exponentials and d_Y beside ds; the other consumer's products fill what is left. A stage's last
// ones are waited for: p and ds must leave their registers to the next s and u.
#pragma once

#include <lacuna_wgmma.h>

#include "kernel/cuda/sm90a/grad_weights.cuh"

namespace lacuna::kernel::cuda::sm90a::grad {

template <class S>
class Consumer {
  using T = typename S::Type;

  static constexpr int kColumns = kBox * S::kBoxes, kPairs = kColumns / 2;  // of a stage; a thread's share of pairs

  struct State {
    float s[kPairs], u[kPairs];
    float d_x[S::kSumsX ? S::kDk / 2 : 1], d_y[S::kSumsY ? S::kDv / 2 : 1];
    std::uint32_t p[kPairs / 2], ds[kPairs / 2];
    QueryRows<S> rows;
  };

 public:
  __device__ __forceinline__ Consumer(const Call& c, const Team<S>& team, int group, int barrier, int thread)
      : c_(c),
        control_(*team.control),
        held_x_(shared_address(team.held) + group * S::kPanelsX * kBoxBytes),
        held_y_(shared_address(team.held) + (S::kGroups * S::kPanelsX + group * S::kPanelsY) * kBoxBytes),
        stages_(shared_address(team.stages)),
        group_(group),
        barrier_(barrier),
        thread_(thread),
        turns_(group) {}

  __device__ __forceinline__ void run() {
    State x;
    for (Turn<1> held;; held.next()) {
      control_.held_full.wait(held.parity);
      Tile tile = control_.tile;
      if (tile.stages < 0) break;
      tile.row += group_ * kBox;
      if constexpr (!S::kKeys) load_rows(x.rows, tile);
      clear(x.d_x);
      clear(x.d_y);
      for (int i = 0; i < tile.stages; ++i) add_stage(x, tile.row);
      pin(x.d_x);
      pin(x.d_y);
      store(x, tile);
    }
  }

 private:
  __device__ __forceinline__ void add_stage(State& x, int row) {
    const int stage = turn_.index, lane = thread_ % 32;
    const std::uint32_t walked_x = stages_ + stage * S::kStageBytes,
                        walked_y = walked_x + S::kPanelsX * S::kBoxes * kBoxBytes;
    control_.full[stage].wait(turn_.parity);
    turns_.wait();
    products_begin();
    start_pairs<S::kDk>(x.s, held_x_, walked_x);
    if constexpr (S::kSumsX) start_pairs<S::kDv>(x.u, held_y_, walked_y);
    turns_.pass();
    products_wait<S::kSumsX>();
    pin(x.s);
    const Box first = control_.boxes[stage][0], second = control_.boxes[stage][S::kBoxes - 1];
    if (hides<S>(c_, row, first)) hide<S, 0>(x.s, c_, row + first_row(), first, lane);
    if constexpr (S::kBoxes == 2)
      if (hides<S>(c_, row, second)) hide<S, 1>(x.s, c_, row + first_row(), second, lane);
    const float* rows = control_.rows[S::kKeys ? stage : 0];
    x.rows.weigh(x.s, rows, c_.scale_log2, lane);
    if constexpr (S::kSumsY) {
      pack_all(x.p, x.s);
      products_begin();
      start_sum<S::kDv>(x.d_y, x.p, walked_y);
    }
    if constexpr (S::kSumsX) {
      products_wait<S::kSumsY>();
      pin(x.u);
      x.rows.differentiate(x.u, x.s, rows, lane);
      pack_all(x.ds, x.u);
      products_begin();
      start_sum<S::kDk>(x.d_x, x.ds, walked_x);
    }
    products_wait<0>();
    release(control_.empty[stage]);
    turn_.next();
  }

  // pairs[64][kColumns] = held[64][kD] walked[kColumns][kD]^T
  template <int kD>
  static __device__ __forceinline__ void start_pairs(float (&pairs)[kPairs], std::uint32_t held, std::uint32_t walked) {
    asm volatile("" : "+r"(held));  // or every operand of it stays in registers through the loop over boxes
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      const int panel = step / 4 * kBoxBytes, inside = step % 4 * 32;
      Wgmma<kColumns, T>::scores(pairs, operand(held + panel + inside), operand(walked + S::kBoxes * panel + inside),
                                 step > 0);
    }
    products_commit();
  }
  // sum[64][kD] += pairs[64][kColumns] walked[kColumns][kD]
  template <int kD>
  static __device__ __forceinline__ void start_sum(float (&sum)[kD / 2], const std::uint32_t (&pairs)[kPairs / 2],
                                                   std::uint32_t walked) {
#pragma unroll
    for (int step = 0; step < kColumns / 16; ++step)
      Wgmma<kD, T>::values(sum, pairs + 4 * step, operand(walked + step * 16 * 128, S::kBoxes * kBoxBytes));
    products_commit();
  }
  static __device__ __forceinline__ void pack_all(std::uint32_t (&to)[kPairs / 2], const float (&from)[kPairs]) {
#pragma unroll
    for (int i = 0; i < kPairs / 2; ++i) to[i] = pack<T>(from[2 * i], from[2 * i + 1]);
  }
  template <int N>
  static __device__ __forceinline__ void clear(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = 0;
  }

  __device__ __forceinline__ int first_row() const { return thread_ / 32 * 16 + thread_ % 32 / 4; }  // of the 64

  __device__ __forceinline__ void load_rows(QueryRows<S>& rows, const Tile& t) const {
    const float* from = c_.rows + grad_row_at(std::int64_t{t.batch} * c_.hq + t.head, t.row, c_.nq) + first_row();
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // a group beyond the last rows has none
      rows.x[i] = t.row < c_.nq ? from[8 * i] : -minus_infinity();
      rows.y[i] = t.row < c_.nq ? from[8 * i + kBox] : 0.0f;
    }
  }

  // One arrival a warp, when all its threads are done.
  __device__ __forceinline__ void release(Barrier& b) {
    __syncwarp();
    if (thread_ % 32 == 0) b.arrive();
  }

  // Sums go through the group's part of what was held, and leave by TMA, which knows where the tensors end.
  __device__ __forceinline__ void store(const State& x, const Tile& t) {
    named_sync(barrier_, 128);  // all four warps are done with it
    if constexpr (S::kSumsX) stage<S::kDk>(x.d_x, held_x_, c_.scale);
    if constexpr (S::kSumsY) stage<S::kDv>(x.d_y, held_y_, 1);
    fence_async();
    named_sync(barrier_, 128);
    if (thread_ != 0) return;
    for (int panel = 0; S::kSumsX && panel < S::kPanelsX; ++panel)
      store_box(c_.d_x, held_x_ + panel * kBoxBytes, panel * kBox, t.row, t.head, t.batch);
    for (int panel = 0; S::kSumsY && panel < S::kPanelsY; ++panel)
      store_box(c_.d_y, held_y_ + panel * kBoxBytes, panel * kBox, t.row, t.head, t.batch);
    commit_stores();
    wait_stores_read();
    control_.held_empty.arrive();
  }
  template <int kD>
  __device__ __forceinline__ void stage(const float (&sum)[kD / 2], std::uint32_t to, float factor) const {
    const int lane = thread_ % 32, row = thread_ / 32 * 16 + lane % 16;
    const auto pair = [&](int i) { return pack<T>(sum[i] * factor, sum[i + 1] * factor); };
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      const int piece = step % 4 * 2 + lane / 16;  // of 8 columns
      store_matrices(to + step / 4 * kBoxBytes + row * 128 + (piece ^ row % 8) * 16, pair(8 * step), pair(8 * step + 2),
                     pair(8 * step + 4), pair(8 * step + 6));
    }
  }

  const Call& c_;
  Control<S>& control_;
  const std::uint32_t held_x_, held_y_, stages_;
  const int group_, barrier_, thread_;
  Turns<S> turns_;
  Turn<S::kStages> turn_;
};

}  // namespace lacuna::kernel::cuda::sm90a::grad
