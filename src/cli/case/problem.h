// SPDX-License-Identifier: Apache-2.0
// The tensors and the selection of a case, in the layouts a host has: q and out with the heads of a
// token side by side, K and V as a cache whose cells hold all KV heads. Owns all of it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "cli/case/case.h"
#include "engine/lower.h"
#include "engine/pick.h"
#include "op/strided_scores.h"

namespace lacuna::cli {

class AttendProblem {
 public:
  // `batch` only varies the seed. Throws std::bad_alloc.
  AttendProblem(const Case& c, int batch);

  // The call, with K and V packed as `format` (none: the raw tensors alone). out is full of NaN.
  op::Attend::Args args(Features have, PackFormat format, ParallelFor& threads);

  // Query rows out of which `out` and `lse` count as [hq][n_rows] in args().
  std::vector<float>& out() { return out_; }
  std::vector<float>& lse() { return lse_; }
  double allowed_pairs() const { return allowed_; }    // of all query heads
  double attended_pairs() const { return attended_; }
  double density() const { return allowed_ > 0 ? attended_ / allowed_ : 1; }
  double lower_seconds() const { return lower_seconds_; }
  double pack_seconds() const { return pack_seconds_; }  // of the last args() that packed

  // Raw memory for a peer: q f32 [nq][hq][d], K and V of type kv [cells][hkv][d].
  const float* q() const { return q_.data(); }
  const unsigned char* k() const { return k_.data(); }
  const unsigned char* v() const { return v_.data(); }

 private:
  PackedView pack(Features have, op::Pack::Role role, PackFormat format, ParallelFor& threads, Buffer& storage);

  const Case case_;
  std::vector<float> q_, out_, lse_;
  std::vector<unsigned char> k_, v_;
  Buffer packed_k_, packed_v_;
  LoweredRuns runs_;
  double allowed_ = 0, attended_ = 0, lower_seconds_ = 0, pack_seconds_ = 0;
};

// Random numbers of the given type at `to`, mean 0, standard deviation 1.
void fill_normal(void* to, Dtype type, std::int64_t n, std::uint64_t seed);

// Op strided_scores over a call's queries and packed keys, the last row's own key the last; the scores' place is left to say.
op::StridedScores::Args strided_args(const Case& c, const op::Attend::Args& packed);

// The selection of an attend case over the rows of its only segment.
Pattern pattern_of(const Case& c, const Grid& grid, std::uint64_t seed);

// The features a case runs with: this machine's, less what machine=... takes away.
Features features_of(const Case& c);

}  // namespace lacuna::cli
