// SPDX-License-Identifier: Apache-2.0
// A consumer warpgroup: the online softmax of its 64 rows over the tile's stages of keys.
//
// Scores of stage j are started before the values of stage j - 1 are added, so that the tensor cores work while
// the threads exponentiate; where a tile ends, the two belong to different tiles. The weights stay in registers: the
// layout of a sum is that of a left operand. With several groups a numbered barrier lets them start products in turn,
// one exponentiating while another multiplies (FlashAttention-3, arXiv:2407.08608, sections 3.1 and 3.2).
#pragma once

#include <lacuna_wgmma.h>

#include "kernel/cuda/sm90a/shared.cuh"
#include "kernel/cuda/sm90a/softmax.cuh"

namespace lacuna::kernel::cuda::sm90a {

template <class S>
class Consumer {
  using T = typename S::Type;
  static constexpr int kScores = S::kKeys / 2, kSums = S::kDv / 2;

  // The group's rows of a tile, and the buffer of Q they came in.
  struct Tile {
    Rows rows;
    int buffer;
  };
  // What a thread holds in registers: scores and then weights, the sum of weighted values, weights as an operand.
  struct State {
    float s[kScores], o[kSums];
    std::uint32_t p[kScores / 2];
    Softmax soft;
  };

 public:
  __device__ __forceinline__ Consumer(const Call& c, const Shared<S>& shared, int group, int thread)
      : c_(c),
        control_(*shared.control),
        q_(shared_address(shared.q) + group * S::kPanelsK * kBoxBytes),
        k_(shared_address(shared.k)),
        v_(shared_address(shared.v)),
        group_(group),
        thread_(thread),
        turns_(group) {}

  __device__ __forceinline__ void run() {
    State x;
    Tile before{};      // a tile that was walked, but for the values of its last stage,
    bool open = false;  // if there is one
    for (Turn<kRing> slot;; slot.next()) {
      control_.slot_full[slot.index].wait(slot.parity);
      const int stages = control_.slots[slot.index].stages;
      const Tile tile{rows_of(c_, control_.slots[slot.index].rows, group_), q_turn_.index};
      release(control_.slot_empty[slot.index]);
      if (open && (stages <= 0 || !S::kJoinsTiles)) {
        add_last_values(x);
        store(x.o, x.soft, before);
        open = false;
      }
      if (stages < 0) break;
      free_queries();
      control_.q_full[q_turn_.index].wait(q_turn_.parity);
      q_turn_.next();
      if (stages == 0) {
        x.soft.clear();
        clear(x.o);
        store(x.o, x.soft, tile);
        continue;
      }
      if (!open) first_stage(x, tile);
      for (int stage = open ? 0 : 1; stage < stages; ++stage) next_stage(x, tile, before, S::kJoinsTiles && stage == 0);
      before = tile;
      open = true;
    }
    if (thread_ == 0) wait_stores_read();
  }

 private:
  __device__ __forceinline__ void first_stage(State& x, const Tile& tile) {
    control_.k_full[k_turn_.index].wait(k_turn_.parity);
    products_begin();
    start_scores(x.s, tile);
    products_wait<0>();
    pin(x.s);
    x.soft.clear();
    weigh(x, tile);
    pack_weights(x);
    clear(x.o);
  }

  // Scores and weights of a stage, beside the values of the one before; joins: those are the last of the tile before.
  __device__ __forceinline__ void next_stage(State& x, const Tile& tile, const Tile& before, bool joins) {
    control_.k_full[k_turn_.index].wait(k_turn_.parity);
    turns_.wait();
    products_begin();
    start_scores(x.s, tile);
    control_.v_full[v_turn_.index].wait(v_turn_.parity);
    products_begin();
    start_values(x);
    turns_.pass();
    products_wait<1>();
    pin(x.s);
    const Softmax done = x.soft;
    if (joins) x.soft.clear();
    weigh(x, tile);
    if (S::kJoinsTiles && !joins) free_queries();
    products_wait<0>();
    pin(x.o);
    release_values();
    pack_weights(x);  // not before: the products were reading them
    if (joins) {
      store(x.o, done, before);
      clear(x.o);
    } else {
#pragma unroll
      for (int i = 0; i < kSums; ++i) x.o[i] *= x.soft.shrink[i / 2 % 2];
    }
  }

  // One arrival a warp, when all its threads are done.
  __device__ __forceinline__ void release(Barrier& b) {
    __syncwarp();
    if (thread_ % 32 == 0) b.arrive();
  }
  __device__ __forceinline__ void release_values() {
    release(control_.v_empty[v_turn_.index]);
    v_turn_.next();
  }

  // Products with the stage of K, or of V, whose turn it is.
  __device__ __forceinline__ void start_scores(float (&s)[kScores], const Tile& tile) {
    std::uint32_t q = q_ + tile.buffer * S::kQBytes;
    const std::uint32_t k = k_ + k_turn_.index * S::kKBytes;
    asm volatile("" : "+r"(q));  // or every operand of Q stays in registers through the loop over stages
#pragma unroll
    for (int step = 0; step < S::kDk / 16; ++step) {
      const int panel = step / 4, inside = step % 4 * 32;
      Wgmma<S::kKeys, T>::scores(s, operand(q + panel * kBoxBytes + inside),
                                 operand(k + panel * S::kHalves * kBoxBytes + inside), step > 0);
    }
    products_commit();
  }
  __device__ __forceinline__ void start_values(State& x) {
    const std::uint32_t v = v_ + v_turn_.index * S::kVBytes;
#pragma unroll
    for (int step = 0; step < S::kKeys / 16; ++step)
      Wgmma<S::kDv, T>::values(x.o, x.p + 4 * step, operand(v + step * 16 * 128, S::kHalves * kBoxBytes));
    products_commit();
  }
  __device__ __forceinline__ void add_last_values(State& x) {
    control_.v_full[v_turn_.index].wait(v_turn_.parity);
    products_begin();
    start_values(x);
    products_wait<0>();
    pin(x.o);
    release_values();
  }

  // The scores of a stage have come: gives its K back, and turns them into weights.
  __device__ __forceinline__ void weigh(State& x, const Tile& tile) {
    Box box[S::kHalves];
    bool hides = false;
#pragma unroll
    for (int h = 0; h < S::kHalves; ++h) {
      box[h] = control_.boxes[k_turn_.index][h];
      hides = hides || box[h].bits >= 0 || box[h].key + kBox > certain_end(c_, tile.rows.row);
    }
    release(control_.k_empty[k_turn_.index]);
    k_turn_.next();
    if (hides) mask_scores<S::kHalves>(x.s, c_, tile.rows.row + first_row(), box, thread_ % 32);
    x.soft.weigh(x.s, c_.scale_log2);
  }
  static __device__ __forceinline__ void pack_weights(State& x) {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) x.p[i] = pack<T>(x.s[2 * i], x.s[2 * i + 1]);
  }
  static __device__ __forceinline__ void clear(float (&o)[kSums]) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) o[i] = 0;
  }

  __device__ __forceinline__ int first_row() const { return thread_ / 32 * 16 + thread_ % 32 / 4; }  // of the 64

  // out goes through the group's part of Q, which nobody reads any more, and leaves by TMA, which knows where the
  // tensor ends.
  __device__ __forceinline__ void store(const float (&o)[kSums], Softmax soft, const Tile& tile) {
    const int lane = thread_ % 32, among = 1 + S::kGroups + group_;
    const std::uint32_t q = q_ + tile.buffer * S::kQBytes;
    const Rows& r = tile.rows;
    soft.finish();
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) inverse[i] = soft.l[i] == 0 ? 0.0f : 1.0f / soft.l[i];
    named_sync(among, 128);  // all four warps are done with Q
    const int row = thread_ / 32 * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < S::kDv / 16; ++step) {
      const int piece = step % 4 * 2 + lane / 16;  // of 8 columns
      store_matrices(q + step / 4 * kBoxBytes + row * 128 + (piece ^ row % 8) * 16,
                     pack<T>(o[8 * step] * inverse[0], o[8 * step + 1] * inverse[0]),
                     pack<T>(o[8 * step + 2] * inverse[1], o[8 * step + 3] * inverse[1]),
                     pack<T>(o[8 * step + 4] * inverse[0], o[8 * step + 5] * inverse[0]),
                     pack<T>(o[8 * step + 6] * inverse[1], o[8 * step + 7] * inverse[1]));
    }
    fence_async();
    named_sync(among, 128);
    if (thread_ == 0) {
      for (int panel = 0; panel < S::kPanelsV; ++panel)
        store_box(c_.out, q + panel * kBoxBytes, panel * kBox, r.row, r.head, r.batch);
      commit_stores();
    }
    stored_ = tile.buffer;
    if (c_.lse && lane % 4 == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (const int at = r.row + first_row() + 8 * i; at < c_.nq)
          c_.lse[(static_cast<std::int64_t>(r.batch) * c_.hq + r.head) * c_.nq + at] =
              soft.l[i] == 0 ? minus_infinity() : soft.m[i] * c_.scale_log2 * 0.693147181f + logf(soft.l[i]);
    }
  }

  // Gives the buffer that the last out was stored from back, when it has been read: a stage later, so that nobody
  // waits.
  __device__ __forceinline__ void free_queries() {
    if (stored_ >= 0 && thread_ == 0) {
      wait_stores_read();
      control_.q_empty[stored_].arrive();
    }
    stored_ = -1;
  }

  const Call& c_;
  Control<S>& control_;
  const std::uint32_t q_, k_, v_;
  const int group_, thread_;
  Turns<S> turns_;
  Turn<S::kQBuffers> q_turn_;
  Turn<S::kStages> k_turn_, v_turn_;
  int stored_ = -1;  // the Q buffer whose store has not been seen to end
};

}  // namespace lacuna::kernel::cuda::sm90a
