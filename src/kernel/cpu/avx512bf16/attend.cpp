// SPDX-License-Identifier: Apache-2.0
// op attend for many rows. Task = (row block, query head); per step of up to four tiles:
//   scores     tile by tile, all rows of the block while the K tile (8 KB at D = 128) is in L1
//   softmax    row by row; with pv_skip, tiles that a group of kRows rows leaves out are hidden from it
//   P V        64 channels x 4 rows at a time, the sums in registers over the whole step
#include "kernel/cpu/avx512/gather.inc"
#include "kernel/cpu/avx512bf16/micro.h"
#include "kernel/kernel.h"

namespace lacuna::kernel::avx512bf16 {
namespace {

using Args = op::Attend::Args;

// The worker's scratch for a block of `rows` rows (a multiple of kRows).
struct Scratch {
  int64_t pairs, dv;  // padded
  int32_t* q;         // [rows / 8][pairs][8]
  float* s;           // [rows][kStep]
  uint16_t* p;        // [rows][kStep]
  float* acc;         // [rows][dv]
  float* l;           // [rows][16]
  float* m;           // [rows]
  float* top;         // [rows] largest score so far, for pv_skip
  char* k;            // a gathered tile's keys
  char* v;            // [kStepTiles] values of gathered tiles
  size_t bytes;

  Scratch(const Args& a, int rows, void* base) {
    pairs = padded(a.dk) / 2;
    dv = padded(a.dv);
    char* const at = static_cast<char*>(base);  // null: only the size is asked for
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      char* here = at ? at + used : nullptr;
      used += (n + 63) / 64 * 64;
      return here;
    };
    q = reinterpret_cast<int32_t*>(take(rows * pairs * 4));
    s = reinterpret_cast<float*>(take(rows * kStep * 4));
    p = reinterpret_cast<uint16_t*>(take(rows * kStep * 2));
    acc = reinterpret_cast<float*>(take(rows * dv * 4));
    l = reinterpret_cast<float*>(take(rows * 16 * 4));
    m = reinterpret_cast<float*>(take(rows * 4));
    top = reinterpret_cast<float*>(take(a.pv_skip ? rows * 4 : 0));
    k = take(a.runs.slots ? pairs * 128 : 0);
    v = take(a.runs.slots ? kStepTiles * dv * 64 : 0);
    bytes = static_cast<size_t>(used);
  }
};

int padded_rows(int n) { return (n + kRows - 1) / kRows * kRows; }

void load_queries(const Args& a, int head, int first, int rows, bool negate, Scratch& x) {
  memset(x.q, 0, static_cast<size_t>(padded_rows(rows) * x.pairs) * 4);
  const __m512 flip = _mm512_set1_ps(negate ? -1.0f : 1.0f);
  for (int r = 0; r < rows; ++r) {
    const float* q = a.q + head * a.q_head + (first + r) * a.q_row;
    int32_t* to = x.q + (r / kRows) * x.pairs * kRows + r % kRows;
    for (int d = 0; d < a.dk; d += 16) {
      const __mmask16 in = a.dk - d >= 16 ? 0xffff : 0xff;
      alignas(32) int32_t pair[8];
      const __m256bh y = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_maskz_loadu_ps(in, q + d), flip));
      _mm256_store_si256(reinterpret_cast<__m256i*>(pair), reinterpret_cast<__m256i>(y));
      for (int i = 0; i < 8; ++i) to[(d / 2 + i) * kRows] = pair[i];
    }
  }
}

void load_state(const Args& a, int head, int first, int rows, float unit, Scratch& x) {
  const int all = padded_rows(rows);
  memset(x.acc, 0, static_cast<size_t>(all * x.dv) * 4);
  memset(x.l, 0, static_cast<size_t>(all) * 64);
  memset(x.p, 0, static_cast<size_t>(all) * kStep * 2);
  for (int r = 0; r < rows; ++r) {
    x.m[r] = kMinusInf;
    if (a.pv_skip) x.top[r] = kMinusInf;
    if (!a.resume.m) continue;
    const int64_t at = static_cast<int64_t>(head) * a.n_rows + first + r;
    x.m[r] = a.resume.m[at] * kLog2e / unit;
    if (a.pv_skip) x.top[r] = x.m[r];
    x.l[r * 16] = a.resume.l[at];
    memcpy(x.acc + r * x.dv, a.resume.acc + at * a.dv, static_cast<size_t>(a.dv) * 4);
  }
}

// The step's tiles and where the rows' visibility words lie (null: every cell).
struct Step {
  int tiles = 0;
  int32_t tile[kStepTiles];
  const uint32_t* words[kStepTiles];
};

// Cuts a list into steps.
class Steps {
 public:
  Steps(const Args& a, int head, int block) : runs_(a.runs) {
    const int32_t* list = a.runs.list(head, block);
    run_ = list[0];
    end_ = list[1];
    if (run_ < end_) tile_ = runs_.runs[run_].begin;
  }
  void next(Step& step) {
    for (step.tiles = 0; step.tiles < kStepTiles && run_ < end_; ++step.tiles) {
      const TileRun& run = runs_.runs[run_];
      step.tile[step.tiles] = tile_;
      step.words[step.tiles] = run.bits < 0 ? nullptr : runs_.words + static_cast<int64_t>(run.bits) * runs_.block_q;
      if (++tile_ == run.end && ++run_ < end_) tile_ = runs_.runs[run_].begin;
    }
  }

 private:
  const TileRuns& runs_;
  int32_t run_, end_, tile_ = 0;
};

// Which tiles of the step each group of kRows rows leaves out, a bit per tile. The rows' scores are finished.
void find_skips(const Args& a, int head, int rows, float unit, int32_t last, const Step& step, Scratch& x, uint8_t* skips) {
  const float less = a.pv_skip[head] / unit;
  for (int g = 0; g < rows; g += kRows) {
    uint8_t skip = 0;
    for (int t = 0; t < step.tiles; ++t) {
      bool small = !step.words[t] && step.tile[t] != last;
      for (int r = g; r < least(g + kRows, rows); ++r) {
        const uint32_t w = step.words[t] ? step.words[t][r] : ~0u;
        const __m512 low = _mm512_load_ps(x.s + r * kStep + t * 32), high = _mm512_load_ps(x.s + r * kStep + t * 32 + 16);
        const __m512 top = _mm512_set1_ps(x.top[r]), bound = _mm512_set1_ps(x.top[r] - less);
        // Not less or equal: above, or a NaN.
        small = small && !(_mm512_cmp_ps_mask(low, bound, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(high, bound, _CMP_NLE_UQ));
        const __m512 larger = _mm512_mask_max_ps(top, static_cast<__mmask16>(w), low, top);
        x.top[r] = _mm512_reduce_max_ps(_mm512_mask_max_ps(larger, static_cast<__mmask16>(w >> 16), high, larger));
      }
      if (small) skip |= static_cast<uint8_t>(1 << t);
    }
    skips[g / kRows] = skip;
  }
}

void run_step(const Args& a, int head, int first, int rows, float scale, float unit, const Step& step, int32_t next_tile,
              int32_t last, Scratch& x) {
  const int kv_head = head / (a.hq / a.hkv);
  const bool plain = raw_scores(a);
  const int groups = padded_rows(rows) / kRows;
  const char* v[kStepTiles];
  for (int t = 0; t < step.tiles; ++t) {
    const char* k;
    if (step.tile[t] < a.runs.first_gathered) {
      k = block_of(a.packed_k, step.tile[t], kv_head);
      v[t] = block_of(a.packed_v, step.tile[t], kv_head);
    } else {
      const int32_t* slots = avx512::slots_of(a.runs, step.tile[t]);
      char* values = x.v + t * x.dv * 64;
      avx512::gather_keys(a, slots, kv_head, x.k);
      avx512::gather_values(a, slots, kv_head, values);
      k = x.k;
      v[t] = values;
    }
    // The first two groups fetch what comes next while they multiply: the next keys, these values.
    const int32_t next = t + 1 < step.tiles ? step.tile[t + 1] : next_tile;
    const char* next_k = next < a.runs.first_gathered ? block_of(a.packed_k, next, kv_head) : k;
    for (int g = 0; g < groups; ++g) {
      const int32_t* q = x.q + g * x.pairs * kRows;
      float* s = x.s + g * kRows * kStep + t * kTileKeys;
      if (g < 2) qk_tile<kRows, true>(q, k, x.pairs, s, g ? v[t] : next_k);
      else qk_tile<kRows>(q, k, x.pairs, s);
    }
  }
  if (!plain)
    for (int r = 0; r < rows; ++r) finish_scores(a, head, first + r, scale, step.tile, step.tiles, x.s + r * kStep);
  uint8_t skips[kMaxBlockQ / kRows] = {};
  if (a.pv_skip) find_skips(a, head, rows, unit, last, step, x, skips);
  for (int r = 0; r < rows; ++r) {
    uint32_t visible[kStepTiles];
    for (int t = 0; t < step.tiles; ++t)
      visible[t] = skips[r / kRows] >> t & 1 ? 0 : step.words[t] ? step.words[t][r] : ~0u;
    softmax_step(x.s + r * kStep, visible, step.tiles, unit, x.dv, x.m[r], x.l + r * 16, x.acc + r * x.dv, x.p + r * kStep);
  }
  // Calls body(first tile, tiles) for every run of tiles that row r's group takes.
  const auto taken = [&](int r, auto&& body) {
    for (int t = 0; t < step.tiles;) {
      int n = 0;
      while (t + n < step.tiles && !(skips[r / kRows] >> (t + n) & 1)) ++n;
      if (n > 0) body(t, n);
      t += n + 1;
    }
  };
  int64_t d = 0;
  for (; d + 64 <= x.dv; d += 64)
    for (int r = 0; r < rows; r += 4)
      taken(r, [&](int t, int n) {
        pv_tiles<4, 4>(x.p + r * kStep + t * kTileKeys, v + t, d * 64, n, x.acc + r * x.dv + d, x.dv);
      });
  if (d < x.dv)
    for (int r = 0; r < rows; r += kRows)
      taken(r, [&](int t, int n) {
        pv_tiles<kRows, 2>(x.p + r * kStep + t * kTileKeys, v + t, d * 64, n, x.acc + r * x.dv + d, x.dv);
      });
}

const char* why_not(const Args& a, int) { return why_not_common(a); }

int tasks(const Args& a, int, int) { return a.runs.n_blocks() * a.hq; }

size_t scratch_bytes(const Args& a) {
  return Scratch(a, padded_rows(least(a.runs.block_q, a.n_rows)), nullptr).bytes;
}

void run(const Args& a, int, int task, int, void* scratch, void*) {
  // Heads of a KV group side by side share its tiles in the outer cache; the last row blocks of a
  // causal call are the longest and go first.
  const int head = task % a.hq, block = a.runs.n_blocks() - 1 - task / a.hq;
  const int first = block * a.runs.block_q, rows = least(a.runs.block_q, a.n_rows - first);
  const bool plain = raw_scores(a);
  const float scale = a.scale < 0 ? -a.scale : a.scale;  // its sign goes into q, so that max works on raw scores
  const float unit = plain ? scale * kLog2e : 1.0f;
  Scratch x(a, padded_rows(least(a.runs.block_q, a.n_rows)), scratch);
  load_queries(a, head, first, rows, a.scale < 0, x);
  load_state(a, head, first, rows, unit, x);

  const int32_t* list = a.runs.list(head, block);
  const int32_t last = list[0] < list[1] ? a.runs.runs[list[1] - 1].end - 1 : -1;
  Steps steps(a, head, block);
  Step step[2];
  steps.next(step[0]);
  for (int i = 0; step[i].tiles > 0; i ^= 1) {
    steps.next(step[i ^ 1]);
    run_step(a, head, first, rows, scale, unit, step[i], step[i ^ 1].tiles > 0 ? step[i ^ 1].tile[0] : step[i].tile[0], last,
             x);
  }
  for (int r = 0; r < rows; ++r)
    finish_row(a, head, first + r, x.m[r] * unit * kLn2, _mm512_reduce_add_ps(_mm512_loadu_ps(x.l + r * 16)),
               x.acc + r * x.dv);
}

}  // namespace

extern const Kernel<op::Attend> attend;
const Kernel<op::Attend> attend{
    .name = "cpu.avx512bf16",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

}  // namespace lacuna::kernel::avx512bf16
