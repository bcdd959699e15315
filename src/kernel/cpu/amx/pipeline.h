// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Units pass over tiles of keys. For a step, a unit and a tile:
//   score       S[32][32] = Q K^T                tile products
//   weigh       P = 2^(S * factor - top)         AVX-512, bf16 weights in the order of A tiles
// and once per chunk, up to 8 steps of one unit,
//   accumulate  acc[32][Dv] += P V               tile products, acc kept in memory as C tiles
// The scores of a step are weighed two steps later, between the tile products of that step, whichever unit that
// is of: the two machines work side by side, and no score is read before its store is long done. For the same
// reason C tiles are not stored when they are finished but when their registers are needed again.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernel/cpu/amx/scores.h"
#include "kernel/cpu/amx/strips.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/amx/weigh.h"

namespace lacuna::kernel::amx {
namespace {

constexpr int kChunkTiles = 8;
constexpr int kScoreSlots = 3;                          // being stored, waiting, being weighed
constexpr int kScoreSlot = kUnitRows * kTileKeys + 32;  // floats; not 4 KB: same rows in different cache sets
constexpr std::size_t kScoreBytes = sizeof(float) * kScoreSlots * kScoreSlot;
constexpr std::size_t kWeightBytes = std::size_t{2} * kChunkTiles * kTileBytes;
constexpr std::size_t kDiscardBytes = 2 * kTileBytes;
constexpr std::size_t kPipelineBytes = kScoreBytes + kWeightBytes + kDiscardBytes;

template <class Tiles>
class Pipeline {
 public:
  // v_step: bytes between the channel pairs of a tile's values.
  Pipeline(const Scores& scores, const Shape& shape, long v_step, char* scratch)
      : scores_(scores),
        shape_(shape),
        v_step_(v_step),
        slots_(reinterpret_cast<float*>(scratch)),
        weights_(reinterpret_cast<std::uint16_t*>(scratch + kScoreBytes)),
        discard_(reinterpret_cast<float*>(scratch + kScoreBytes + kWeightBytes)) {
    nothing_pending();
  }

  // A unit over n tiles, less those none of its rows sees (beyond the diagonal, say). Its rows are done after finish().
  void pass(const Unit& x, const Keys* keys, int n) {
    Pass& now = passes_[turn_ % kRing];
    now.x = x;
    now.n = 0;
    for (int i = 0; i < n; ++i)
      if (!keys[i].words || x.sees(keys[i].words)) now.keys[now.n++] = keys[i];
    if (now.n == 0) return;
    ++turn_;
    if (x.live <= kTileRows) return pass<1, 0>(now);
    switch (shape_.depth) {
      case 1:
        return pass<2, 1>(now);
      case 2:
        return pass<2, 2>(now);
      case 4:
        return pass<2, 4>(now);
      case 8:
        return pass<2, 8>(now);
      default:
        return pass<2, 0>(now);
    }
  }

  void finish() {
    store_pending();
    for (; weighed_ < scored_; weigh_after()) prepare();
    store_pending();
  }

 private:
  struct Pass {
    Unit x;
    Keys keys[kSpanTiles];
    int n;
  };
  static constexpr unsigned kRing = 4;  // a step that is weighed is two behind
  struct Step {
    const Pass* pass;
    int tile;
    const Unit& unit() const { return pass->x; }
    const Keys& keys() const { return pass->keys[tile]; }
    bool last() const { return tile == pass->n - 1; }
    int rows() const { return unit().live <= kTileRows ? kTileRows : kUnitRows; }
  };
  Step& step(unsigned i) { return steps_[i % kRing]; }
  float* slot(unsigned step) const { return slots_ + step % kScoreSlots * kScoreSlot; }

  // What weighing a step needs of each row; by value, since tile instructions may touch any memory.
  struct Weighing {
    const float *s, *top, *zero;
    std::uint16_t* weights;
    template <class W>
    [[gnu::always_inline]] void row(int r, W& w) const {
      w.row(s + r * kTileKeys, W::kFromZero ? zero[r] : top[r],
            weights + r / kTileRows * kChunkTiles * (kTileBytes / 2) + r % kTileRows * kTileKeys);
    }
  };
  Weighing weighing() {
    const Unit& x = step(weighed_).unit();
    return {slot(weighed_), x.top, x.zero, weights_at(0, chunk_)};
  }

  template <int R, int Depth>
  void pass(const Pass& now) {
    for (int i = 0; i < now.n; ++i) {
      if (R == 1) store_pending();  // of four tiles
      step(scored_) = {&now, i};
      if (weighed_ + 2 > scored_) {
        Weigher none;
        score<R, Depth, false>({}, none);
        ++scored_;
        continue;
      }
      prepare();
      if (!skips_[chunk_] && scores_.fast(step(weighed_).keys()))
        score_and_weigh<R, Depth, FastWeigher>();
      else
        score_and_weigh<R, Depth, Weigher>();
    }
  }
  template <int R, int Depth, class W>
  void score_and_weigh() {
    W w(scores_.factor());
    score<R, Depth, true>(weighing(), w);
    ++scored_;
    weighed(w.out_of_range());
  }
  void weigh_after() {
    if (!skips_[chunk_] && scores_.fast(step(weighed_).keys()))
      weigh_after<FastWeigher>();
    else
      weigh_after<Weigher>();
  }
  template <class W>
  void weigh_after() {
    W w(scores_.factor());
    const Weighing all = weighing();
    for (int r = 0; r < step(weighed_).rows(); ++r) all.row(r, w);
    weighed(w.out_of_range());
  }

  void prepare() {
    const Step& at = step(weighed_);
    scores_.prepare(at.unit(), slot(weighed_), at.keys());
    skips_[chunk_] = scores_.skips() && scores_.leave_out(at.unit(), slot(weighed_), at.keys());
  }

  // The weights of a step are there, those out of range not as they should be.
  void weighed(bool out_of_range) {
    const Step at = step(weighed_);
    values_[chunk_] = at.keys().v;
    if (__builtin_expect(out_of_range, false)) weigh_again(at);
    ++weighed_;
    if (++chunk_ < kChunkTiles && !at.last()) return;
    accumulate(at.unit());
  }

  // Scores of a step (to memory when their C tiles are next needed), and the weights of an earlier one.
  template <int R, int Depth, bool kWeigh, class W>
  void score(const Weighing weighing, W& weigher) {
    constexpr int kRowsPerProduct = Depth ? 8 / Depth : 0;
    const long half = static_cast<long>(shape_.depth) * kTileBytes;
    const char *q = step(scored_).unit().q, *k = step(scored_).keys().k;
    W w = weigher;
    int r = 0;
    const auto some_rows = [&]() __attribute__((always_inline)) {
      if constexpr (kWeigh && Depth != 0) {
#pragma GCC unroll 8
        for (int i = 0; i < kRowsPerProduct; ++i) weighing.row(r + i, w);
        r += kRowsPerProduct;
      }
    };
    const int depth = Depth ? Depth : shape_.depth;
#pragma GCC unroll 8
    for (int d = 0; d < depth; ++d, q += kTileBytes, k += kTileBytes) {
      if (d == 0) restart<0>();
      tiles_.template load<4>(q, 64);
      tiles_.template stream<6>(k, 64);
      tiles_.template multiply_add<0, 4, 6>();
      some_rows();
      if (d == 0) restart<1>();
      tiles_.template stream<7>(k + half, 64);
      tiles_.template multiply_add<1, 4, 7>();
      some_rows();
      if constexpr (R == 2) {
        if (d == 0) restart<2>();
        tiles_.template load<5>(q + half, 64);
        tiles_.template multiply_add<2, 5, 6>();
        some_rows();
        if (d == 0) restart<3>();
        tiles_.template multiply_add<3, 5, 7>();
        some_rows();
      }
    }
    if constexpr (kWeigh && Depth == 0)
      for (const int rows = step(weighed_).rows(); r < rows; ++r) weighing.row(r, w);
    weigher = w;
    float* const s = slot(scored_);
    pend<R>(s, s + 16, s + kTileRows * kTileKeys, s + kTileRows * kTileKeys + 16, kTileKeys * sizeof(float));
  }

  // acc[r][c] += sum over the chunk of weight[r][j] * v[j][c], 32 channels at a time; and sum[r] += weight[r][j].
  void accumulate(const Unit& x) {
    if (x.live <= kTileRows)
      accumulate<1, 0>(x);
    else if (shape_.channels == 4)
      accumulate<2, 16>(x);
    else if (shape_.channels == 8)
      accumulate<2, 8>(x);
    else if (shape_.channels == 16)
      accumulate<2, 4>(x);
    else
      accumulate<2, 0>(x);
    chunk_ = 0;
  }
  // Sums: rows that are added up beside the products with 32 channels; 0: before them.
  template <int R, int Sums>
  void accumulate(const Unit& x) {
    if (R == 1) store_pending();
    const char* p = reinterpret_cast<const char*>(weights_);
    const int n = chunk_;
    if (Sums == 0)
      for (int r = 0; r < R * kTileRows; ++r) {
        __m512 sum = _mm512_load_ps(x.sum + r * 16);
        for (int i = 0; i < n; ++i) sum = add_weights(sum, weights_at(r, i));
        _mm512_store_ps(x.sum + r * 16, sum);
      }
    for (int c = 0; c < shape_.channels; c += 2) {
      float *low = x.acc + c * 256, *high = low + shape_.channels * 256;
      reload<0>(low);
      reload<1>(low + 256);
      if constexpr (R == 2) {
        reload<2>(high);
        reload<3>(high + 256);
      }
      float* const sum = x.sum + c / 2 * Sums * 16;
      const std::uint16_t* weights = weights_at(c / 2 * Sums, 0);
      __m512 sums[Sums ? Sums : 1];
      for (int r = 0; r < Sums; ++r) sums[r] = _mm512_load_ps(sum + r * 16);
      for (int i = 0; i < n; ++i, weights += kTileBytes / 2) {
        if (skips_[i]) continue;
        const auto add = [&](int quarter) __attribute__((always_inline)) {
          for (int r = quarter * Sums / 4; r < (quarter + 1) * Sums / 4; ++r)
            sums[r] = add_weights(sums[r], weights + r * kTileKeys);
        };
        const char* v = values_[i] + c / 2 * v_step_;
        tiles_.template load<4>(p + i * kTileBytes, 64);
        tiles_.template stream<6>(v, 64);
        tiles_.template multiply_add<0, 4, 6>();
        add(0);
        tiles_.template stream<7>(v + kTileBytes, 64);
        tiles_.template multiply_add<1, 4, 7>();
        add(1);
        if constexpr (R == 2) {
          tiles_.template load<5>(p + (kChunkTiles + i) * kTileBytes, 64);
          tiles_.template multiply_add<2, 5, 6>();
          add(2);
          tiles_.template multiply_add<3, 5, 7>();
          add(3);
        }
      }
      for (int r = 0; r < Sums; ++r) _mm512_store_ps(sum + r * 16, sums[r]);
      pend<R>(low, low + 256, high, high + 256, 64);
    }
  }

  // For rows that are out of the weigher's range, each by a rule that looks at nothing but the row: with a logit more than
  // kLag above the top, a new top; then the step's weights again. The two weighers round differently where their ranges
  // end, so a row that the fast one took stays as it is.
  [[gnu::noinline]] void weigh_again(const Step& at) {
    const Unit& x = at.unit();
    const bool fast = scores_.fast(at.keys());
    const float factor = scores_.factor(), *scores = slot(weighed_);
    const auto weigh_fast = [&](int r) {
      FastWeigher w(factor);
      weighing().row(r, w);
      return !w.out_of_range();
    };
    float largest[kUnitRows];
    bool done[kUnitRows], raises[kUnitRows], any = false;
    for (int r = 0; r < x.live; ++r) {
      const float* s = scores + r * kTileKeys;
      largest[r] = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16)));
      done[r] = fast && weigh_fast(r);
      raises[r] = !done[r] && __builtin_fmaf(largest[r], factor, -x.top[r]) > kLag;
      any = any || raises[r];
    }
    if (any && chunk_ > 0) {  // what was weighed relative to the old tops must be in acc first
      const int place = chunk_;
      accumulate(x);
      for (int r = 0; r < at.rows(); ++r) _mm512_store_si512(weights_at(r, 0), _mm512_load_si512(weights_at(r, place)));
      values_[0] = values_[place];
      skips_[0] = skips_[place];
    }
    if (any) store_pending();  // acc is about to be scaled, and its last channels may still be in C tiles
    for (int r = 0; r < x.live; ++r) {
      if (done[r]) continue;
      if (raises[r]) raise(x, r, largest[r] * factor);
      if (fast && weigh_fast(r)) continue;
      Weigher w(factor);
      weighing().row(r, w);
    }
  }
  // The new top is the logit itself, so that a row's first, perhaps only, key weighs exactly 1.
  void raise(const Unit& x, int r, float top) const {
    const bool first = x.top[r] == kUnseen;  // then all is 0, or not a number whatever the factor
    const __m512 shrink = exp2_fine(_mm512_set1_ps(x.top[r] - top));
    x.top[r] = top;
    x.zero[r] = FastWeigher::zero(top);
    if (first) return;
    float* sum = x.sum + r * 16;
    _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), shrink));
    for (int c = 0; c < shape_.channels; ++c) {
      float* acc = x.acc_at(shape_, r, c);
      _mm512_store_ps(acc, _mm512_mul_ps(_mm512_load_ps(acc), shrink));
    }
  }
  // Where the weights of a row go: [row / 16][tile of the chunk][row % 16][32].
  std::uint16_t* weights_at(int r, int tile) const {
    return weights_ + (r / kTileRows * kChunkTiles + tile) * (kTileBytes / 2) + r % kTileRows * kTileKeys;
  }

  template <int T>
  [[gnu::always_inline]] void restart() {
    tiles_.template store<T>(pending_[T], pending_stride_);
    tiles_.template zero<T>();
  }
  template <int T>
  [[gnu::always_inline]] void reload(const float* c) {
    tiles_.template store<T>(pending_[T], pending_stride_);
    tiles_.template load<T>(c, 64);
  }
  template <int R>
  [[gnu::always_inline]] void pend(float* a, float* b, float* c, float* d, long stride) {
    pending_[0] = a;
    pending_[1] = b;
    pending_[2] = R == 2 ? c : discard_;
    pending_[3] = R == 2 ? d : discard_;
    pending_stride_ = stride;
  }
  void store_pending() {
    tiles_.template store<0>(pending_[0], pending_stride_);
    tiles_.template store<1>(pending_[1], pending_stride_);
    tiles_.template store<2>(pending_[2], pending_stride_);
    tiles_.template store<3>(pending_[3], pending_stride_);
    nothing_pending();
  }
  void nothing_pending() {
    for (float*& p : pending_) p = discard_;
    pending_stride_ = 0;
  }

  const Scores& scores_;
  const Shape shape_;
  const long v_step_;
  float* slots_;            // [kScoreSlots] of [32 rows][32 keys]
  std::uint16_t* weights_;  // [2][kChunkTiles] A tiles
  float* discard_;          // where C tiles go that nobody waits for
  Pass passes_[kRing];
  Step steps_[kRing];
  unsigned turn_ = 0;                  // passes so far
  unsigned scored_ = 0, weighed_ = 0;  // steps so far
  int chunk_ = 0;                      // steps weighed and not yet accumulated, their values,
  const char* values_[kChunkTiles];
  bool skips_[kChunkTiles] = {};  // and whether they are left out
  float* pending_[4];             // where C tiles 0..3 must be stored before they are used again
  long pending_stride_;           // bytes
  Tiles tiles_;
};

}  // namespace
}  // namespace lacuna::kernel::amx
