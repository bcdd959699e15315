// SPDX-License-Identifier: Apache-2.0
// op attend for many rows, on AMX: bf16 products, f32 scores, sums and outputs.
//
// A strip is a row block of one or more query heads that share a KV head and a tile list; their rows are
// stacked and cut into units of 32. A task is some strips of one KV head. Their tiles are taken together,
// in spans that fit the L2 cache, and every unit passes over its strip's tiles of a span (pipeline.h).
//
// With pv_skip, a unit is the group of rows that leaves a tile out: its scores become -inf before they are
// weighed, and its values are passed over.
//
// K and V are pair16_bf16 blocks, which are B tiles (kv/packed.h). A row's result depends on nothing
// but its own list of tiles: neither on the rows it is stacked with nor on where chunks end.
#include "kernel/cpu/amx/pipeline.h"
#include "kernel/cpu/amx/scores.h"
#include "kernel/cpu/amx/strips.h"
#include "kernel/cpu/avx512/gather.inc"
#include "kernel/kernel.h"

namespace lacuna::kernel::amx {
namespace {

constexpr int kCopyRows = 128;  // a span is copied for this many rows or more
constexpr int kRowsAhead = 4;   // fetched while others are read or written

template <class Tiles>
class Task {
 public:
  Task(const Args& a, const Split& split, int task, char* scratch)
      : a_(a), shape_(a), split_(split), scores_(a), scratch_(scratch) {
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
    units_ = scratch + kPipelineBytes;
    span_ = units_ + units * unit_bytes(shape_);
    copies_ = stacked >= kCopyRows && a.hkv % kCopyHeads == 0 && a.runs.heads <= a.hkv;
    span_tiles_ = copies_ ? kSpanTiles : kInPlaceTiles;
    v_step_ = (copies_ ? kSpanTiles : 1) * 2L * kTileBytes;
  }

  void run() {
    each_unit([&](const Strip& s, int u) { begin(s, u); });
    Pipeline<Tiles> pipeline(scores_, shape_, v_step_, scratch_);
    while (take_span()) {
      each_unit([&](const Strip& s, int u) {
        if (s.n > 0) pipeline.pass(unit(s, u), s.span, s.n);
      });
      pipeline.finish();
    }
    each_unit([&](const Strip& s, int u) { end(s, u); });
  }

 private:
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

  Unit unit(const Strip& s, int u) const { return {s, u, shape_, units_ + (s.first_unit + u) * unit_bytes(shape_)}; }

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
    for (int r = 0; r < kUnitRows; ++r) {
      fetch<0>(s, u * kUnitRows + r + kRowsAhead, a_.q, a_.q_head, a_.q_row, a_.dk);
      const Row at = x.row(r < x.live ? r : 0);
      const float* q = a_.q + at.head * a_.q_head + at.row * a_.q_row;
      put_row(q, r < x.live ? a_.dk : 0, shape_.depth, r % kTileRows, x.q + r / kTileRows * shape_.depth * kTileBytes);
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      const bool resumes = a_.resume.m && r < x.live;
      x.top[r] = r >= x.live ? 0.0f : resumes && a_.resume.m[state] > kNone ? a_.resume.m[state] * kLog2e : kUnseen;
      x.zero[r] = FastWeigher::zero(x.top[r]);
      x.most[r] = resumes ? a_.resume.m[state] * kLog2e : kNone;
      _mm512_store_ps(x.sum + r * 16, _mm512_maskz_mov_ps(1, _mm512_set1_ps(resumes ? a_.resume.l[state] : 0.0f)));
      for (int c = 0; c < shape_.channels; ++c) {
        const int left = resumes ? a_.dv - c * 16 : 0;
        const float* acc = resumes ? a_.resume.acc + state * a_.dv + c * 16 : nullptr;
        _mm512_store_ps(x.acc_at(shape_, r, c),
                        left > 0 ? _mm512_maskz_loadu_ps(first_lanes(left), acc) : _mm512_setzero_ps());
      }
    }
  }

  // A tile's keys and values, in a slot of the span or in place. In place, the other heads lie between the
  // tiles. Where that makes large powers of two, the tiles share few cache sets, and enough rows pay for a
  // copy; elsewhere neither a copy nor a longer span pays (docs/decisions/021), and where every query head has a list of its
  // own too few strips share a tile (docs/decisions/025). V is copied in the order in which
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

  // State out, or output and lse.
  void end(const Strip& s, int u) {
    const Unit x = unit(s, u);
    for (int r = 0; r < x.live; ++r) {
      fetch<1>(s, u * kUnitRows + r + kRowsAhead, a_.out, a_.out_head, a_.out_row, a_.dv);
      const Row at = x.row(r);
      const std::int64_t state = static_cast<std::int64_t>(at.head) * a_.n_rows + at.row;
      float top = x.top[r], sum = _mm512_reduce_add_ps(_mm512_load_ps(x.sum + r * 16));
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
                            _mm512_mul_ps(_mm512_load_ps(x.acc_at(shape_, r, c)), _mm512_set1_ps(factor)));
  }

  const Args& a_;
  const Shape shape_;
  const Split split_;
  const Scores scores_;
  int kv_head_, n_strips_;
  Strip strips_[kMaxStrips];
  char* scratch_;  // of the pipeline
  char* units_;
  char* span_;   // a span's K and V, where they are copied or gathered
  bool copies_;  // packed tiles too
  int span_tiles_;
  long v_step_;  // bytes
};

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16 || a.packed_v.format != PackFormat::pair16_bf16)
    return "reads K and V packed as pair16_bf16 (precision fast)";
  if (a.runs.slots && a.bias) return "gathered tiles with an additive mask";
  return nullptr;
}

// A strip costs the same whether its rows are all there or not; below this many the kernel that splits the cells among the
// workers is quicker (measured at 64 and 128 channels, 3500 to 32768 cells: even at 6 to 8 rows).
const char* yields(const Args& a) {
  constexpr int kFewest = 7;
  return a.hq / a.hkv * a.n_rows < kFewest ? "less than 7 query rows of a KV head: a decode kernel is faster" : nullptr;
}

int tasks(const Args& a, int, int workers) { return a.hkv * split_of(a, workers).tasks_per_kv(); }

std::size_t scratch_bytes(const Args& a) {
  // How heads and blocks are shared out depends on the workers; what bounds it does not.
  const Split most = split_of(a, 0);
  const std::size_t unit = unit_bytes(Shape(a)), strip = ceil_div(most.heads * most.rows, kUnitRows) * unit;
  const std::size_t all = static_cast<std::size_t>(a.hq / a.hkv) * most.blocks * ceil_div(most.rows, kUnitRows) * unit;
  const std::size_t state = all < kStateBytes ? all : kStateBytes;
  return kPipelineBytes + span_bytes(Shape(a)) + (strip > state ? strip : state);
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
    .yields = yields,
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
