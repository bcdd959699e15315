// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Side data: what may lie beside a key cache of C cells x Hkv heads x Dk channels, for estimators that
// shall not read the keys themselves. Five kinds, each kept only if a method asks (SideSpec).
//
// All are pure functions of what the cache holds. Cells never written are zeros and count as such, and
// so do cells past C that share a page, block or tile with real ones: the side data of zeros is zeros.
// So "equals a rebuild" is a matter of bits, and op side_write is the one place that makes them.
//
// Numbers are in order of CELLS, not of a sequence's keys. Data is 64-byte aligned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv/packed.h"
#include "lacuna/dtype.h"
#include "pattern/tile_runs.h"

namespace lacuna {

// What a method wants kept (Method::side). Kinds that do not fit the cache are left out: their views
// have no data, and the method goes dense with that reason.
struct SideSpec {
  std::int32_t page = 0;               // PageBounds over pages of 8, 16, 32 or 64 cells; 0 = none
  Dtype page_type = Dtype::f16;        // f16 or f32
  bool int4 = false;                   // Int4Keys
  bool int8 = false;                   // Int8Keys
  std::int32_t labels = 0;             // Labels of so many channels, 1..Dk; 0 = none
  std::int32_t label_heads = 0;        // KV heads that `channels` has lists for
  const std::int16_t* channels = nullptr;  // [label_heads][labels], 0 <= channel < Dk; null = spread evenly over Dk
  std::int32_t pool = 0;               // PooledKeys over blocks of 32, 64 or 128 cells; 0 = none
  bool none() const { return page == 0 && !int4 && !int8 && labels == 0 && pool == 0; }
};

// Channel-wise least and largest key of each page of P cells: for any q and any key k of page p,
//   q.k <= sum_d max(q_d mn[p,d], q_d mx[p,d])
// f16 bounds of wider keys are rounded outwards, so that they stay bounds; NaN keys are passed over.
// Per (tile of 32 pages, head): [half of 16 pages][Dk][mn, mx][16 pages], so that a walk over the pages
// is one stream: the product of 2 Dk channels with (min(q_d, 0), max(q_d, 0)).
// Size: 2 Dk / P numbers per cell and head; at P = 16 an eighth of the keys.
struct PageBounds {
  const void* data = nullptr;
  Dtype type = Dtype::f16;
  std::int32_t page = 0;  // P
  std::int32_t heads = 0, dim = 0;
  std::int64_t cells = 0;
  std::int64_t pages() const { return page ? (cells + page - 1) / page : 0; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(tiles_of(pages()) * heads * dim) * 2 * kTileKeys * static_cast<std::size_t>(block_bytes(type));
  }
};

// Keys in 4 bits, asymmetric per channel and tile of 32 cells: k_d ~ zero_d + scale_d n_d,
//   zero_d = min over the tile's cells of k_d,  scale_d = (max - zero_d) / 15,  both halves, rounded outwards
//   n_d = round((k_d - zero_d) / scale_d) in 0..15
// Per channel, because keys often have a few channels far larger than the rest; these would take the
// range of all others away (docs/decisions/018).
// A channel with a cell that is not finite, or beyond halves: scale 0, zero NaN.
// Per (tile, head), with D = Dk padded to 8: scale [D] f16, zero [D] f16, words [D / 8][32 cells] u32;
// channel 8 w + i of a cell is the four bits of its word w from int4_shift(i) on: the low halves of the
// four bytes are four channels side by side, and so are the high halves. Size: 5 D / 8 bytes per cell and head.
struct Int4Keys {
  const void* data = nullptr;
  std::int32_t heads = 0, dim = 0;
  std::int64_t cells = 0;
  std::int64_t words() const { return (dim + 7) / 8; }
  std::size_t block_bytes() const { return static_cast<std::size_t>(words()) * (8 * 4 + kTileKeys * 4); }
  std::size_t bytes() const { return block_bytes() * static_cast<std::size_t>(tiles_of(cells) * heads); }
};
constexpr int int4_shift(int i) { return 8 * (i % 4) + 4 * (i / 4); }

// Keys in 8 bits, symmetric per cell around what a tile's cells have in common: k_d ~ centre_d + scale n_d,
//   centre_d = middle of the least and the largest k_d of the tile's 32 cells, as bf16
//   scale    = max over d of |k_d - centre_d| / 127, per cell;  n_d = round((k_d - centre_d) / scale) in -127..127
// The centre is what SageAttention (arXiv:2410.02367) and SALE (arXiv:2505.24179) take off the keys as their
// mean, so that a channel which is large in all keys takes no range from the others. Theirs is the mean of all
// keys, which changes with every write; the middle needs a tile only, and makes the largest rest as small as it
// can be. As bf16, because the rest counts from the rounded number: nothing is lost.
// Cells with a rest that is not finite: scale NaN, numbers 0; other cells' numbers that are not finite do not
// count for the centre. A scale below 2^-100 is 0.
// Per (tile, head), with D = Dk padded to 32: numbers [half of 16 cells][D / 4][16 cells][4 channels] s8, of which
// 16 rows are an operand of an AMX product and one row is one of vpdpbusd; scale [32] f32; centre [D] bf16.
// Size: 17 D / 16 + 4 bytes per cell and head.
struct Int8Keys {
  const void* data = nullptr;
  std::int32_t heads = 0, dim = 0;
  std::int64_t cells = 0;
  std::size_t block_bytes() const { return static_cast<std::size_t>(padded_dim(dim)) * (kTileKeys + 2) + kTileKeys * 4; }
  // Where D is no multiple of 64, the last operand of a half is read past its end; of the last head too.
  std::size_t bytes() const { return block_bytes() * static_cast<std::size_t>(tiles_of(cells) * heads) + 512; }
};

// r chosen channels of every key; each KV head has its own list.
// Per (tile, head): [half of 16 cells][r][16 cells]. f16 if the cache is, else f32: nothing is rounded.
struct Labels {
  const void* data = nullptr;
  Dtype type = Dtype::f16;
  std::int32_t heads = 0, dim = 0;
  std::int32_t count = 0;                  // r
  const std::int16_t* channels = nullptr;  // [heads][r]
  std::int64_t cells = 0;
  std::size_t bytes() const {
    return static_cast<std::size_t>(tiles_of(cells) * heads * count) * kTileKeys * static_cast<std::size_t>(block_bytes(type));
  }
};

// Sum of the keys of each block of B cells, added up in order of cells: [blocks][heads][Dk] f32.
// A mean needs the number of cells that are visible: the caller knows it, the cache does not.
struct PooledKeys {
  const float* data = nullptr;
  std::int32_t block = 0;  // B
  std::int32_t heads = 0, dim = 0;
  std::int64_t cells = 0;
  std::int64_t blocks() const { return block ? (cells + block - 1) / block : 0; }
  std::size_t bytes() const { return static_cast<std::size_t>(blocks() * heads * dim) * sizeof(float); }
  const float* sum(std::int64_t b, int head) const { return data + (b * heads + head) * dim; }
};

// What is kept beside one key cache. A kind whose data is null is not there.
struct SideView {
  PageBounds pages;
  Int4Keys int4;
  Int8Keys int8;
  Labels labels;
  PooledKeys pooled;
};

}  // namespace lacuna
