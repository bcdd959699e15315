// SPDX-License-Identifier: Apache-2.0
// op attend for many rows, on AMX: bf16 products, f32 scores, sums and outputs.
//
// A task is a row block of one or more query heads that share a KV head and a tile list; their rows
// are stacked and cut into units of 32. The tiles of the list are taken in spans that fit the L2 cache;
// every unit passes over a span in chunks of up to 256 keys, in three phases:
//   score       S[32][keys]  = Q K^T          tile products
//   weigh       P = 2^(S * factor - top)      AVX-512, bf16 weights in the order of A tiles
//   accumulate  acc[32][Dv] += P V            tile products, acc kept in memory as C tiles
// K and V are read where they lie: pair16_bf16 blocks are B tiles (kv/packed.h).
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/amx/weigh.h"
#include "kernel/kernel.h"
#include "op/attend.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::Attend::Args;

constexpr int kUnitRows = 2 * kTileRows;
constexpr int kChunkTiles = 8;                       // tiles of 32 keys that are weighed together
constexpr int kScoreRow = kChunkTiles * kTileKeys + 16;  // floats; not a power of two: rows in different cache sets
constexpr int kSpanTiles = 32;                       // 512 KB of K and V at head_dim 128
constexpr int kStackedRows = 256;                    // most rows per task where heads are stacked
constexpr int kTasksPerWorker = 4;                   // tasks differ in length: leave something to balance with
constexpr float kNone = -__builtin_inff();

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// How a call is cut into tasks.
struct Split {
  int rows = 0;    // of a full block
  int blocks = 0;
  int heads = 1;   // query heads per task
};

// With `workers` = 0: the largest tasks any number of workers may get.
Split split_of(const Args& a, int workers) {
  Split s;
  s.rows = a.runs.block_q < a.n_rows ? a.runs.block_q : a.n_rows;
  s.blocks = ceil_div(a.n_rows, a.runs.block_q);
  if (a.runs.heads != 1) return s;  // every head has a list of its own
  const int group = a.hq / a.hkv;
  for (int heads = group; heads > 1; --heads) {
    if (group % heads || heads * s.rows > kStackedRows) continue;
    if (workers && static_cast<long>(a.hq / heads) * s.blocks < static_cast<long>(kTasksPerWorker) * workers) continue;
    s.heads = heads;
    break;
  }
  return s;
}

// Sizes that follow from the head dimensions, in tiles of 1 KB.
struct Shape {
  int depth;     // products per score tile
  int channels;  // C tiles per 16 rows of output, an even number
  explicit Shape(const Args& a) : depth(ceil_div(a.dk, kTileDepth)), channels(2 * ceil_div(a.dv, 32)) {}
};

// One tile of keys for the rows of a task.
struct Keys {
  const char* k;               // [half of 16 keys][depth] B tiles
  const char* v;               // [channels] B tiles
  const std::uint32_t* words;  // of row 0 of the block; null: all rows see all keys
  std::int64_t first_cell;
};

// 32 stacked rows on their way through the tiles.
struct Unit {
  char* q;     // [2][depth] A tiles
  float* acc;  // [2][channels] C tiles
  float* top;  // [32] what weights are relative to, in base 2; -inf: nothing seen yet
  float* sum;  // [32][16] sum of weights, in parts
};

constexpr std::size_t kScoreBytes = sizeof(float) * kUnitRows * kScoreRow;
constexpr std::size_t kWeightBytes = std::size_t{2} * kChunkTiles * kTileBytes;

std::size_t unit_bytes(const Shape& s) {
  return std::size_t{2} * (s.depth + s.channels) * kTileBytes + kUnitRows * sizeof(float) * (1 + 16);
}

template <class Tiles>
class Task {
 public:
  Task(const Args& a, const Split& split, int task, char* scratch) : a_(a), shape_(a) {
    const int groups = a.hq / split.heads;
    block_ = split.blocks - 1 - task / groups;  // causal: the longest lists first
    first_head_ = task % groups * split.heads;
    kv_head_ = first_head_ / (a.hq / a.hkv);
    first_row_ = block_ * a.runs.block_q;
    rows_ = a.n_rows - first_row_ < split.rows ? a.n_rows - first_row_ : split.rows;
    stacked_ = rows_ * split.heads;
    scores_ = reinterpret_cast<float*>(scratch);
    weights_ = reinterpret_cast<std::uint16_t*>(scratch + kScoreBytes);
    units_ = scratch + kScoreBytes + kWeightBytes;
    adjusts_ = a.softcap > 0 || a.bias || !(a.scale > 0);
    factor_ = adjusts_ ? 1.0f : a.scale * kLog2e;
  }

  void run() {
    const int n_units = ceil_div(stacked_, kUnitRows);
    for (int u = 0; u < n_units; ++u) begin(u);
    const std::int32_t* list = a_.runs.row_ptr + static_cast<std::int64_t>(a_.runs.heads == 1 ? 0 : first_head_) *
                                                     (ceil_div(a_.runs.n_rows, a_.runs.block_q) + 1) + block_;
    Keys span[kSpanTiles];
    int n = 0;
    for (std::int32_t i = list[0]; i < list[1]; ++i) {
      const TileRun& run = a_.runs.runs[i];
      for (std::int64_t tile = run.begin; tile < run.end; ++tile) {
        span[n++] = keys_of(tile, run.bits);
        if (n == kSpanTiles) {
          for (int u = 0; u < n_units; ++u) pass(u, span, n);
          n = 0;
        }
      }
    }
    if (n)
      for (int u = 0; u < n_units; ++u) pass(u, span, n);
    for (int u = 0; u < n_units; ++u) end(u);
  }

 private:
  struct Row {
    int head, row;  // row of the call
  };
  Row stacked_row(int i) const { return {first_head_ + i / rows_, first_row_ + i % rows_}; }
  int live_rows(int u) const { return stacked_ - u * kUnitRows < kUnitRows ? stacked_ - u * kUnitRows : kUnitRows; }

  Unit unit(int u) const {
    char* at = units_ + u * unit_bytes(shape_);
    Unit x;
    x.q = at;
    x.acc = reinterpret_cast<float*>(at + std::size_t{2} * shape_.depth * kTileBytes);
    x.sum = x.acc + std::size_t{2} * shape_.channels * (kTileBytes / sizeof(float));
    x.top = x.sum + kUnitRows * 16;
    return x;
  }
  // Sixteen channels of a row of acc.
  float* acc_at(const Unit& x, int r, int channel_tile) const {
    return x.acc + (r / kTileRows * shape_.channels + channel_tile) * 256 + r % kTileRows * 16;
  }
  static __mmask16 first_lanes(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

  Keys keys_of(std::int64_t tile, std::int32_t bits) const {
    const std::int64_t block = tile * a_.hkv + kv_head_;
    return {static_cast<const char*>(a_.packed_k.data) + block * 2 * shape_.depth * kTileBytes,
            static_cast<const char*>(a_.packed_v.data) + block * shape_.channels * kTileBytes,
            bits < 0 ? nullptr : a_.runs.words + static_cast<std::int64_t>(bits) * a_.runs.block_q, tile * kTileKeys};
  }

  // Queries to bf16 A tiles (rows and channels past the end are zeros), and the state to start from.
  void begin(int u) {
    const Unit x = unit(u);
    const int live = live_rows(u);
    for (int r = 0; r < kUnitRows; ++r) {
      const Row at = stacked_row(r < live ? u * kUnitRows + r : u * kUnitRows);
      const float* q = a_.q + at.head * a_.q_head + at.row * a_.q_row;
      for (int d = 0; d < shape_.depth; ++d) {
        const int left = r < live ? a_.dk - d * kTileDepth : 0;
        const __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), q + d * kTileDepth);
        const __m512 high = _mm512_maskz_loadu_ps(first_lanes(left - 16), q + d * kTileDepth + 16);
        _mm512_store_si512(x.q + (r / kTileRows * shape_.depth + d) * kTileBytes + r % kTileRows * 64,
                           reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      }
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      const bool resumes = a_.resume.m && r < live;
      x.top[r] = resumes ? a_.resume.m[state] * kLog2e : kNone;
      _mm512_store_ps(x.sum + r * 16, _mm512_maskz_mov_ps(1, _mm512_set1_ps(resumes ? a_.resume.l[state] : 0.0f)));
      for (int c = 0; c < shape_.channels; ++c) {
        const int left = resumes ? a_.dv - c * 16 : 0;
        const float* acc = resumes ? a_.resume.acc + state * a_.dv + c * 16 : nullptr;
        _mm512_store_ps(acc_at(x, r, c), left > 0 ? _mm512_maskz_loadu_ps(first_lanes(left), acc) : _mm512_setzero_ps());
      }
    }
  }

  // A unit over the tiles of a span, less those none of its rows sees (beyond the diagonal, say).
  void pass(int u, const Keys* span, int n) {
    Keys chunk[kChunkTiles];
    int m = 0;
    for (int i = 0; i < n; ++i) {
      if (span[i].words && !seen(u, span[i].words)) continue;
      chunk[m++] = span[i];
      if (m == kChunkTiles) {
        visit(u, chunk, m);
        m = 0;
      }
    }
    if (m) visit(u, chunk, m);
  }

  bool seen(int u, const std::uint32_t* words) const {
    const int live = live_rows(u);
    std::uint32_t any = 0;
    int row = u * kUnitRows % rows_;
    for (int r = 0; r < live; ++r) {
      any |= words[row];
      if (++row == rows_) row = 0;
    }
    return any != 0;
  }

  void visit(int u, const Keys* chunk, int n) {
    const Unit x = unit(u);
    const bool two = live_rows(u) > kTileRows;
    two ? score<2>(x, chunk, n) : score<1>(x, chunk, n);
    bool partial = false;
    for (int i = 0; i < n; ++i) partial = partial || chunk[i].words;
    for (int r = 0; r < live_rows(u); ++r) {
      float* s = scores_ + r * kScoreRow;
      if (adjusts_) adjust(stacked_row(u * kUnitRows + r), s, chunk, n);
      if (partial) hide((u * kUnitRows + r) % rows_, s, chunk, n);
      weigh_row(x, r, s, n);
    }
    two ? accumulate<2>(x, chunk, n) : accumulate<1>(x, chunk, n);
  }

  // scores_[r][32 i + j] = q_r . k of key j of tile i. R: 16-row tiles in use.
  template <int R>
  void score(const Unit& x, const Keys* chunk, int n) {
    const long half = static_cast<long>(shape_.depth) * kTileBytes;
    for (int i = 0; i < n; ++i) {
      tiles_.template zero<0>();
      tiles_.template zero<1>();
      if constexpr (R == 2) {
        tiles_.template zero<2>();
        tiles_.template zero<3>();
      }
      const char *q = x.q, *k = chunk[i].k;
      for (int d = 0; d < shape_.depth; ++d, q += kTileBytes, k += kTileBytes) {
        tiles_.template load<4>(q, 64);
        tiles_.template load<6>(k, 64);
        tiles_.template multiply_add<0, 4, 6>();
        tiles_.template load<7>(k + half, 64);
        tiles_.template multiply_add<1, 4, 7>();
        if constexpr (R == 2) {
          tiles_.template load<5>(q + half, 64);
          tiles_.template multiply_add<2, 5, 6>();
          tiles_.template multiply_add<3, 5, 7>();
        }
      }
      float* s = scores_ + i * kTileKeys;
      tiles_.template store<0>(s, kScoreRow * sizeof(float));
      tiles_.template store<1>(s + 16, kScoreRow * sizeof(float));
      if constexpr (R == 2) {
        tiles_.template store<2>(s + kTileRows * kScoreRow, kScoreRow * sizeof(float));
        tiles_.template store<3>(s + kTileRows * kScoreRow + 16, kScoreRow * sizeof(float));
      }
    }
  }

  // Scores to base-2 logits where more than a positive factor lies between them.
  void adjust(const Row& at, float* s, const Keys* chunk, int n) const {
    const __m512 scale = _mm512_set1_ps(a_.softcap > 0 ? a_.scale / a_.softcap : a_.scale);
    const __m512 cap = _mm512_set1_ps(a_.softcap);
    const __m512 slope = _mm512_set1_ps(a_.slope ? a_.slope[at.head] : 1.0f);
    for (int i = 0; i < 2 * n; ++i) {
      const std::int64_t cell = chunk[i / 2].first_cell + i % 2 * 16;
      __m512 y = _mm512_mul_ps(_mm512_loadu_ps(s + i * 16), scale);
      if (a_.softcap > 0) y = _mm512_mul_ps(tanh16(y), cap);
      if (a_.bias) {
        const std::int64_t left = a_.n_cells - cell;
        const __m256i b = _mm256_maskz_loadu_epi16(first_lanes(left < 16 ? static_cast<int>(left) : 16),
                                                   a_.bias + at.row * a_.bias_row + cell);
        y = _mm512_fmadd_ps(slope, _mm512_cvtph_ps(b), y);
      }
      _mm512_storeu_ps(s + i * 16, _mm512_mul_ps(y, _mm512_set1_ps(kLog2e)));
    }
  }

  static void hide(int row_in_block, float* s, const Keys* chunk, int n) {
    const __m512 none = _mm512_set1_ps(kNone);
    for (int i = 0; i < n; ++i) {
      if (!chunk[i].words) continue;
      const std::uint32_t hidden = ~chunk[i].words[row_in_block];
      _mm512_mask_storeu_ps(s + i * 32, static_cast<__mmask16>(hidden), none);
      _mm512_mask_storeu_ps(s + i * 32 + 16, static_cast<__mmask16>(hidden >> 16), none);
    }
  }

  // Weights of row r in A tile order: [row / 16][tile][row % 16][32].
  void weigh_row(const Unit& x, int r, const float* s, int n) {
    constexpr long kWeightTile = kTileBytes / sizeof(std::uint16_t);
    std::uint16_t* p = weights_ + r / kTileRows * kChunkTiles * kWeightTile + r % kTileRows * 32;
    __m512 sum = _mm512_load_ps(x.sum + r * 16);
    __m512 after = sum;
    if (x.top[r] == kNone || weigh(s, n, factor_, x.top[r], p, kWeightTile, &after)) {
      raise_top(x, r, __builtin_ceilf(largest(s, n, factor_)), &sum);
      after = sum;
      weigh(s, n, factor_, x.top[r] == kNone ? 0.0f : x.top[r], p, kWeightTile, &after);
    }
    _mm512_store_ps(x.sum + r * 16, after);
  }

  void raise_top(const Unit& x, int r, float top, __m512* sum) const {
    if (!(top > x.top[r])) return;
    const __m512 shrink = exp2_fine(_mm512_set1_ps(x.top[r] - top));
    x.top[r] = top;
    *sum = _mm512_mul_ps(*sum, shrink);
    for (int c = 0; c < shape_.channels; ++c) {
      float* acc = acc_at(x, r, c);
      _mm512_store_ps(acc, _mm512_mul_ps(_mm512_load_ps(acc), shrink));
    }
  }

  // acc[r][c] += sum over the chunk of weight[r][j] * v[j][c], 32 channels at a time.
  template <int R>
  void accumulate(const Unit& x, const Keys* chunk, int n) {
    const char* p = reinterpret_cast<const char*>(weights_);
    for (int c = 0; c < shape_.channels; c += 2) {
      float *low = x.acc + c * 256, *high = low + shape_.channels * 256;
      tiles_.template load<0>(low, 64);
      tiles_.template load<1>(low + 256, 64);
      if constexpr (R == 2) {
        tiles_.template load<2>(high, 64);
        tiles_.template load<3>(high + 256, 64);
      }
      for (int i = 0; i < n; ++i) {
        const char* v = chunk[i].v + c * kTileBytes;
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
      tiles_.template store<0>(low, 64);
      tiles_.template store<1>(low + 256, 64);
      if constexpr (R == 2) {
        tiles_.template store<2>(high, 64);
        tiles_.template store<3>(high + 256, 64);
      }
    }
  }

  // State out, or output and lse.
  void end(int u) {
    const Unit x = unit(u);
    for (int r = 0; r < live_rows(u); ++r) {
      const Row at = stacked_row(u * kUnitRows + r);
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      float top = x.top[r], sum = _mm512_reduce_add_ps(_mm512_load_ps(x.sum + r * 16));
      if (a_.resume.m) {
        a_.resume.m[state] = top * kLn2;
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
  int block_, first_head_, kv_head_, first_row_, rows_, stacked_;
  float* scores_;           // [32][kScoreRow]
  std::uint16_t* weights_;  // [2][kChunkTiles] A tiles
  char* units_;
  bool adjusts_;  // scores pass through adjust()
  float factor_;  // from what adjust() leaves to base-2 logits
  Tiles tiles_;
};

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16 || a.packed_v.format != PackFormat::pair16_bf16)
    return "reads K and V packed as pair16_bf16 (precision fast)";
  return nullptr;
}

int tasks(const Args& a, int, int workers) {
  const Split s = split_of(a, workers);
  return a.hq / s.heads * s.blocks;
}

std::size_t scratch_bytes(const Args& a) {
  // Fewer heads per task never need more rows, so the largest split bounds them all.
  const Split s = split_of(a, 0);
  return kScoreBytes + kWeightBytes + ceil_div(s.heads * s.rows, kUnitRows) * unit_bytes(Shape(a));
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
