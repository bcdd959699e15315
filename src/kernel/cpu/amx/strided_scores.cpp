// SPDX-License-Identifier: Apache-2.0
// op strided_scores on AMX: one matrix product with a depth of S * Dk.
//
//   score[m, n] = sum over s, d of  Q'[m, (s, d)] K'[(s, d), n],
//   Q'[m, (s, d)] = q[m S + S-1-s, d],   K'[(s, d), n] = k[n S + s, d]
//
// Phase 0 sorts the keys of every KV head into B tiles of K', once for all query heads; phase 1
// multiplies, 32 strided rows of a query head per task.
#include "kernel/cpu/amx/tiles.h"
#include "kernel/kernel.h"
#include "op/strided_scores.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::StridedScores::Args;

constexpr int kRows = 2 * kTileRows;
constexpr int kColumns = 16;  // of a B tile

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
__mmask16 first_lanes(std::int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

struct Shape {
  int channel_tiles, depth;           // A tiles per query row of one s, and of all
  std::int64_t rows, columns, groups;  // strided rows and columns, groups of 16 columns
  explicit Shape(const Args& a)
      : channel_tiles(static_cast<int>(ceil_div(a.dk, kTileDepth))),
        depth(a.stride * channel_tiles),
        rows(ceil_div(a.n_rows, a.stride)),
        columns(ceil_div(a.n_keys, a.stride)),
        groups(ceil_div(columns, kColumns)) {}
  // Sorted keys: [hkv][groups][stride][channel_tiles] B tiles.
  char* keys(void* shared, int kv_head, std::int64_t group) const {
    return static_cast<char*>(shared) + (kv_head * groups + group) * depth * kTileBytes;
  }
};

// Sixteen columns of K'. A half block of 16 keys holds every s of 16 / S columns: the lanes s, s + S, ...
void sort_keys(const Args& a, const Shape& x, int kv_head, std::int64_t group, char* to) {
  const int columns_per_half = 16 / a.stride;
  unsigned every = 0;  // lanes 0, S, 2 S, ...
  for (int i = 0; i < 16; i += a.stride) every |= 1u << i;
  for (int j = 0; j < a.stride; ++j) {
    const std::int64_t key = (group * a.stride + j) * 16, half = a.first_cell / 16 + key / 16;
    const __mmask16 in = first_lanes(a.n_keys - key);  // keys past the end count as zeros
    const char* from = static_cast<const char*>(a.packed_k.data) +
                       ((half / 2 * a.hkv + kv_head) * 2 + half % 2) * x.channel_tiles * kTileBytes;
    const __mmask16 out = static_cast<__mmask16>(first_lanes(columns_per_half));
    for (int pair = 0; pair < x.channel_tiles * 16; ++pair) {
      const __m512i keys = _mm512_maskz_loadu_epi32(in, from + pair * 64);
      char* row = to + (pair / 16) * kTileBytes + pair % 16 * 64 + j * columns_per_half * 4;
      for (int s = 0; s < a.stride; ++s)
        _mm512_mask_storeu_epi32(row + s * x.channel_tiles * kTileBytes, out,
                                 _mm512_maskz_compress_epi32(static_cast<__mmask16>(every << s), keys));
    }
  }
}

// Strided rows [first, first + 32) of Q' as A tiles [2][depth]; rows past the end are zeros.
void load_queries(const Args& a, const Shape& x, int head, std::int64_t first, char* to) {
  for (int r = 0; r < kRows; ++r)
    for (int s = 0; s < a.stride; ++s) {
      const std::int64_t row = (first + r) * a.stride + a.stride - 1 - s;
      const float* q = a.q + head * a.q_head + (row < a.n_rows ? row * a.q_row : 0);
      for (int d = 0; d < x.channel_tiles; ++d) {
        const int left = row < a.n_rows ? a.dk - d * kTileDepth : 0;
        const __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), q + d * kTileDepth);
        const __m512 high = _mm512_maskz_loadu_ps(first_lanes(left - 16), q + d * kTileDepth + 16);
        _mm512_store_si512(to + (r / kTileRows * x.depth + s * x.channel_tiles + d) * kTileBytes + r % kTileRows * 64,
                           reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      }
    }
}

template <class Tiles>
void multiply(const Args& a, const Shape& x, int head, std::int64_t first, char* q, float* c, void* shared) {
  Tiles tiles;
  const int kv_head = head / (a.hq / a.hkv);
  const std::int64_t rows = x.rows - first < kRows ? x.rows - first : kRows;
  std::int64_t columns = x.columns;
  if (a.first_key_of_row0 >= 0) {  // as Args::causal_end of the last row
    const std::int64_t end = a.first_key_of_row0 / a.stride + first + rows;
    columns = end < columns ? end : columns;
  }
  const long lower = static_cast<long>(x.depth) * kTileBytes;
  for (std::int64_t g = 0; g * kColumns < columns; g += 2) {
    const char* k = x.keys(shared, kv_head, g);
    const long next = g + 1 < x.groups ? lower : 0;  // an odd last group stands in for its neighbour
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
    for (long at = 0; at < lower; at += kTileBytes) {
      tiles.template load<4>(q + at, 64);
      tiles.template load<6>(k + at, 64);
      tiles.template multiply_add<0, 4, 6>();
      tiles.template load<7>(k + next + at, 64);
      tiles.template multiply_add<1, 4, 7>();
      tiles.template load<5>(q + lower + at, 64);
      tiles.template multiply_add<2, 5, 6>();
      tiles.template multiply_add<3, 5, 7>();
    }
    tiles.template store<0>(c, 128);
    tiles.template store<1>(c + 16, 128);
    tiles.template store<2>(c + kTileRows * 32, 128);
    tiles.template store<3>(c + kTileRows * 32 + 16, 128);
    float* to = a.score + (head * x.rows + first) * a.score_row + g * kColumns;
    const std::int64_t left = x.columns - g * kColumns;
    for (int r = 0; r < rows; ++r, to += a.score_row) {
      _mm512_mask_storeu_ps(to, first_lanes(left), _mm512_load_ps(c + r * 32));
      _mm512_mask_storeu_ps(to + 16, first_lanes(left - 16), _mm512_load_ps(c + r * 32 + 16));
    }
  }
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
  return static_cast<int>(phase == 0 ? a.hkv * x.groups : a.hq * ceil_div(x.rows, kRows));
}
std::size_t scratch_bytes(const Args& a) { return (2 * static_cast<std::size_t>(Shape(a).depth) + 4) * kTileBytes; }
std::size_t shared_bytes(const Args& a, int) {
  const Shape x(a);
  return static_cast<std::size_t>(a.hkv * x.groups * x.depth) * kTileBytes;
}

template <class Tiles>
void run(const Args& a, int phase, int task, int, void* scratch, void* shared) {
  const Shape x(a);
  if (phase == 0) {
    const int kv_head = task % a.hkv;
    const std::int64_t group = task / a.hkv;
    return sort_keys(a, x, kv_head, group, x.keys(shared, kv_head, group));
  }
  // Heads of a KV group side by side; the last rows of a causal call are the longest and go first.
  const int head = task % a.hq;
  const std::int64_t first = (ceil_div(x.rows, kRows) - 1 - task / a.hq) * kRows;
  char* q = static_cast<char*>(scratch) + 4 * kTileBytes;
  load_queries(a, x, head, first, q);
  multiply<Tiles>(a, x, head, first, q, static_cast<float*>(scratch), shared);
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
