// SPDX-License-Identifier: Apache-2.0
// op strided_scores on AMX: one matrix product with a depth of S * Dk.
//
//   score[m, n] = sum over s, d of  Q'[m, (s, d)] K'[(s, d), n],
//   Q'[m, (s, d)] = q[m S + S-1-s, d],   K'[(s, d), n] = k[n S + s, d]
//
// Phase 0 sorts the keys of every KV head into B tiles of K', once for all query heads; with S = 1 the
// packed blocks are these tiles already. Phase 1 multiplies: a task has some blocks of 32 rows of Q', counted
// through the query heads of a KV head, so that few rows per head do not leave tiles empty, and passes them all
// by each group of columns: Q' stays in the second cache, and K', which does not, is read once for all of them.
// (Tasks of 32 columns, which sort their own keys and pass all of Q' by them, took as long as tasks of 32 rows.)
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/kernel.h"
#include "op/strided_scores.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::StridedScores::Args;

constexpr int kRows = 2 * kTileRows;
constexpr int kColumns = 16;  // of a B tile
constexpr int kAhead = 4;     // groups of columns that tiles of K' are asked for before they are needed
constexpr int kMostBlocks = 8;  // row blocks of a task: up to 512 KB of Q'
constexpr int kSortedTogether = 4;  // groups of columns of a task of phase 0

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
  // Sorted keys: [hkv][groups][stride][channel_tiles] B tiles.
  char* sorted(void* shared, int kv_head, std::int64_t group) const {
    return static_cast<char*>(shared) + (kv_head * groups + group) * depth * kTileBytes;
  }
  const char* keys(const Args& a, void* shared, int kv_head, std::int64_t group) const {
    return a.stride == 1 ? half_tile(a.packed_k, channel_tiles, a.first_cell / 16 + group, kv_head) : sorted(shared, kv_head, group);
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

template <class Tiles>
void multiply(const Args& a, const Shape& x, int kv_head, const RowBlock* blocks, int n_blocks, float* c, void* shared) {
  Tiles tiles;
  std::int64_t columns = 0;
  for (int i = 0; i < n_blocks; ++i) columns = blocks[i].columns > columns ? blocks[i].columns : columns;
  float* pending = nullptr;  // where the tiles' products belong
  for (std::int64_t g = 0; g * kColumns < columns; g += 2) {
    // An odd last group stands in for its neighbour.
    const char *k = x.keys(a, shared, kv_head, g), *next = g + 1 < x.groups ? x.keys(a, shared, kv_head, g + 1) : k;
    const bool more = (g + kAhead + 2) * kColumns <= columns;
    int asked = 0;  // tiles of each of two groups
    for (int i = 0; i < n_blocks; ++i) {
      const RowBlock& b = blocks[i];
      if (more) {  // some with every block: many at once would wait for each other
        const int until = x.depth * (i + 1) / n_blocks;
        fetch_tiles(x.keys(a, shared, kv_head, g + kAhead) + asked * kTileBytes, until - asked);
        fetch_tiles(x.keys(a, shared, kv_head, g + kAhead + 1) + asked * kTileBytes, until - asked);
        asked = until;
      }
      const std::int64_t left = b.columns - g * kColumns;
      if (left <= 0) continue;
      const char* lower = b.q + static_cast<long>(x.depth) * kTileBytes;
      float* to = b.to + g * kColumns;
      if (pending) product_2x2_behind(tiles, pending, a.score_row, b.q, lower, k, next, x.depth);
      else product_2x2(tiles, b.q, lower, k, next, x.depth);
      pending = b.rows == kRows && left >= 2 * kColumns ? to : nullptr;
      if (pending) continue;
      store_2x2(tiles, c, 2 * kColumns);
      for (int r = 0; r < b.rows; ++r) {
        _mm512_mask_storeu_ps(to + r * a.score_row, first_lanes(left), _mm512_load_ps(c + r * 32));
        _mm512_mask_storeu_ps(to + r * a.score_row + 16, first_lanes(left - 16), _mm512_load_ps(c + r * 32 + 16));
      }
    }
  }
  if (pending) store_2x2(tiles, pending, a.score_row);
}

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16) return "K is not packed as pair16_bf16";
  const int s = a.stride;
  if (s != 1 && s != 2 && s != 4 && s != 8 && s != 16) return "stride must be 1, 2, 4, 8 or 16";
  if (a.first_cell % 16) return "the first cell must be a multiple of 16";
  return nullptr;
}

int tasks(const Args& a, int phase, int workers) {
  const Shape x(a);
  if (phase == 0) return a.stride == 1 ? 0 : static_cast<int>(a.hkv * ceil_div(x.groups, kSortedTogether));
  return static_cast<int>(a.hkv * ceil_div(x.row_blocks(), x.blocks_of_task(a, workers)));
}
std::size_t scratch_bytes(const Args& a) {
  const Shape x(a);
  const std::int64_t blocks = x.row_blocks() < kMostBlocks ? x.row_blocks() : kMostBlocks;
  return static_cast<std::size_t>(2 * blocks * x.depth + 4) * kTileBytes;
}
std::size_t shared_bytes(const Args& a, int) {
  const Shape x(a);
  return a.stride == 1 ? 0 : static_cast<std::size_t>(a.hkv * x.groups * x.depth) * kTileBytes;
}

template <class Tiles>
void run(const Args& a, int phase, int task, int workers, void* scratch, void* shared) {
  const Shape x(a);
  if (phase == 0) {
    const std::int64_t per_head = ceil_div(x.groups, kSortedTogether), first = task % per_head * kSortedTogether;
    const int kv_head = static_cast<int>(task / per_head);
    for (std::int64_t g = first; g < first + kSortedTogether && g < x.groups; ++g)
      sort_keys(a, x, kv_head, g, x.sorted(shared, kv_head, g));
    return;
  }
  // A KV head's tasks one after the other: its keys stay near. The last rows of a causal call are the longest.
  const std::int64_t at_once = x.blocks_of_task(a, workers), per_head = ceil_div(x.row_blocks(), at_once);
  const int kv_head = static_cast<int>(task / per_head);
  const std::int64_t begin = (per_head - 1 - task % per_head) * at_once;
  RowBlock blocks[kMostBlocks];
  int n_blocks = 0;
  for (char* q = static_cast<char*>(scratch) + 4 * kTileBytes; n_blocks < at_once && begin + n_blocks < x.row_blocks(); ++n_blocks) {
    const std::int64_t first = (begin + n_blocks) * kRows;
    load_queries(a, x, kv_head, first, q);
    blocks[n_blocks] = row_block(a, x, kv_head, first, q);
    q += 2L * x.depth * kTileBytes;
  }
  multiply<Tiles>(a, x, kv_head, blocks, n_blocks, static_cast<float*>(scratch), shared);
}

}  // namespace

extern const Kernel<op::StridedScores> strided_scores, strided_scores_emulated;
const Kernel<op::StridedScores> strided_scores{
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
const Kernel<op::StridedScores> strided_scores_emulated{
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
