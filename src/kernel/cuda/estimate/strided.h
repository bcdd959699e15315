// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// How the product of strided queries and keys is cut into tiles, and what a tile leaves in memory.
//
// A tile is 128 strided rows by 256 squares (columns). Of every row it leaves the largest score, and, relative to
// that, sums of weights over cells of 4, 8 or 16 columns, none wider than a key block: an eighth of the scores' bytes
// or less, from which the rows' softmax is put together later (gather.cu). So tiles know nothing of each other, and all
// take the same time.
//
// Tiles are numbered by KV heads, in them by bands of 8 tiles of columns, in a band from the last rows to the first,
// query heads and columns innermost: thread blocks that run side by side read few queries and keys between them.
#pragma once

#include <cstdint>

#include "kernel/cuda/tensor.h"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda {

#ifdef __CUDACC__
#define LACUNA_ANYWHERE __host__ __device__
#else
#define LACUNA_ANYWHERE
#endif

constexpr int kStridedRows = 128, kStridedColumns = 256, kStridedBand = 8;

struct StridedTile {
  std::int32_t head, row, column;  // query head, of all of a launch; tiles of rows and of columns
};

struct StridedGrid {
  std::int32_t hq = 1, group = 1;  // of a sequence; query heads of a KV head
  std::int32_t stride = 8, cell = 8;
  std::int32_t skip = 0;           // rows before the first whole square
  std::int32_t rows = 0, columns = 0;  // strided
  std::int32_t first = 0;          // row m sees the columns up to first + m

  LACUNA_ANYWHERE std::int32_t row_tiles() const { return (rows + kStridedRows - 1) / kStridedRows; }
  LACUNA_ANYWHERE std::int32_t cells() const { return kStridedColumns / cell; }  // of a row of a tile
  // Tiles of columns that a tile of rows sees something of.
  LACUNA_ANYWHERE std::int32_t tiles_of(std::int32_t row_tile) const {
    return (first + kStridedRows * (row_tile + 1) + kStridedColumns - 1) / kStridedColumns;
  }
  // The sum of tiles_of() over the tiles of rows before this one.
  LACUNA_ANYWHERE std::int64_t tiles_before(std::int64_t row_tile) const {
    const std::int32_t from = first + kStridedRows + kStridedColumns - 1;  // tiles_of(i) = (from + 128 i) / 256
    const std::int64_t odd = from % kStridedColumns >= kStridedRows ? row_tile : row_tile - 1;
    return from / kStridedColumns * row_tile + (row_tile > 0 ? odd * odd / 4 : 0);
  }
  LACUNA_ANYWHERE std::int64_t tiles_of_head() const { return tiles_before(row_tiles()); }

  // The first tile of rows that sees this many tiles of columns or more; row_tiles() if none does.
  LACUNA_ANYWHERE std::int32_t first_that_sees(std::int32_t tiles) const {
    const std::int64_t need = std::int64_t{kStridedColumns} * tiles - (first + kStridedRows + kStridedColumns - 1);
    const std::int64_t i = need <= 0 ? 0 : (need + kStridedRows - 1) / kStridedRows;
    return static_cast<std::int32_t>(i < row_tiles() ? i : row_tiles());
  }
  // The tile with this number among those of a launch.
  LACUNA_ANYWHERE StridedTile tile_at(std::int64_t number) const {
    const std::int64_t of_group = tiles_of_head() * group;
    const auto kv_head = static_cast<std::int32_t>(number / of_group);
    std::int64_t left = number - kv_head * of_group;
    for (std::int32_t band = 0;; band += kStridedBand) {
      const std::int32_t begin = first_that_sees(band + 1), whole = first_that_sees(band + kStridedBand);
      const std::int64_t in_whole = std::int64_t{row_tiles() - whole} * kStridedBand * group;
      if (left < in_whole) return at(kv_head, row_tiles() - 1, band, kStridedBand, left);
      left -= in_whole;
      const std::int64_t in_rest =
          (tiles_before(whole) - tiles_before(begin) - std::int64_t{band} * (whole - begin)) * group;
      if (left >= in_rest) {
        left -= in_rest;
        continue;
      }
      for (std::int32_t i = whole - 1;; --i) {
        const std::int32_t n = tiles_of(i) - band;
        if (left < std::int64_t{n} * group) return at(kv_head, i, band, n, left);
        left -= std::int64_t{n} * group;
      }
    }
  }
  // Where a tile's rows begin: row r of it has its largest score at maxima[place * 128 + r], in base 2, and its
  // cells at cells[(place * 128 + r) * cells()].
  LACUNA_ANYWHERE std::int64_t place(const StridedTile& t) const {
    return t.head * tiles_of_head() + tiles_before(t.row) + t.column;
  }

 private:
  LACUNA_ANYWHERE StridedTile at(std::int32_t kv_head, std::int32_t last_row, std::int32_t band, std::int32_t n,
                                 std::int64_t left) const {
    const auto row = static_cast<std::int32_t>(left / (n * group)), rest = static_cast<std::int32_t>(left % (n * group));
    return {kv_head * group + rest / n, last_row - row, band + rest % n};
  }
};

#undef LACUNA_ANYWHERE

// One launch of the product, for some of the KV heads of a batch.
struct StridedProduct {
  Dtype dtype = Dtype::bf16;
  std::int32_t batch = 1, hkv = 1, nq = 0, nk = 0, dk = 0;
  Tensor4 q, k;
  StridedGrid grid;
  float scale_log2 = 1.0f;                    // from a sum of products to a score in base 2
  std::int32_t first_head = 0, kv_heads = 0;  // of the launch, counted through the batch: KV heads
  void* cells = nullptr;                      // f16
  float* maxima = nullptr;

  std::int64_t tiles() const { return grid.tiles_of_head() * grid.group * kv_heads; }
};

namespace sm90a {
const char* strided_why_not(const StridedProduct& a);
const char* strided(const StridedProduct& a, void* stream);
}  // namespace sm90a
namespace sm80 {
const char* strided(const StridedProduct& a, void* stream);
}  // namespace sm80

}  // namespace lacuna::kernel::cuda
