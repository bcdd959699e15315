// SPDX-License-Identifier: Apache-2.0
// How a warp brings its 16 keys of a unit, and their values, to shared memory. Lane l looks up where key l % 16 lies:
// lanes 0 to 15 in K, the others in V. That is done a unit ahead, so nobody waits for the numbers of pages.
#pragma once

#include "kernel/cuda/sm80/ptx.cuh"
#include "kernel/cuda/sm80/split/deal.cuh"

namespace lacuna::kernel::cuda::sm80::split {

constexpr std::int32_t kNoKey = INT32_MAX;  // in the place of a key's number: nobody sees it

template <class S>
class Keys {
  using T = typename S::Type;

 public:
  // warp: of the team. The team takes every kTeams-th unit of the piece.
  __device__ __forceinline__ Keys(const Call& c, const Piece& p, int team, int warp, int lane)
      : c_(c), p_(p), lane_(lane), warp_(warp), unit_(p.begin + team) {
    const int sequence = c.table ? 0 : p.sequence;
    k_ = static_cast<const T*>(c.k.data) + sequence * c.k.batch + p.kv_head * c.k.head;
    v_ = static_cast<const T*>(c.v.data) + sequence * c.v.batch + p.kv_head * c.v.head;
    look_up();
  }

  // The team's next unit to a stage; nothing after the piece's end.
  __device__ __forceinline__ void load(unsigned char* stage) {
    if (unit_ < p_.end) {
      const std::uint32_t to = shared_address(stage);
      copy<S::kDk>(to + warp_ * 16 * S::kPitchK, k_, 0);
      copy<S::kDv>(to + S::kKeys * S::kPitchK + warp_ * 16 * S::kPitchV, v_, 16);
      if (lane_ < 16) numbers(stage)[warp_ * 16 + lane_] = key_;
      unit_ += S::kTeams;
      look_up();
    }
    commit_copies();
  }

  // The keys' numbers in a stage.
  static __device__ __forceinline__ std::int32_t* numbers(unsigned char* stage) {
    return reinterpret_cast<std::int32_t*>(stage + S::kKeys * (S::kPitchK + S::kPitchV));
  }

 private:
  __device__ __forceinline__ void look_up() {
    key_ = kNoKey;
    at_ = -1;
    const int place = unit_ * S::kKeys + warp_ * 16 + lane_ % 16;
    if (unit_ >= p_.end || place >= p_.keys) return;
    int key = place;
    if (c_.counts) {
      const int entry = __ldg(c_.entries + static_cast<std::int64_t>(p_.list) * c_.most + (place >> c_.entry_shift));
      if (entry < 0 || entry > p_.length >> c_.entry_shift) return;
      key = (entry << c_.entry_shift) + (place & ((1 << c_.entry_shift) - 1));
    }
    if (key >= p_.length) return;
    int page = 0, cell = key;
    if (c_.table) {
      page = __ldg(c_.table + static_cast<std::int64_t>(p_.sequence) * c_.table_most + (key >> c_.table_shift));
      if (page < 0 || page >= c_.n_pages) return;
      cell = key & ((1 << c_.table_shift) - 1);
    }
    key_ = key;
    at_ = lane_ < 16 ? page * c_.k.batch + cell * c_.k.row : page * c_.v.batch + cell * c_.v.row;
  }

  // 16 rows, in pieces of 16 bytes; lane `first` + r knows where row r lies.
  template <int kDim>
  __device__ __forceinline__ void copy(std::uint32_t to, const T* from, int first) const {
    constexpr int kPieces = kDim / 8;
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      const int id = 32 * i + lane_, row = id / kPieces, piece = id % kPieces;
      const std::int64_t at = __shfl_sync(kAllLanes, at_, first + row);
      copy_async(to + row * (2 * kDim + 16) + piece * 16, from + max(at, std::int64_t{0}) + piece * 8, at >= 0);
    }
  }

  const Call& c_;
  const Piece& p_;
  const int lane_, warp_;
  const T *k_, *v_;
  int unit_;          // the next to load
  std::int32_t key_;  // of it: the lane's key, and where it lies; -1: nowhere
  std::int64_t at_;
};

}  // namespace lacuna::kernel::cuda::sm80::split
