// SPDX-License-Identifier: Apache-2.0
// op strided_scores on AMX: one matrix product with a depth of S * Dk.
//
//   score[m, n] = sum over s, d of  Q'[m, (s, d)] K'[(s, d), n],
//   Q'[m, (s, d)] = q[m S + S-1-s, d],   K'[(s, d), n] = k[n S + s, d]
//
// Phase 0 sorts the keys of every KV head into B tiles of K', once for all query heads; with S = 1 the
// packed blocks are these tiles already. Phase 1 multiplies: a task has 32 rows of Q', counted through the
// query heads of a KV head, so that few rows per head do not leave tiles empty. (Tasks of 32 columns, which
// sort their own keys and pass all of Q' by them, took as long.)
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/kernel.h"
#include "op/strided_scores.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::StridedScores::Args;

constexpr int kRows = 2 * kTileRows;
constexpr int kColumns = 16;  // of a B tile
constexpr int kAhead = 4;     // groups of columns, with a stride of 1

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
  const char* half[S];
  __mmask16 in[S];  // keys past the end count as zeros
  for (int j = 0; j < S; ++j) {
    const std::int64_t key = (group * S + j) * 16;
    in[j] = first_lanes(a.n_keys - key);
    half[j] = half_tile(a.packed_k, x.channel_tiles, a.first_cell / 16 + (in[j] ? group * S + j : 0), kv_head);
  }
  for (int pair = 0; pair < x.channel_tiles * 16; ++pair) {
    __m512i v[S];
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
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t head = kv_head * (a.hq / a.hkv) + (first + r) / x.rows, m = (first + r) % x.rows;
    for (int s = 0; s < a.stride; ++s) {
      const std::int64_t row = m * a.stride + a.stride - 1 - s;
      const bool there = first + r < x.stacked && row < a.n_rows;
      put_row(there ? a.q + head * a.q_head + row * a.q_row : a.q, there ? a.dk : 0, x.channel_tiles, r % kTileRows,
              to + (r / kTileRows * x.depth + s * x.channel_tiles) * kTileBytes);
    }
  }
}

template <class Tiles>
void multiply(const Args& a, const Shape& x, int kv_head, std::int64_t first, char* q, float* c, void* shared) {
  Tiles tiles;
  const std::int64_t rows = x.stacked - first < kRows ? x.stacked - first : kRows;
  std::int64_t columns = x.columns;
  if (a.first_key_of_row0 >= 0) {  // as Args::causal_end of the row that sees most
    const bool one_head = first / x.rows == (first + rows - 1) / x.rows;
    const std::int64_t end = a.first_key_of_row0 / a.stride + (one_head ? (first + rows - 1) % x.rows : x.rows - 1) + 1;
    columns = end < columns ? end : columns;
  }
  const char* lower = q + static_cast<long>(x.depth) * kTileBytes;
  float *to = a.score + (kv_head * x.stacked + first) * a.score_row, *pending = nullptr;  // where the tiles' products belong
  for (std::int64_t g = 0; g * kColumns < columns; g += 2, to += 2 * kColumns) {
    if (a.stride == 1 && (g + kAhead + 2) * kColumns <= columns) {
      fetch_tiles(x.keys(a, shared, kv_head, g + kAhead), x.depth);
      fetch_tiles(x.keys(a, shared, kv_head, g + kAhead + 1), x.depth);
    }
    // An odd last group stands in for its neighbour.
    const char *k = x.keys(a, shared, kv_head, g), *next = g + 1 < x.groups ? x.keys(a, shared, kv_head, g + 1) : k;
    if (pending) product_2x2_behind(tiles, pending, a.score_row, q, lower, k, next, x.depth);
    else product_2x2(tiles, q, lower, k, next, x.depth);
    const std::int64_t left = x.columns - g * kColumns;
    pending = rows == kRows && left >= 2 * kColumns ? to : nullptr;
    if (pending) continue;
    store_2x2(tiles, c, 2 * kColumns);
    for (int r = 0; r < rows; ++r) {
      _mm512_mask_storeu_ps(to + r * a.score_row, first_lanes(left), _mm512_load_ps(c + r * 32));
      _mm512_mask_storeu_ps(to + r * a.score_row + 16, first_lanes(left - 16), _mm512_load_ps(c + r * 32 + 16));
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

int tasks(const Args& a, int phase, int) {
  const Shape x(a);
  if (phase == 0) return a.stride == 1 ? 0 : static_cast<int>(a.hkv * x.groups);
  return static_cast<int>(a.hkv * x.row_blocks());
}
std::size_t scratch_bytes(const Args& a) { return (2 * static_cast<std::size_t>(Shape(a).depth) + 4) * kTileBytes; }
std::size_t shared_bytes(const Args& a, int) {
  const Shape x(a);
  return a.stride == 1 ? 0 : static_cast<std::size_t>(a.hkv * x.groups * x.depth) * kTileBytes;
}

template <class Tiles>
void run(const Args& a, int phase, int task, int, void* scratch, void* shared) {
  const Shape x(a);
  if (phase == 0) {
    const int kv_head = static_cast<int>(task / x.groups);
    const std::int64_t group = task % x.groups;
    return sort_keys(a, x, kv_head, group, x.sorted(shared, kv_head, group));
  }
  // A KV head's tasks one after the other: its keys stay near. The last rows of a causal call are the longest.
  const int kv_head = static_cast<int>(task / x.row_blocks());
  const std::int64_t first = (x.row_blocks() - 1 - task % x.row_blocks()) * kRows;
  char* q = static_cast<char*>(scratch) + 4 * kTileBytes;
  load_queries(a, x, kv_head, first, q);
  multiply<Tiles>(a, x, kv_head, first, q, static_cast<float*>(scratch), shared);
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
