// SPDX-License-Identifier: Apache-2.0
// op attend for many rows, on AMX: bf16 products, f32 scores, sums and outputs.
//
// A strip is a row block of one or more query heads that share a KV head and a tile list; their rows are
// stacked and cut into units of 32. A task is some strips of one KV head. Their tiles are taken together,
// in spans that fit the L2 cache, and every unit passes over its strip's tiles of a span, 32 keys per step:
//   score       S[32][32] = Q K^T                tile products
//   weigh       P = 2^(S * factor - top)         AVX-512, bf16 weights in the order of A tiles
// and once per chunk of up to 8 steps
//   accumulate  acc[32][Dv] += P V               tile products, acc kept in memory as C tiles
// The scores of a step are weighed two steps later, between the tile products of that step: the two
// units work side by side, and no score is read before its store is long done. For the same reason C
// tiles are not stored when they are finished but when their registers are needed again.
//
// With pv_skip, a unit is the group of rows that leaves a tile out: its scores become -inf before they are
// weighed, and accumulate passes it over.
//
// K and V are pair16_bf16 blocks, which are B tiles (kv/packed.h). A row's result depends on nothing
// but its own list of tiles: neither on the rows it is stacked with nor on where chunks end.
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/amx/weigh.h"
#include "kernel/cpu/avx512/gather.inc"
#include "kernel/kernel.h"
#include "op/attend.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::Attend::Args;

constexpr int kUnitRows = 2 * kTileRows;
constexpr int kChunkTiles = 8;      // most steps between two accumulations
constexpr int kSpanTiles = 32;      // that are copied: 512 KB of K and V at head_dim 128
constexpr int kInPlaceTiles = 16;   // that are read in place
constexpr int kStackedRows = 256;   // most rows per strip where heads are stacked
constexpr int kMaxStrips = 16;      // per task, where tiles are copied: that is what they share,
constexpr std::size_t kStateBytes = 1 << 20;  // and the most that their units may take in the L2 cache
constexpr int kCopyRows = 128;      // a span is copied for this many rows or more,
constexpr int kCopyHeads = 4;       // and a number of KV heads that this divides
constexpr int kRowsAhead = 4;       // fetched while others are read or written
constexpr int kTasksPerWorker = 4;  // tasks differ in length: leave something to balance with
constexpr int kScoreSlots = 3;      // being stored, waiting, being weighed
constexpr int kScoreSlot = kUnitRows * kTileKeys + 32;  // floats; not 4 KB: same rows in different cache sets
constexpr float kUnseen = -1e38f;   // top of a row that has seen nothing; finite, so that -inf - kUnseen is -inf
constexpr float kNone = -__builtin_inff();

// Sizes that follow from the head dimensions, in tiles of 1 KB.
struct Shape {
  int depth;     // products per score tile
  int channels;  // C tiles per 16 rows of output, an even number
  explicit Shape(const Args& a) : depth(ceil_div(a.dk, kTileDepth)), channels(2 * ceil_div(a.dv, 32)) {}
};

// One tile of keys for the rows of a strip.
struct Keys {
  const char* k;               // [half of 16 keys][depth] B tiles
  const char* v;               // [channels / 2] pairs of B tiles, Task::v_step_ apart
  const std::uint32_t* words;  // of row 0 of the block; null: all rows see all keys
  std::int64_t first_cell;
  bool last = false;           // of its list
};

// 32 stacked rows on their way through the tiles.
struct Unit {
  char* q;     // [2][depth] A tiles
  float* acc;  // [2][channels] C tiles
  float* top;  // [32] what weights are relative to, in base 2
  float* most;  // [32] largest base-2 logit so far, for pv_skip
  float* sum;  // [2][32][16] sum of weights in parts, before and after a step by turns
  int* turn;   // which of the two holds before the next step
  int live;    // rows in use
};

constexpr std::size_t kScoreBytes = sizeof(float) * kScoreSlots * kScoreSlot;
constexpr std::size_t kWeightBytes = std::size_t{2} * kChunkTiles * kTileBytes;

std::size_t unit_bytes(const Shape& s) {
  return std::size_t{2} * (s.depth + s.channels) * kTileBytes + kUnitRows * sizeof(float) * (2 + 2 * 16) + 64;
}
std::size_t span_bytes(const Shape& s) { return std::size_t{kSpanTiles} * (2 * s.depth + s.channels) * kTileBytes; }

// How a call is cut into tasks.
struct Split {
  int rows = 0;    // of a full block
  int blocks = 0;
  int heads = 1;   // query heads per strip
  int per_kv = 0;  // strips of a KV head
  int strips = 1;  // per task, at most
  int units() const { return strips * ceil_div(heads * rows, kUnitRows); }  // per task, at most
  int tasks_per_kv() const { return ceil_div(per_kv, strips); }
};

// With `workers` = 0: the largest tasks any number of workers may get.
Split split_of(const Args& a, int workers) {
  Split s;
  s.rows = a.runs.block_q < a.n_rows ? a.runs.block_q : a.n_rows;
  s.blocks = ceil_div(a.n_rows, a.runs.block_q);
  const int enough = kTasksPerWorker * workers;
  const int per_list = a.hq / a.runs.heads;  // query heads
  const int of_kv = a.hq / a.hkv, group = per_list < of_kv ? per_list : of_kv;
  // With pv_skip stacked heads would share groups, and how many are stacked depends on the workers.
  for (int heads = a.pv_skip ? 1 : group; heads > 1; --heads) {
    if (group % heads || heads * s.rows > kStackedRows) continue;
    if (workers && static_cast<long>(a.hq / heads) * s.blocks < enough) continue;
    s.heads = heads;
    break;
  }
  s.per_kv = of_kv / s.heads * s.blocks;
  const auto fits = [&] {
    return s.strips == 1 || (s.units() * unit_bytes(Shape(a)) <= kStateBytes && a.hkv * s.tasks_per_kv() >= enough);
  };
  const int most = a.hkv % kCopyHeads ? 1 : kMaxStrips;
  for (s.strips = s.per_kv < most ? s.per_kv : most; !fits();) --s.strips;
  if (workers) s.strips = ceil_div(s.per_kv, s.tasks_per_kv());  // alike
  return s;
}

template <class Tiles>
class Task {
 public:
  Task(const Args& a, const Split& split, int task, char* scratch) : a_(a), shape_(a), split_(split) {
    kv_head_ = task % a.hkv;
    const int first = task / a.hkv * split.strips;
    n_strips_ = split.per_kv - first < split.strips ? split.per_kv - first : split.strips;
    int units = 0, stacked = 0;
    for (int i = 0; i < n_strips_; ++i) {
      open(first + i, strips_[i]);
      strips_[i].first_unit = units;
      units += ceil_div(strips_[i].stacked, kUnitRows);
      stacked += strips_[i].stacked;
    }
    scores_ = reinterpret_cast<float*>(scratch);
    weights_ = reinterpret_cast<std::uint16_t*>(scratch + kScoreBytes);
    discard_ = reinterpret_cast<float*>(scratch + kScoreBytes + kWeightBytes);
    units_ = scratch + kScoreBytes + kWeightBytes + kTileBytes;
    span_ = units_ + units * unit_bytes(shape_);
    copies_ = stacked >= kCopyRows && a.hkv % kCopyHeads == 0;
    span_tiles_ = copies_ ? kSpanTiles : kInPlaceTiles;
    v_step_ = (copies_ ? kSpanTiles : 1) * 2L * kTileBytes;
    adjusts_ = a.softcap > 0 || a.bias || !(a.scale > 0);
    factor_ = adjusts_ ? 1.0f : a.scale * kLog2e;
  }

  void run() {
    each_unit([&](const Strip& s, int u) { begin(s, u); });
    while (take_span()) each_unit([&](const Strip& s, int u) { pass(s, u); });
    each_unit([&](const Strip& s, int u) { end(s, u); });
  }

 private:
  struct Strip {
    int first_head, first_row, rows, stacked;
    int first_unit;  // of the task's
    const TileRun *run, *end;  // what is left of its list,
    std::int32_t tile;         // from this tile of `run` on; kNoTile: nothing
    Keys span[kSpanTiles];
    int n;  // of span in use
  };
  static constexpr std::int32_t kNoTile = INT32_MAX;

  // Strip `i` of the KV head. Causal: the longest lists first.
  void open(int i, Strip& s) const {
    const int of_kv = a_.hq / a_.hkv / split_.heads, block = split_.blocks - 1 - i / of_kv;
    s.first_head = (kv_head_ * of_kv + i % of_kv) * split_.heads;
    s.first_row = block * a_.runs.block_q;
    s.rows = a_.n_rows - s.first_row < split_.rows ? a_.n_rows - s.first_row : split_.rows;
    s.stacked = s.rows * split_.heads;
    const int row_ptrs = ceil_div(a_.runs.n_rows, a_.runs.block_q) + 1;  // of a list
    const std::int64_t which = a_.runs.heads == 1 ? 0 : s.first_head / a_.runs.heads_per_list;
    const std::int32_t* list = a_.runs.row_ptr + which * row_ptrs + block;
    s.run = a_.runs.runs + list[0];
    s.end = a_.runs.runs + list[1];
    s.tile = s.run == s.end ? kNoTile : s.run->begin;
  }

  template <class Body>
  void each_unit(const Body& body) const {
    for (int i = 0; i < n_strips_; ++i)
      for (int u = 0; u * kUnitRows < strips_[i].stacked; ++u) body(strips_[i], u);
  }

  struct Row {
    int head, row;  // row of the call
  };
  static Row stacked_row(const Strip& s, int i) { return {s.first_head + i / s.rows, s.first_row + i % s.rows}; }

  // The next tiles of all strips, each laid out once. Returns false if there are none.
  bool take_span() {
    for (int i = 0; i < n_strips_; ++i) strips_[i].n = 0;
    int slots = 0;
    for (; slots < span_tiles_; ++slots) {
      std::int32_t tile = kNoTile;
      for (int i = 0; i < n_strips_; ++i) tile = strips_[i].tile < tile ? strips_[i].tile : tile;
      if (tile == kNoTile) break;
      const Keys keys = keys_of(tile, slots);
      for (int i = 0; i < n_strips_; ++i) {
        Strip& s = strips_[i];
        if (s.tile != tile) continue;
        Keys& to = s.span[s.n++] = keys;
        if (s.run->bits >= 0) to.words = a_.runs.words + static_cast<std::int64_t>(s.run->bits) * a_.runs.block_q;
        if (++s.tile == s.run->end) s.tile = ++s.run == s.end ? kNoTile : s.run->begin;
        to.last = s.tile == kNoTile;
      }
    }
    return slots > 0;
  }

  Unit unit(const Strip& s, int u) const {
    char* at = units_ + (s.first_unit + u) * unit_bytes(shape_);
    Unit x;
    x.q = at;
    x.acc = reinterpret_cast<float*>(at + std::size_t{2} * shape_.depth * kTileBytes);
    x.sum = x.acc + std::size_t{2} * shape_.channels * (kTileBytes / sizeof(float));
    x.top = x.sum + 2 * kUnitRows * 16;
    x.most = x.top + kUnitRows;
    x.turn = reinterpret_cast<int*>(x.most + kUnitRows);
    x.live = s.stacked - u * kUnitRows < kUnitRows ? s.stacked - u * kUnitRows : kUnitRows;
    return x;
  }
  // Sixteen channels of a row of acc.
  float* acc_at(const Unit& x, int r, int channel_tile) const {
    return x.acc + (r / kTileRows * shape_.channels + channel_tile) * 256 + r % kTileRows * 16;
  }

  // Rows of q and out lie far apart, and no processor fetches them by itself.
  template <int kWrite>
  static void fetch(const Strip& s, int i, const float* base, std::int64_t head, std::int64_t row, int n) {
    if (i >= s.stacked || !base) return;
    const Row at = stacked_row(s, i);
    const float* from = base + at.head * head + at.row * row;
    for (int d = 0; d < n; d += 16) __builtin_prefetch(from + d, kWrite);
  }

  // Queries to bf16 A tiles (rows and channels past the end are zeros), and the state to start from.
  void begin(const Strip& s, int u) {
    const Unit x = unit(s, u);
    *x.turn = 0;
    for (int r = 0; r < kUnitRows; ++r) {
      fetch<0>(s, u * kUnitRows + r + kRowsAhead, a_.q, a_.q_head, a_.q_row, a_.dk);
      const Row at = stacked_row(s, r < x.live ? u * kUnitRows + r : u * kUnitRows);
      const float* q = a_.q + at.head * a_.q_head + at.row * a_.q_row;
      put_row(q, r < x.live ? a_.dk : 0, shape_.depth, r % kTileRows, x.q + r / kTileRows * shape_.depth * kTileBytes);
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      const bool resumes = a_.resume.m && r < x.live;
      x.top[r] = r >= x.live ? 0.0f : resumes && a_.resume.m[state] > kNone ? a_.resume.m[state] * kLog2e : kUnseen;
      x.most[r] = resumes ? a_.resume.m[state] * kLog2e : kNone;
      _mm512_store_ps(x.sum + r * 16, _mm512_maskz_mov_ps(1, _mm512_set1_ps(resumes ? a_.resume.l[state] : 0.0f)));
      for (int c = 0; c < shape_.channels; ++c) {
        const int left = resumes ? a_.dv - c * 16 : 0;
        const float* acc = resumes ? a_.resume.acc + state * a_.dv + c * 16 : nullptr;
        _mm512_store_ps(acc_at(x, r, c), left > 0 ? _mm512_maskz_loadu_ps(first_lanes(left), acc) : _mm512_setzero_ps());
      }
    }
  }

  // A tile's keys and values, in a slot of the span or in place. In place, the other heads lie between the
  // tiles. Where that makes large powers of two, the tiles share few cache sets, and enough rows pay for a
  // copy; elsewhere neither a copy nor a longer span pays (docs/decisions/021). V is copied in the order in which
  // accumulate() reads it. Gathered tiles are laid out at the same places.
  Keys keys_of(std::int64_t tile, int slot) {
    const std::size_t k_bytes = std::size_t{2} * shape_.depth * kTileBytes, v_bytes = shape_.channels * kTileBytes;
    char *k = span_ + slot * k_bytes, *v = span_ + kSpanTiles * k_bytes + slot * (copies_ ? 2 * kTileBytes : v_bytes);
    if (tile >= a_.runs.first_gathered) {
      const std::int32_t* slots = avx512::slots_of(a_.runs, tile);
      avx512::gather_keys(a_, slots, kv_head_, k);
      avx512::gather_values(a_, slots, kv_head_, v, v_step_);
      return {k, v, nullptr, 0};
    }
    const char *from_k = a_.packed_k.block(tile, kv_head_), *from_v = a_.packed_v.block(tile, kv_head_);
    if (!copies_) return {from_k, from_v, nullptr, tile * kTileKeys};
    copy(k, from_k, k_bytes);
    for (int c = 0; c < shape_.channels / 2; ++c) copy(v + c * v_step_, from_v + c * 2 * kTileBytes, 2 * kTileBytes);
    return {k, v, nullptr, tile * kTileKeys};
  }
  static void copy(char* to, const char* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += 64) _mm512_store_si512(to + i, _mm512_loadu_si512(from + i));
  }

  // A unit over the tiles of a span, less those none of its rows sees (beyond the diagonal, say).
  void pass(const Strip& s, int u) {
    const Unit x = unit(s, u);
    Keys seen_by[kSpanTiles];
    int m = 0;
    for (int i = 0; i < s.n; ++i)
      if (!s.span[i].words || seen(s, u, x.live, s.span[i].words)) seen_by[m++] = s.span[i];
    if (!m) return;
    if (x.live <= kTileRows) return sweep<1, 0>(s, u, x, seen_by, m);
    switch (shape_.depth) {
      case 1: return sweep<2, 1>(s, u, x, seen_by, m);
      case 2: return sweep<2, 2>(s, u, x, seen_by, m);
      case 4: return sweep<2, 4>(s, u, x, seen_by, m);
      case 8: return sweep<2, 8>(s, u, x, seen_by, m);
      default: return sweep<2, 0>(s, u, x, seen_by, m);
    }
  }

  static bool seen(const Strip& s, int u, int live, const std::uint32_t* words) {
    std::uint32_t any = 0;
    int row = u * kUnitRows % s.rows;
    for (int r = 0; r < live; ++r) {
      any |= words[row];
      if (++row == s.rows) row = 0;
    }
    return any != 0;
  }

  float* slot(int step) const { return scores_ + step % kScoreSlots * kScoreSlot; }
  // Where the weights of a row go: [row / 16][tile of the chunk][row % 16][32].
  std::uint16_t* weights_at(int r, int tile) const {
    return weights_ + (r / kTileRows * kChunkTiles + tile) * (kTileBytes / 2) + r % kTileRows * kTileKeys;
  }

  // All steps of a unit over n tiles. R: 16-row tiles in use. Depth: shape_.depth, or 0 for one that
  // does not divide the rows evenly; weighing then follows the products instead of mixing with them.
  template <int R, int Depth>
  void sweep(const Strip& s, int u, const Unit& x, const Keys* keys, int n) {
    for (float*& p : pending_) p = discard_;
    pending_stride_ = 0;
    int chunk = 0;  // first tile not yet accumulated
    for (int step = 0; step < n + 2; ++step) {
      const int weighed = step - 2;
      if (weighed >= 0) {
        prepare(s, u, x, slot(weighed), keys[weighed]);
        if (a_.pv_skip) skips_[weighed] = leave_out(s, u, x, slot(weighed), keys[weighed]);
      }
      Weigher w(factor_);
      if (step < n) {
        if (weighed >= 0) score<R, Depth, true>(x, keys[step], slot(step), weighing(x, weighed, chunk), w);
        else score<R, Depth, false>(x, keys[step], slot(step), {}, w);
      } else {
        store_pending<R>();
        if (weighed >= 0) {
          const Weighing all = weighing(x, weighed, chunk);
          for (int r = 0; r < R * kTileRows; ++r) all.row(r, w);
        }
      }
      if (weighed < 0) continue;
      if (__builtin_expect(w.too_high(), false)) {
        if (weighed > chunk) accumulate<R>(x, keys + chunk, skips_ + chunk, weighed - chunk);
        store_pending<R>();
        raise_tops(x, weighed, weighed - chunk);
        if (weighed > chunk) {  // the new weights stand where the old chunk left them: start there
          for (int r = 0; r < R * kTileRows; ++r)
            _mm512_store_si512(weights_at(r, 0), _mm512_load_si512(weights_at(r, weighed - chunk)));
          chunk = weighed;
        }
      }
      *x.turn ^= 1;
      if (weighed + 1 - chunk == kChunkTiles || weighed == n - 1) {
        accumulate<R>(x, keys + chunk, skips_ + chunk, weighed + 1 - chunk);
        chunk = weighed + 1;
      }
    }
    store_pending<R>();
  }

  // What weighing a step needs of each row; by value, since tile instructions may touch any memory.
  struct Weighing {
    const float *s, *top, *sum;
    float* sum_after;
    std::uint16_t* weights;
    [[gnu::always_inline]] void row(int r, Weigher& w) const {
      w.row(s + r * kTileKeys, top[r], weights + r / kTileRows * kChunkTiles * (kTileBytes / 2) + r % kTileRows * kTileKeys,
            sum + r * 16, sum_after + r * 16);
    }
  };
  Weighing weighing(const Unit& x, int step, int chunk) const {
    return {slot(step), x.top, x.sum + *x.turn * kUnitRows * 16, x.sum + (*x.turn ^ 1) * kUnitRows * 16,
            weights_at(0, step - chunk)};
  }

  // Scores of a tile to s (when its C tiles are next needed), and the weights of an earlier one.
  template <int R, int Depth, bool kWeigh>
  void score(const Unit& x, const Keys& keys, float* s, const Weighing weighing, Weigher& weigher) {
    constexpr int kRowsPerProduct = Depth ? 8 / Depth : 0;
    const long half = static_cast<long>(shape_.depth) * kTileBytes;
    const char *q = x.q, *k = keys.k;
    Weigher w = weigher;
    int r = 0;
    const auto some_rows = [&] {
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
      tiles_.template load<6>(k, 64);
      tiles_.template multiply_add<0, 4, 6>();
      some_rows();
      if (d == 0) restart<1>();
      tiles_.template load<7>(k + half, 64);
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
      for (; r < R * kTileRows; ++r) weighing.row(r, w);
    weigher = w;
    pending_[0] = s;
    pending_[1] = s + 16;
    pending_[2] = s + kTileRows * kTileKeys;
    pending_[3] = s + kTileRows * kTileKeys + 16;
    pending_stride_ = kTileKeys * sizeof(float);
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
  void store_pending() {
    tiles_.template store<0>(pending_[0], pending_stride_);
    tiles_.template store<1>(pending_[1], pending_stride_);
    if constexpr (R == 2) {
      tiles_.template store<2>(pending_[2], pending_stride_);
      tiles_.template store<3>(pending_[3], pending_stride_);
    }
    for (float*& p : pending_) p = discard_;
    pending_stride_ = 0;
  }

  // What must happen to scores before they are weighed.
  void prepare(const Strip& strip, int u, const Unit& x, float* s, const Keys& keys) const {
    if (adjusts_)
      for (int r = 0; r < x.live; ++r) adjust(stacked_row(strip, u * kUnitRows + r), s + r * kTileKeys, keys);
    if (!keys.words) return;
    const __m512 none = _mm512_set1_ps(kNone);
    int row = u * kUnitRows % strip.rows;
    for (int r = 0; r < x.live; ++r, s += kTileKeys) {
      const std::uint32_t hidden = ~keys.words[row];
      _mm512_mask_store_ps(s, static_cast<__mmask16>(hidden), none);
      _mm512_mask_store_ps(s + 16, static_cast<__mmask16>(hidden >> 16), none);
      if (++row == strip.rows) row = 0;
    }
  }

  // pv_skip, after prepare: whether the unit leaves the tile out, whose scores are then -inf.
  [[gnu::noinline]] bool leave_out(const Strip& strip, int u, const Unit& x, float* s, const Keys& keys) const {
    const __m512 factor = _mm512_set1_ps(factor_);
    bool small = !keys.words && !keys.last;
    for (int r = 0; r < x.live; ++r) {
      const __m512 low = _mm512_mul_ps(_mm512_load_ps(s + r * kTileKeys), factor);
      const __m512 high = _mm512_mul_ps(_mm512_load_ps(s + r * kTileKeys + 16), factor);
      const __m512 bound = _mm512_set1_ps(x.most[r] - a_.pv_skip[stacked_row(strip, u * kUnitRows + r).head]);
      // Not less or equal: above, or a NaN. A maximum takes its second operand for a NaN.
      small = small && !(_mm512_cmp_ps_mask(low, bound, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(high, bound, _CMP_NLE_UQ));
      x.most[r] = _mm512_reduce_max_ps(_mm512_max_ps(high, _mm512_max_ps(low, _mm512_set1_ps(x.most[r]))));
    }
    if (!small) return false;
    const __m512 none = _mm512_set1_ps(kNone);
    for (int i = 0; i < kUnitRows * kTileKeys; i += 16) _mm512_store_ps(s + i, none);
    return true;
  }

  // Scores to base-2 logits where more than a positive factor lies between them.
  void adjust(const Row& at, float* s, const Keys& keys) const {
    const __m512 scale = _mm512_set1_ps(a_.softcap > 0 ? a_.scale / a_.softcap : a_.scale);
    const __m512 cap = _mm512_set1_ps(a_.softcap);
    const __m512 slope = _mm512_set1_ps(a_.slope ? a_.slope[at.head] : 1.0f);
    for (int half = 0; half < 2; ++half, s += 16) {
      const std::int64_t cell = keys.first_cell + half * 16, left = a_.n_cells - cell;
      __m512 y = _mm512_mul_ps(_mm512_load_ps(s), scale);
      if (a_.softcap > 0) y = _mm512_mul_ps(tanh16(y), cap);
      if (a_.bias) {
        const __m256i b = _mm256_maskz_loadu_epi16(first_lanes(left < 16 ? static_cast<int>(left) : 16),
                                                   a_.bias + at.row * a_.bias_row + cell);
        y = _mm512_fmadd_ps(slope, _mm512_cvtph_ps(b), y);
      }
      _mm512_store_ps(s, _mm512_mul_ps(y, _mm512_set1_ps(kLog2e)));
    }
  }

  // For rows with a logit more than kLag above their top: a new top, and the step's weights again.
  [[gnu::noinline]] void raise_tops(const Unit& x, int step, int tile) const {
    float* sums = x.sum + *x.turn * kUnitRows * 16;
    for (int r = 0; r < x.live; ++r) {
      const float* s = slot(step) + r * kTileKeys;
      const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16)));
      if (!(__builtin_fmaf(largest, factor_, -x.top[r]) > kLag)) continue;
      const float top = largest * factor_;  // so that a row's first, perhaps only, key weighs exactly 1
      const __m512 shrink = exp2_fine(_mm512_set1_ps(x.top[r] - top));
      x.top[r] = top;
      _mm512_store_ps(sums + r * 16, _mm512_mul_ps(_mm512_load_ps(sums + r * 16), shrink));
      for (int c = 0; c < shape_.channels; ++c) {
        float* acc = acc_at(x, r, c);
        _mm512_store_ps(acc, _mm512_mul_ps(_mm512_load_ps(acc), shrink));
      }
      Weigher w(factor_);
      w.row(s, top, weights_at(r, tile), sums + r * 16, x.sum + ((*x.turn ^ 1) * kUnitRows + r) * 16);
    }
  }

  // acc[r][c] += sum over the chunk of weight[r][j] * v[j][c], 32 channels at a time.
  template <int R>
  void accumulate(const Unit& x, const Keys* chunk, const bool* skips, int n) {
    const char* p = reinterpret_cast<const char*>(weights_);
    for (int c = 0; c < shape_.channels; c += 2) {
      float *low = x.acc + c * 256, *high = low + shape_.channels * 256;
      reload<0>(low);
      reload<1>(low + 256);
      if constexpr (R == 2) {
        reload<2>(high);
        reload<3>(high + 256);
      }
      for (int i = 0; i < n; ++i) {
        if (skips[i]) continue;
        const char* v = chunk[i].v + c / 2 * v_step_;
        tiles_.template load<4>(p + i * kTileBytes, 64);
        tiles_.template load<6>(v, 64);
        tiles_.template multiply_add<0, 4, 6>();
        tiles_.template load<7>(v + kTileBytes, 64);
        tiles_.template multiply_add<1, 4, 7>();
        if constexpr (R == 2) {
          tiles_.template load<5>(p + (kChunkTiles + i) * kTileBytes, 64);
          tiles_.template multiply_add<2, 5, 6>();
          tiles_.template multiply_add<3, 5, 7>();
        }
      }
      pending_[0] = low;
      pending_[1] = low + 256;
      pending_[2] = high;
      pending_[3] = high + 256;
      pending_stride_ = 64;
    }
  }

  // State out, or output and lse.
  void end(const Strip& s, int u) {
    const Unit x = unit(s, u);
    for (int r = 0; r < x.live; ++r) {
      fetch<1>(s, u * kUnitRows + r + kRowsAhead, a_.out, a_.out_head, a_.out_row, a_.dv);
      const Row at = stacked_row(s, u * kUnitRows + r);
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      float top = x.top[r], sum = _mm512_reduce_add_ps(_mm512_load_ps(x.sum + (*x.turn * kUnitRows + r) * 16));
      if (a_.resume.m) {
        a_.resume.m[state] = top == kUnseen ? kNone : top * kLn2;
        a_.resume.l[state] = sum;
        put(x, r, 1.0f, a_.resume.acc + state * a_.dv);
        if (!a_.normalise) continue;
      }
      float grow = 1.0f;
      if (a_.sinks && sum > 0) {  // a row without cells stays empty: the sink alone carries no value
        const float sink = a_.sinks[at.head] * kLog2e, higher = sink > top ? sink : top;
        grow = exp2_of(top - higher);
        sum = sum * grow + exp2_of(sink - higher);
        top = higher;
      }
      if (a_.out) put(x, r, sum == 0 ? 0.0f : grow / sum, a_.out + at.head * a_.out_head + at.row * a_.out_row);
      if (a_.lse) a_.lse[state] = sum == 0 ? kNone : top * kLn2 + __builtin_logf(sum);
    }
  }

  void put(const Unit& x, int r, float factor, float* to) const {
    for (int c = 0; c * 16 < a_.dv; ++c)
      _mm512_mask_storeu_ps(to + c * 16, first_lanes(a_.dv - c * 16),
                            _mm512_mul_ps(_mm512_load_ps(acc_at(x, r, c)), _mm512_set1_ps(factor)));
  }

  const Args& a_;
  const Shape shape_;
  const Split split_;
  int kv_head_, n_strips_;
  Strip strips_[kMaxStrips];
  float* scores_;           // [kScoreSlots] of [32 rows][32 keys]
  std::uint16_t* weights_;  // [2][kChunkTiles] A tiles
  bool skips_[kSpanTiles] = {};  // of the unit's pass: tiles left out
  float* discard_;          // where C tiles go that nobody waits for
  char* units_;
  char* span_;    // a span's K and V, where they are copied or gathered
  bool copies_;   // packed tiles too
  int span_tiles_;
  long v_step_;   // bytes
  bool adjusts_;  // scores pass through adjust()
  float factor_;  // from what adjust() leaves to base-2 logits
  float* pending_[4];     // where C tiles 0..3 must be stored before they are used again
  long pending_stride_;   // bytes
  Tiles tiles_;
};

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16 || a.packed_v.format != PackFormat::pair16_bf16)
    return "reads K and V packed as pair16_bf16 (precision fast)";
  if (a.runs.slots && a.bias) return "gathered tiles with an additive mask";
  return nullptr;
}

int tasks(const Args& a, int, int workers) {
  return a.hkv * split_of(a, workers).tasks_per_kv();
}

std::size_t scratch_bytes(const Args& a) {
  // How heads and blocks are shared out depends on the workers; what bounds it does not.
  const Split most = split_of(a, 0);
  const std::size_t unit = unit_bytes(Shape(a)), strip = ceil_div(most.heads * most.rows, kUnitRows) * unit;
  const std::size_t all = static_cast<std::size_t>(a.hq / a.hkv) * most.blocks * ceil_div(most.rows, kUnitRows) * unit;
  const std::size_t state = all < kStateBytes ? all : kStateBytes;
  return kScoreBytes + kWeightBytes + kTileBytes + span_bytes(Shape(a)) + (strip > state ? strip : state);
}

template <class Tiles>
void run(const Args& a, int, int task, int workers, void* scratch, void*) {
  Task<Tiles>(a, split_of(a, workers), task, static_cast<char*>(scratch)).run();
}

}  // namespace

extern const Kernel<op::Attend> attend, attend_emulated;
const Kernel<op::Attend> attend{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run<HardwareTiles>,
};
const Kernel<op::Attend> attend_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run<EmulatedTiles>,
};

}  // namespace lacuna::kernel::amx
