// SPDX-License-Identifier: Apache-2.0
// op line_sums on AMX. As in kernel/cpu/lane16/line_sums.inc, rows go through the keys once for weights relative to
// about the largest score so far, which are kept, and a second time over the weights to add them up; sums of parts of
// the rows are joined at the end. What differs is where the cycles are (docs/decisions/019):
//
// - The weights of a step (32 rows, 32 keys) are made two steps after its scores, between the tile products of that
//   step, by integers, and kept in bf16: twice as many fit the second cache, which the keys pass through too.
// - Those of two rows lie side by side, [pair of rows][key][2]: a shift and a mask make f32 of them, and they are
//   operands of tiles. Their sums are products with ones. A diagonal takes them from two neighbouring vectors, so that
//   nothing is loaded askew.
#include "kernel/cpu/amx/line_scores.h"
#include "kernel/cpu/amx/weigh.h"

namespace lacuna::kernel::amx {
namespace {

using lines::kGroup;
constexpr int kStep = 32;                       // keys
constexpr int kChunk = lines::kChunk;           // keys whose weights are relative to the same tops
constexpr int kPairs = kGroup / 2;
constexpr int kPairRow = kChunk + 16;           // dwords; an odd number of lines, so that pairs share no cache set
constexpr std::int64_t kChunkDwords = kPairs * kPairRow;
constexpr std::int64_t kSums = kTileBytes / 4;
constexpr int kSlots = 3;                       // scores being stored, waiting, being weighed
constexpr int kSlot = kGroup * kStep + 32;      // floats
constexpr float kLeast = -60.0f;                // log2 of what weighs less: nothing beside 1, but not 0
constexpr float kUnseen = -0x1p60f;             // top of a row of which no number was seen

std::int64_t chunks(std::int64_t keys) { return ceil_div(keys, std::int64_t{kChunk}); }

// Rows that pass the keys together: with two groups a tile of keys comes from memory, or the second cache, once for
// both. Few heads are cut finer, so that all workers have their share.
int groups(const Args& a) { return a.hq >= 16 && a.n_rows > kGroup ? 2 : 1; }
int rows_at_once(const Args& a) { return groups(a) * kGroup; }
// Of the rows, whose sums are joined at the end.
int parts(const Args& a) { return a.n_rows > rows_at_once(a) ? 2 : 1; }
std::int64_t part_rows(const Args& a) { return ceil_div(a.n_rows, rows_at_once(a) * parts(a)) * rows_at_once(a); }

// 32 rows: what they ask, and what they are on the way to know.
struct Group {
  std::int64_t own;        // key of the first row
  int live;                // rows in use
  char* q;                 // [2][depth] A tiles
  std::uint32_t* weights;  // [chunks][pairs][kPairRow]
  float* sums;             // [chunks][pairs][16], of all groups together: of a chunk's weights, the rows of a pair at 0 and 1
  float* tops;             // [chunks][32]: what these are relative to
  alignas(64) float top[kGroup], zero[kGroup];  // the same of the chunk on its way, and what a FastWeigher makes of it

  static std::size_t bytes(std::int64_t chunks, int depth) {
    return static_cast<std::size_t>(2 * depth * kTileBytes + chunks * 4 * (kChunkDwords + kSums + kGroup));
  }
  void lie(char* at, std::int64_t chunks, int depth) {
    q = at;
    weights = reinterpret_cast<std::uint32_t*>(q + 2L * depth * kTileBytes);
    sums = reinterpret_cast<float*>(weights + chunks * kChunkDwords);
    tops = sums + chunks * kSums;
  }
  void raise(int r, float to) {
    top[r] = to;
    zero[r] = FastWeigher::zero(to);
  }
  // Keys of a tile that row r sees.
  int seen(std::int64_t tile, int r) const {
    const std::int64_t n = r < live ? own + r + 1 - tile * kStep : 0;
    return static_cast<int>(n < 0 ? 0 : n < kStep ? n : kStep);
  }
  bool all_see(std::int64_t tile) const { return live == kGroup && seen(tile, 0) == kStep; }
  std::uint32_t* weights_at(std::int64_t tile, int pair) const {
    return weights + tile * kStep / kChunk * kChunkDwords + pair * kPairRow + tile * kStep % kChunk;
  }
};

__m512 even(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
__m512 odd(__m512i pair) { return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000)))); }
// Sixteen weights of one row of a pair; zeros where `in` has none. Returns them as they are rounded.
__m512 put(std::uint32_t* to, int which, __m512 w, __mmask16 in) {
  const __m512i bits = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_mov_ps(in, w))));
  const __m512i high = _mm512_slli_epi32(bits, 16);
  _mm512_mask_storeu_epi16(to, which ? 0xaaaaaaaa : 0x55555555, which ? high : bits);
  return _mm512_castsi512_ps(high);
}

// ---- Rows go through the keys. A step is a group and a tile of 32 keys; groups take turns.

struct Step {
  Group* group = nullptr;
  std::int64_t tile = 0;
  float* slot = nullptr;  // [32][32] scores
};

// Weights of some steps' pairs of rows.
class PairWeigher {
 public:
  PairWeigher(const Step& s, float unit)
      : fast_(unit), score_(s.slot), zero_(s.group->zero), to_(s.group->weights_at(s.tile, 0)) {}
  [[gnu::always_inline]] void weigh(int pair) {
    const float* s = score_ + 2 * pair * kStep;
    const __m512i first = fast_.by_fours(s, zero_[2 * pair]), second = fast_.by_fours(s + kStep, zero_[2 * pair + 1]);
    _mm512_store_si512(to_ + pair * kPairRow, _mm512_unpacklo_epi16(first, second));
    _mm512_store_si512(to_ + pair * kPairRow + 16, _mm512_unpackhi_epi16(first, second));
  }
  bool out_of_range() const { return fast_.out_of_range(); }

 private:
  FastWeigher fast_;
  const float *const score_, *const zero_;
  std::uint32_t* const to_;
};

template <class Tiles>
class Weighing {
 public:
  Weighing(const Args& a, int kv_head, Group* g, int n_groups, char* scratch)
      : a_(a), g_(g), n_groups_(n_groups), kv_head_(kv_head), depth_(channel_tiles(a)), keys_(g[n_groups - 1].own + g[n_groups - 1].live),
        unit_(a.scale * kLog2e), ones_(scratch), slots_(reinterpret_cast<float*>(scratch + 2 * kTileBytes)) {
    for (int i = 0; i < 2 * kTileRows; ++i)
      _mm512_store_si512(ones_ + i * 64, _mm512_maskz_set1_epi64(static_cast<__mmask8>(1 << i / kTileRows), 0x3f80000000003f80));
    tiles_.template zero<5>();
  }
  static constexpr std::size_t kBytes = 2 * kTileBytes + sizeof(float) * kSlots * kSlot;

  void run() {
    switch (depth_) {
      case 1: return pass<1>();
      case 2: return pass<2>();
      case 4: return pass<4>();
      case 8: return pass<8>();
      default: return pass<0>();
    }
  }

 private:
  // The operands of a tile: its halves, of which the second is not always there: the first then stands in for it.
  struct Halves {
    const char *left, *right;
  };
  Halves halves(std::int64_t tile) const {
    const std::int64_t half = (a_.first_cell + tile * kStep) / 16, next = tile * kStep + 16 < keys_ ? half + 1 : half;
    return {half_tile(a_.packed_k, depth_, half, kv_head_), half_tile(a_.packed_k, depth_, next, kv_head_)};
  }

  template <int Depth>
  void pass() {
    const std::int64_t tiles = ceil_div(keys_, std::int64_t{kStep});
    Step before, waiting, weighed;  // the last three: scores being stored, stored, and become weights
    int turn = 0;
    Halves k = halves(0);
    for (std::int64_t t = 0; t < tiles; ++t) {
      const Halves next = t + 1 < tiles ? halves(t + 1) : k;
      for (int i = 0; i < n_groups_; ++i) {
        const Step now{g_ + i, t, slots_ + turn * kSlot};
        add_up(weighed);
        // Of the next tile, which is asked for, each group's step asks for its part.
        score<Depth>(now, k, i == 0 ? next.left : next.right, n_groups_ == 1 ? next.right : next.left, before, waiting);
        weighed = waiting;
        waiting = before;
        before = now;
        turn = turn == kSlots - 1 ? 0 : turn + 1;
      }
      k = next;
    }
    store_2x2(tiles_, before.slot, kStep);
    add_up(weighed);
    const Step left[] = {waiting, before};
    for (const Step& step : left)
      if (step.group) {
        weigh_alone(step);
        add_up(step);
      }
    const std::int64_t rest = tiles * kStep % kChunk;
    if (rest == 0) return;
    for (int i = 0; i < n_groups_; ++i) {
      for (int p = 0; p < kPairs; ++p) memset(g_[i].weights_at(tiles, p), 0, static_cast<std::size_t>(kChunk - rest) * 4);
      memcpy(g_[i].tops + tiles * kStep / kChunk * kGroup, g_[i].top, sizeof g_[i].top);
    }
    end_chunk(tiles * kStep / kChunk);
  }

  // Scores of a step; those of the step before are stored, and the weights of the one before that made.
  template <int Depth>
  [[gnu::always_inline]] void score(const Step& now, const Halves& k, const char* ask, const char* ask_too, const Step& before, const Step& waiting) {
    const int depth = Depth ? Depth : depth_;
    const char *q = now.group->q, *low = q + depth * kTileBytes, *left = k.left, *right = k.right;
    float* const pending = before.slot ? before.slot : now.slot;
    const bool beside = Depth > 0 && waiting.group && waiting.group->all_see(waiting.tile);
    if (beside) {
      PairWeigher weigher(waiting, unit_);
      products<Depth>(q, low, left, right, depth, pending, [&](int i) __attribute__((always_inline)) {
        for (int line = 0; line < 4; ++line) _mm_prefetch(ask + (4 * i + line) * 64, _MM_HINT_T0);
        if (n_groups_ == 1)
          for (int line = 0; line < 4; ++line) _mm_prefetch(ask_too + (4 * i + line) * 64, _MM_HINT_T0);
        constexpr int kProducts = 4 * (Depth ? Depth : 1);
        if constexpr (kProducts <= kPairs) {
          constexpr int kEach = kPairs / kProducts;
#pragma GCC unroll 4
          for (int p = 0; p < kEach; ++p) weigher.weigh(i * kEach + p);
        } else {
          constexpr int kEvery = kProducts / kPairs;
          if (i % kEvery == kEvery - 1) weigher.weigh(i / kEvery);
        }
      });
      weighed(waiting, weigher.out_of_range());
    } else {
      products<Depth>(q, low, left, right, depth, pending, [](int) {});
      if (waiting.group) weigh_alone(waiting);
    }
  }
  // `meanwhile`, after each product, what can be done beside it.
  template <int Depth, class Meanwhile>
  [[gnu::always_inline]] void products(const char* q, const char* low, const char* left, const char* right, int depth, float* pending,
                                       const Meanwhile& meanwhile) {
    const auto restart = [&]<int T>(float* to) __attribute__((always_inline)) {
      tiles_.template store<T>(to, kStep * 4);
      tiles_.template zero<T>();
    };
#pragma GCC unroll 8
    for (int d = 0; d < depth; ++d) {
      const long at = static_cast<long>(d) * kTileBytes;
      if (d == 0) restart.template operator()<0>(pending);
      tiles_.template load<4>(q + at, 64);
      tiles_.template load<6>(left + at, 64);
      tiles_.template multiply_add<0, 4, 6>();
      meanwhile(4 * d);
      if (d == 0) restart.template operator()<1>(pending + 16);
      tiles_.template load<7>(right + at, 64);
      tiles_.template multiply_add<1, 4, 7>();
      meanwhile(4 * d + 1);
      if (d == 0) restart.template operator()<2>(pending + kTileRows * kStep);
      tiles_.template load<4>(low + at, 64);
      tiles_.template multiply_add<2, 4, 6>();
      meanwhile(4 * d + 2);
      if (d == 0) restart.template operator()<3>(pending + kTileRows * kStep + 16);
      tiles_.template multiply_add<3, 4, 7>();
      meanwhile(4 * d + 3);
    }
  }

  void weigh_alone(const Step& s) {
    const bool all = s.group->all_see(s.tile);
    if (!all) hide(s);
    PairWeigher weigher(s, unit_);
    for (int p = 0; p < kPairs; ++p) weigher.weigh(p);
    if (!all) take_out(s);
    weighed(s, weigher.out_of_range());
  }
  // Scores that their row does not see, whatever they are, become what it would weigh as 1; and these weights 0.
  void hide(const Step& s) const {
    for (int r = 0; r < kGroup; ++r) {
      const auto hidden = static_cast<std::uint32_t>(~std::uint64_t{0} << s.group->seen(s.tile, r));
      const __m512 one = _mm512_set1_ps(s.group->top[r] / unit_);
      _mm512_mask_store_ps(s.slot + r * kStep, static_cast<__mmask16>(hidden), one);
      _mm512_mask_store_ps(s.slot + r * kStep + 16, static_cast<__mmask16>(hidden >> 16), one);
    }
  }
  static void take_out(const Step& s) {
    for (int r = 0; r < kGroup; ++r) {
      // Its bits are every other one of a pair's.
      const std::uint64_t hidden = (r % 2 ? 0xaaaaaaaaaaaaaaaa : 0x5555555555555555), seen = static_cast<std::uint64_t>(s.group->seen(s.tile, r));
      if (seen == kStep) continue;
      const std::uint64_t out = hidden & ~std::uint64_t{0} << 2 * seen;
      std::uint32_t* w = s.group->weights_at(s.tile, r / 2);
      _mm512_mask_storeu_epi16(w, static_cast<__mmask32>(out), _mm512_setzero_si512());
      _mm512_mask_storeu_epi16(w + 16, static_cast<__mmask32>(out >> 32), _mm512_setzero_si512());
    }
  }
  // The weights of a step are there, not all of them as they should be.
  void weighed(const Step& s, bool out_of_range) {
    if (__builtin_expect(out_of_range, false)) weigh_again(*s.group, s.tile, s.slot);
    const std::int64_t chunk = s.tile * kStep / kChunk;
    if ((s.tile + 1) * kStep % kChunk == 0) memcpy(s.group->tops + chunk * kGroup, s.group->top, sizeof s.group->top);
  }
  // Sums of a step's weights: products with ones, in tile 5 until the chunk is done.
  [[gnu::always_inline]] void add_up(const Step& s) {
    if (!s.group) return;
    const std::uint32_t* w = s.group->weights_at(s.tile, 0);
    tiles_.template load<7>(ones_ + (s.group - g_) * kTileBytes, 64);
    tiles_.template load<4>(w, kPairRow * 4);
    tiles_.template multiply_add<5, 4, 7>();
    tiles_.template load<4>(w + 16, kPairRow * 4);
    tiles_.template multiply_add<5, 4, 7>();
    if ((s.tile + 1) * kStep % kChunk == 0 && s.group == g_ + n_groups_ - 1) end_chunk(s.tile * kStep / kChunk);
  }
  void end_chunk(std::int64_t chunk) {
    tiles_.template store<5>(g_->sums + chunk * kSums, 64);
    tiles_.template zero<5>();
  }

  // By f32: rows that are out of the fast weigher's range.
  [[gnu::noinline]] void weigh_again(Group& g, std::int64_t tile, const float* s) {
    for (int r = 0; r < kGroup; ++r, s += kStep) {
      FastWeigher fast(unit_);
      fast.by_fours(s, g.zero[r]);
      if (!fast.out_of_range()) continue;
      const auto in = static_cast<std::uint32_t>((std::uint64_t{1} << g.seen(tile, r)) - 1);
      const __m512 none = _mm512_set1_ps(-__builtin_inff());
      __m512 x[2];
      for (int i = 0; i < 2; ++i) x[i] = _mm512_mask_loadu_ps(none, static_cast<__mmask16>(in >> 16 * i), s + 16 * i);
      // A maximum takes its second operand for a NaN.
      const float most = unit_ * _mm512_reduce_max_ps(_mm512_max_ps(x[0], _mm512_max_ps(x[1], none)));
      if (most > g.top[r] + kLag) {
        const float top = __builtin_ceilf(most);  // a whole number: weights of before change in their exponents only
        shrink(g, tile, r, g.top[r] - top);
        g.raise(r, top);
      }
      for (int i = 0; i < 2; ++i) {
        const __m512 y = _mm512_fmsub_ps(x[i], _mm512_set1_ps(unit_), _mm512_set1_ps(g.top[r]));
        put(g.weights_at(tile, r / 2) + 16 * i, r % 2, exp2_fine(_mm512_max_ps(y, _mm512_set1_ps(kLeast))), static_cast<__mmask16>(in >> 16 * i));
      }
    }
  }
  // The weights of row r in the tile's chunk, before the tile, times 2^x; and their sum.
  void shrink(Group& g, std::int64_t tile, int r, float x) {
    const __m512 by = exp2_fine(_mm512_set1_ps(x < -200.0f ? -200.0f : x)), least = exp2_fine(_mm512_set1_ps(kLeast));
    std::uint32_t *const end = g.weights_at(tile, r / 2), *w = end - tile * kStep % kChunk;
    if (w == end) return;
    __m512 sum = _mm512_setzero_ps();
    for (; w < end; w += 16) {
      const __m512i pair = _mm512_load_si512(w);
      sum = _mm512_add_ps(sum, put(w, r % 2, _mm512_max_ps(_mm512_mul_ps(r % 2 ? odd(pair) : even(pair), by), least), 0xffff));
    }
    float* const sums = g_->sums + tile * kStep / kChunk * kSums;  // where they will come to lie
    tiles_.template store<5>(sums, 64);
    sums[r / 2 * 16 + 2 * (&g - g_) + r % 2] = _mm512_reduce_add_ps(sum);
    tiles_.template load<5>(sums, 64);
  }

  const Args& a_;
  Group* const g_;
  const int n_groups_, kv_head_, depth_;
  const std::int64_t keys_;  // that the last row sees
  const float unit_;
  char* const ones_;         // B tiles: of group i's weights column 2 i takes the first of each pair, 2 i + 1 the second
  float* const slots_;       // [kSlots] of [32][32] scores
  Tiles tiles_;
};

// ---- And through the weights.

// What makes weights of a chunk relative to the last tops.
void factors(const Group& g, std::int64_t chunk, float* by) {
  for (int r = 0; r < kGroup; r += 16) {
    const __m512 below = _mm512_sub_ps(_mm512_load_ps(g.tops + chunk * kGroup + r), _mm512_load_ps(g.top + r));
    _mm512_store_ps(by + r, exp2_fine(_mm512_max_ps(below, _mm512_set1_ps(-40.0f))));  // of a NaN, -40
  }
}
__m512i pairs_at(const std::uint32_t* w, int pair, int v) {  // beside the chunk there is nothing
  return v >= 0 && v < kChunk / 16 ? _mm512_load_si512(w + pair * kPairRow + v * 16) : _mm512_setzero_si512();
}
// Sixteen diagonals from 16 v on, where diagonal t holds key t - 31 + r of row r.
template <int P = 0>
[[gnu::always_inline]] inline void add_diagonals(__m512* x, const std::uint32_t* w, int v, const float* by) {
  if constexpr (P < kPairs) {
    constexpr int kFirst = 2 * P + 1, kShift = kFirst % 16;  // key of the pair's first row, after 16 (v - 2)
    const __m512i near = pairs_at(w, P, v - 2 + kFirst / 16), far = pairs_at(w, P, v - 1 + kFirst / 16);
    x[0] = _mm512_fmadd_ps(even(_mm512_alignr_epi32(far, near, kShift)), _mm512_set1_ps(by[2 * P]), x[0]);
    __m512i next = far;
    if constexpr (kShift < 15) next = _mm512_alignr_epi32(far, near, kShift + 1);
    x[1] = _mm512_fmadd_ps(odd(next), _mm512_set1_ps(by[2 * P + 1]), x[1]);
    add_diagonals<P + 1>(x, w, v, by);
  }
}
// Sums of a part of the rows, from groups that come in order.
struct Sums {
  float *column, *diagonal;
  std::int64_t length;      // of each
  bool fresh = true;        // nothing is there yet, whatever the memory holds

  // Where a group has its diagonals, of which number `first` is the first, `chunks` chunks long.
  void begin(std::int64_t first, std::int64_t chunks) const {
    const auto clear = [&](float* sums, std::int64_t from, std::int64_t to) { memset(sums + from, 0, static_cast<std::size_t>(to - from) * 4); };
    clear(column, chunks * kChunk, length);
    clear(diagonal, 0, first);
    clear(diagonal, first + chunks * kChunk + kGroup, length);
  }
};

void add_lines(const Group& g, const float* sums_of_weights, std::int64_t chunks, Sums& sums, std::int64_t first_diagonal) {
  alignas(64) float inverse[kGroup] = {}, by[kGroup];
  for (std::int64_t c = 0; c < chunks; ++c) {
    factors(g, c, by);
    for (int r = 0; r < g.live; ++r) {
      inverse[r] += by[r] * sums_of_weights[c * kSums + r / 2 * 16 + r % 2];
    }
  }
  for (int r = 0; r < g.live; ++r) inverse[r] = 1.0f / inverse[r];
  if (sums.fresh) sums.begin(first_diagonal, chunks);
  float *column = sums.column, *diagonal = sums.diagonal + first_diagonal;
  for (std::int64_t c = 0; c < chunks; ++c, column += kChunk, diagonal += kChunk) {
    factors(g, c, by);
    for (int r = 0; r < kGroup; ++r) by[r] *= inverse[r];
    const std::uint32_t* w = g.weights + c * kChunkDwords;
    for (int v = 0; v < kChunk / 16; ++v) {
      __m512 x[2] = {sums.fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(column + v * 16), _mm512_setzero_ps()};
      for (int p = 0; p < kPairs; ++p) {
        const __m512i pair = pairs_at(w, p, v);
        x[0] = _mm512_fmadd_ps(even(pair), _mm512_set1_ps(by[2 * p]), x[0]);
        x[1] = _mm512_fmadd_ps(odd(pair), _mm512_set1_ps(by[2 * p + 1]), x[1]);
      }
      _mm512_storeu_ps(column + v * 16, _mm512_add_ps(x[0], x[1]));
    }
    for (int v = 0; v < kChunk / 16 + 2; ++v) {
      // The first ones are the last ones of the chunk before.
      __m512 x[2] = {sums.fresh && (c == 0 || v >= 2) ? _mm512_setzero_ps() : _mm512_loadu_ps(diagonal + v * 16), _mm512_setzero_ps()};
      add_diagonals(x, w, v, by);
      _mm512_storeu_ps(diagonal + v * 16, _mm512_add_ps(x[0], x[1]));
    }
  }
  sums.fresh = false;
}

int tasks(const Args& a, int phase, int) { return phase == 0 ? a.hq * parts(a) : a.hq; }
std::size_t shared_bytes(const Args& a, int) { return static_cast<std::size_t>(a.hq * parts(a) * 2 * lines::sum_row(a)) * 4; }
std::int64_t most_chunks(const Args& a) { return chunks(a.first_key + a.n_rows); }
std::size_t scratch_bytes(const Args& a) {
  return Weighing<HardwareTiles>::kBytes + static_cast<std::size_t>(groups(a)) * Group::bytes(most_chunks(a), channel_tiles(a));
}

template <class Tiles>
void run(const Args& a, int phase, int task, int, void* scratch, void* shared) {
  const std::int64_t length = lines::sum_row(a), of_head = parts(a) * 2 * length;
  float* const all = static_cast<float*>(shared);
  if (phase == 1) return lines::join_parts(a, task, parts(a), all + task * of_head);
  const int head = task / parts(a), part = task % parts(a), depth = channel_tiles(a);
  float* const at = all + head * of_head + part * 2 * length;
  Sums sums{.column = at, .diagonal = at + length, .length = length};
  const std::int64_t first = part * part_rows(a), end = first + part_rows(a), last = end < a.n_rows ? end : a.n_rows;
  for (std::int64_t row = first; row < last; row += rows_at_once(a)) {
    Group g[2];
    int n = 0;
    for (; n < groups(a) && row + n * kGroup < last; ++n) {
      const std::int64_t from = row + n * kGroup, left = last - from;
      g[n].own = a.first_key + from;
      g[n].live = static_cast<int>(left < kGroup ? left : kGroup);
      g[n].lie(static_cast<char*>(scratch) + Weighing<Tiles>::kBytes + static_cast<std::size_t>(n) * Group::bytes(most_chunks(a), depth),
               most_chunks(a), depth);
      for (int r = 0; r < kGroup; ++r) {
        put_row(a.q + head * a.q_head + (from + (r < left ? r : 0)) * a.q_row, r < left ? a.dk : 0, depth, r % kTileRows,
                g[n].q + r / kTileRows * depth * kTileBytes);
        g[n].raise(r, r < left ? kUnseen : 0.0f);
      }
    }
    Weighing<Tiles>(a, head / (a.hq / a.hkv), g, n, static_cast<char*>(scratch)).run();
    for (int i = 0; i < n; ++i)
      add_lines(g[i], g[0].sums + 2 * i, chunks(g[n - 1].own + g[n - 1].live), sums, lines::kMargin + a.n_rows - kGroup - row - i * kGroup);
  }
}

const char* why_not(const Args& a, int) { return why_not_products(a); }

}  // namespace

extern const Kernel<op::LineSums> line_sums, line_sums_emulated;
const Kernel<op::LineSums> line_sums{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .shared_bytes = shared_bytes,
    .run = run<HardwareTiles>,
};
const Kernel<op::LineSums> line_sums_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .phases = 2,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .shared_bytes = shared_bytes,
    .run = run<EmulatedTiles>,
};

}  // namespace lacuna::kernel::amx
