// SPDX-License-Identifier: Apache-2.0
// op strided_scores on AMX: one matrix product with a depth of S * Dk.
//
//   score[m, n] = sum over s, d of  Q'[m, (s, d)] K'[(s, d), n],
//   Q'[m, (s, d)] = q[m S + S-1-s, d],   K'[(s, d), n] = k[n S + s, d]
//
// A task has some blocks of 32 rows of Q', counted through the query heads of a KV head, so that few rows per head do
// not leave tiles empty. It sorts two groups of 16 columns at a time into B tiles of K' (with S = 1 the packed blocks are these
// already) and passes all its blocks by them: Q' stays in the second cache, and the sorted keys in the first. That every task
// sorts its own costs less than writing them for all and reading them again (docs/decisions/019).
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/kernel.h"
#include "op/strided_scores.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::StridedScores::Args;

constexpr int kRows = 2 * kTileRows;
constexpr int kColumns = 16;  // of a B tile
constexpr int kMostBlocks = 8;  // row blocks of a task: up to 512 KB of Q'
constexpr int kKept = 16;       // operands of a row or a column whose keys the first cache keeps: 32 KB of two groups

struct Shape {
  int channel_tiles, depth;     // A tiles per query row of one s, and of all
  std::int64_t rows, stacked;   // strided rows of a query head, and of all heads of a KV head
  std::int64_t columns, groups;  // strided columns, groups of 16 of them
  explicit Shape(const Args& a)
      : channel_tiles(static_cast<int>(ceil_div(a.dk, kTileDepth))),
        depth(a.stride * channel_tiles),
        rows(ceil_div(a.n_rows, a.stride)),
        stacked(rows * (a.hq / a.hkv)),
        columns(ceil_div(a.n_keys, a.stride)),
        groups(ceil_div(columns, kColumns)) {}
  std::int64_t row_blocks() const { return ceil_div(stacked, kRows); }
  // As many as leave two tasks to each worker.
  std::int64_t blocks_of_task(const Args& a, int workers) const {
    const std::int64_t even = row_blocks() * a.hkv / (2 * workers);
    return even < 1 ? 1 : even < kMostBlocks ? even : kMostBlocks;
  }
};

// Sixteen columns of K' out of S half tiles of 16 keys. Of one channel pair, vector j has at lane c S + s key
// s of column c of half tile j; wanted is, in vector s at lane j 16/S + c, the same: as many steps as S has
// bits, each of which trades one bit of j for one of s between two vectors, and the last also orders the lanes.
template <int kBits>
void sort_keys(const Args& a, const Shape& x, int kv_head, std::int64_t group, char* to) {
  constexpr int S = 1 << kBits;
  alignas(64) std::int32_t from[kBits][2][16];
  for (int b = 0; b < kBits; ++b)
    for (int l = 0; l < 16; ++l) {
      const int lane = b < kBits - 1 ? l : l % (16 / S) * S + l / (16 / S);
      const int other = lane >> b & 1;  // whose lanes: 16 + i is lane i of the second vector
      from[b][0][l] = 16 * other + (lane & ~(1 << b));
      from[b][1][l] = 16 * other + (lane | 1 << b);
    }
  const char *half[S], *next[S];  // half tiles, and those of the next group, which are asked for
  __mmask16 in[S];  // keys past the end count as zeros
  for (int j = 0; j < S; ++j) {
    const std::int64_t key = (group * S + j) * 16;
    in[j] = first_lanes(a.n_keys - key);
    half[j] = half_tile(a.packed_k, x.channel_tiles, a.first_cell / 16 + (in[j] ? group * S + j : 0), kv_head);
    const bool more = key + S * 16 < a.n_keys;
    next[j] = more ? half_tile(a.packed_k, x.channel_tiles, a.first_cell / 16 + (group + 1) * S + j, kv_head) : half[j];
  }
  for (int pair = 0; pair < x.channel_tiles * 16; ++pair) {
    __m512i v[S];
    for (int j = 0; j < S; ++j) _mm_prefetch(next[j] + pair * 64, _MM_HINT_T1);
    for (int j = 0; j < S; ++j) v[j] = _mm512_maskz_loadu_epi32(in[j], half[j] + pair * 64);
    for (int b = 0; b < kBits; ++b) {
      const __m512i zeros = _mm512_load_si512(from[b][0]), ones = _mm512_load_si512(from[b][1]);
      for (int j = 0; j < S; ++j)
        if (!(j >> b & 1)) {
          const __m512i y = v[j], z = v[j | 1 << b];
          v[j] = _mm512_permutex2var_epi32(y, zeros, z);
          v[j | 1 << b] = _mm512_permutex2var_epi32(y, ones, z);
        }
    }
    char* row = to + pair / 16 * kTileBytes + pair % 16 * 64;
    for (int s = 0; s < S; ++s) _mm512_store_si512(row + s * x.channel_tiles * kTileBytes, v[s]);
  }
}

void sort_keys(const Args& a, const Shape& x, int kv_head, std::int64_t group, char* to) {
  switch (a.stride) {
    case 2: return sort_keys<1>(a, x, kv_head, group, to);
    case 4: return sort_keys<2>(a, x, kv_head, group, to);
    case 8: return sort_keys<3>(a, x, kv_head, group, to);
    default: return sort_keys<4>(a, x, kv_head, group, to);
  }
}

// A group of columns of K': sorted to `to`, or the packed block itself.
const char* keys(const Args& a, const Shape& x, int kv_head, std::int64_t group, char* to) {
  if (a.stride == 1) return half_tile(a.packed_k, x.channel_tiles, a.first_cell / 16 + group, kv_head);
  sort_keys(a, x, kv_head, group, to);
  return to;
}

// Rows [first, first + 32) of Q' of a KV head's query heads, as A tiles [2][depth]; rows past the end are zeros.
void load_queries(const Args& a, const Shape& x, int kv_head, std::int64_t first, char* to) {
  std::int64_t head = kv_head * (a.hq / a.hkv) + first / x.rows, m = first % x.rows;
  for (int r = 0; r < kRows; ++r) {
    for (int s = 0; s < a.stride; ++s) {
      const std::int64_t row = m * a.stride + a.stride - 1 - s;
      const bool there = first + r < x.stacked && row < a.n_rows;
      const float* q = there ? a.q + head * a.q_head + row * a.q_row : a.q;
      // Rows lie apart, the heads of a token between them: no prefetcher of the machine's own goes along.
      if (there && row + a.stride < a.n_rows)
        for (int d = 0; d < a.dk; d += 16) _mm_prefetch(reinterpret_cast<const char*>(q + a.stride * a.q_row + d), _MM_HINT_T0);
      put_row(q, there ? a.dk : 0, x.channel_tiles, r % kTileRows,
              to + (r / kTileRows * x.depth + s * x.channel_tiles) * kTileBytes);
    }
    if (++m == x.rows) {
      m = 0;
      ++head;
    }
  }
}

// 32 rows of a task.
struct RowBlock {
  std::int64_t rows, columns;  // that there are; that they see
  const char* q;               // A tiles [2][depth]
  float* to;                   // their scores
};

RowBlock row_block(const Args& a, const Shape& x, int kv_head, std::int64_t first, const char* q) {
  RowBlock b;
  b.rows = x.stacked - first < kRows ? x.stacked - first : kRows;
  b.columns = x.columns;
  if (a.first_key_of_row0 >= 0) {  // as Args::causal_end of the row that sees most
    const bool one_head = first / x.rows == (first + b.rows - 1) / x.rows;
    const std::int64_t end = a.first_key_of_row0 / a.stride + (one_head ? (first + b.rows - 1) % x.rows : x.rows - 1) + 1;
    b.columns = end < b.columns ? end : b.columns;
  }
  b.q = q;
  b.to = a.score + (kv_head * x.stacked + first) * a.score_row;
  return b;
}

// Where tiles 0..3 belong: [32 rows][32 columns], rows `row` floats apart. Null: nowhere.
struct Product {
  float* to = nullptr;
  std::int64_t row = 2 * kColumns;
  bool operator==(const Product&) const = default;
};

// Tiles 0..3 become `from` (null: zeros) plus the products of operands [begin, end). What they held before is stored on the
// way, each tile just before it is needed: a store waits for its tile's products, and the others go on meanwhile. Queries
// are loaded past the first cache, so that the keys, which all blocks share, stay in it.
template <class Tiles>
void add_products(Tiles& tiles, const Product& pending, const Product& from, const char* q, long half, const char* left,
                  const char* right, int begin, int end) {
  const long lower = kTileRows * pending.row, first = static_cast<long>(begin) * kTileBytes;
  const auto restart = [&]<int T>(std::int64_t pending_at, std::int64_t at) __attribute__((always_inline)) {
    if (pending.to) tiles.template store<T>(pending.to + pending_at, pending.row * 4);
    if (from.to) tiles.template load<T>(from.to + at, from.row * 4);
    else tiles.template zero<T>();
  };
  tiles.template stream<4>(q + first, 64);
  tiles.template load<6>(left + first, 64);
  restart.template operator()<0>(0, 0);
  tiles.template multiply_add<0, 4, 6>();
  tiles.template load<7>(right + first, 64);
  restart.template operator()<1>(kColumns, kColumns);
  tiles.template multiply_add<1, 4, 7>();
  tiles.template stream<5>(q + half + first, 64);
  restart.template operator()<2>(lower, kTileRows * from.row);
  tiles.template multiply_add<2, 5, 6>();
  restart.template operator()<3>(lower + kColumns, kTileRows * from.row + kColumns);
  tiles.template multiply_add<3, 5, 7>();
  for (long at = first + kTileBytes; at < static_cast<long>(end) * kTileBytes; at += kTileBytes) {
    tiles.template stream<4>(q + at, 64);
    tiles.template load<6>(left + at, 64);
    tiles.template multiply_add<0, 4, 6>();
    tiles.template load<7>(right + at, 64);
    tiles.template multiply_add<1, 4, 7>();
    tiles.template stream<5>(q + half + at, 64);
    tiles.template multiply_add<2, 5, 6>();
    tiles.template multiply_add<3, 5, 7>();
  }
}

// The blocks of a task by all their columns, two groups at a time. All blocks pass by some operands of these columns before they
// pass by the next, with sums kept in c [blocks][32][32]: so the keys come from the first cache for all blocks but one.
template <class Tiles>
void multiply(const Args& a, const Shape& x, int kv_head, const RowBlock* blocks, int n_blocks, float* c, char* sorted) {
  Tiles tiles;
  std::int64_t columns = 0;
  for (int i = 0; i < n_blocks; ++i) columns = blocks[i].columns > columns ? blocks[i].columns : columns;
  const long half = static_cast<long>(x.depth) * kTileBytes;
  Product pending;
  const auto store_pending = [&] {
    if (pending.to) store_2x2(tiles, pending.to, pending.row);
    pending = {};
  };
  for (std::int64_t g = 0; g * kColumns < columns; g += 2) {
    // An odd last group stands in for its neighbour.
    const char *k = keys(a, x, kv_head, g, sorted), *next = g + 1 < x.groups ? keys(a, x, kv_head, g + 1, sorted + half) : k;
    for (int begin = 0; begin < x.depth; begin += kKept) {
      const int end = begin + kKept < x.depth ? begin + kKept : x.depth;
      for (int i = 0; i < n_blocks; ++i) {
        const RowBlock& b = blocks[i];
        const std::int64_t left = b.columns - g * kColumns;
        if (left <= 0) continue;
        const Product sums{c + i * kRows * 2 * kColumns};
        if (begin > 0 && pending == sums) store_pending();  // of a lone block: about to be loaded
        add_products(tiles, pending, begin > 0 ? sums : Product{}, b.q, half, k, next, begin, end);
        float* to = b.to + g * kColumns;
        const bool whole = b.rows == kRows && left >= 2 * kColumns;
        pending = end == x.depth && whole ? Product{to, a.score_row} : sums;
        if (end < x.depth || whole) continue;
        store_pending();
        for (int r = 0; r < b.rows; ++r) {
          const float* from = sums.to + r * sums.row;
          _mm512_mask_storeu_ps(to + r * a.score_row, first_lanes(left), _mm512_load_ps(from));
          _mm512_mask_storeu_ps(to + r * a.score_row + 16, first_lanes(left - 16), _mm512_load_ps(from + 16));
        }
      }
    }
  }
  store_pending();
}

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16) return "K is not packed as pair16_bf16";
  const int s = a.stride;
  if (s != 1 && s != 2 && s != 4 && s != 8 && s != 16) return "stride must be 1, 2, 4, 8 or 16";
  if (a.first_cell % 16) return "the first cell must be a multiple of 16";
  return nullptr;
}

int tasks(const Args& a, int, int workers) {
  const Shape x(a);
  return static_cast<int>(a.hkv * ceil_div(x.row_blocks(), x.blocks_of_task(a, workers)));
}

// Sums of the blocks, two groups of sorted keys, Q'.
constexpr std::size_t kSumBytes = std::size_t{kMostBlocks} * 4 * kTileBytes;
std::size_t scratch_bytes(const Args& a) {
  const Shape x(a);
  const std::int64_t blocks = x.row_blocks() < kMostBlocks ? x.row_blocks() : kMostBlocks;
  return kSumBytes + static_cast<std::size_t>(2 * (1 + blocks) * x.depth) * kTileBytes;
}

template <class Tiles>
void run(const Args& a, int, int task, int workers, void* scratch, void*) {
  const Shape x(a);
  // A KV head's tasks one after the other: its keys stay near. The last rows of a causal call are the longest.
  const std::int64_t at_once = x.blocks_of_task(a, workers), per_head = ceil_div(x.row_blocks(), at_once);
  const int kv_head = static_cast<int>(task / per_head);
  const std::int64_t begin = (per_head - 1 - task % per_head) * at_once;
  RowBlock blocks[kMostBlocks];
  int n_blocks = 0;
  char* const sorted = static_cast<char*>(scratch) + kSumBytes;
  for (char* q = sorted + 2L * x.depth * kTileBytes; n_blocks < at_once && begin + n_blocks < x.row_blocks(); ++n_blocks) {
    const std::int64_t first = (begin + n_blocks) * kRows;
    load_queries(a, x, kv_head, first, q);
    blocks[n_blocks] = row_block(a, x, kv_head, first, q);
    q += 2L * x.depth * kTileBytes;
  }
  multiply<Tiles>(a, x, kv_head, blocks, n_blocks, static_cast<float*>(scratch), sorted);
}

}  // namespace

extern const Kernel<op::StridedScores> strided_scores, strided_scores_emulated;
const Kernel<op::StridedScores> strided_scores{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run<HardwareTiles>,
};
const Kernel<op::StridedScores> strided_scores_emulated{
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
