// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op exact_mass: the softmax mass of some cells for one query row, from the keys as the cache has them. Where op attend
// may round queries and keys to bf16, this one rounds neither, so that a proof can rest on it (account/certificate.h).
//
//   s[h, c]   = scale * q_h . k_c ; softcap > 0: s = softcap * tanh(s / softcap)
//   top[h, p] = largest s of the chosen cells of part p, -inf if there is none
//   sum[h, p] = sum over them of exp(s - top)
//
// A part is kPartTiles tiles of 32 cells. The mass of all chosen cells is the sum over the parts of sum * exp(top).
//
// Error. With A >= |scale| sum_d |q_d k_cd| for every chosen cell, log(sum) + top is off by no more than
//   2^-24 (dk + 32) A  +  2^-15  +  2^-20 softcap
// in f32: dk roundings of a product, each relative to a partial sum that A bounds; nine more, of scaling, of taking top
// off and of leaving base 2, each of at most 2 A; 256 additions of weights that are off by 1.5e-7 each; a tanh off by
// 8e-7. A score that is no number makes the part's sum none. GQA: KV head of query head h is h / (hq / hkv).
#pragma once

#include <cstdint>

#include "lacuna/dtype.h"
#include "pattern/tile_runs.h"

namespace lacuna::op {

struct ExactMass {
  static constexpr const char* kName = "exact_mass";
  static constexpr std::int32_t kPartTiles = 64;

  struct Args {
    std::int32_t hq = 0, hkv = 0, dk = 0;
    std::int64_t n_cells = 0;
    const float* q = nullptr;  // element (h, d) at h * q_head + d
    std::int64_t q_head = 0;
    const void* k = nullptr;  // element (h, c, d) at h * k_head + c * k_cell + d
    Dtype k_type = Dtype::f16;
    std::int64_t k_head = 0, k_cell = 0;
    const std::uint32_t* chosen = nullptr;  // [hq][tiles_of(n_cells)]: bit b of word t = cell 32 t + b, below n_cells
    float scale = 1.0f;                     // above 0
    float softcap = 0.0f;                   // 0 = none
    float *top = nullptr, *sum = nullptr;   // [hq][parts()]
    std::int64_t parts() const { return (n_cells + kPartTiles * kTileKeys - 1) / (kPartTiles * kTileKeys); }
  };
};

}  // namespace lacuna::op
