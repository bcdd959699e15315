// SPDX-License-Identifier: Apache-2.0
#include "op/side_write_ref.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "kv/element.h"

namespace lacuna::op {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLeastInt8Scale = 0x1p-100f;
constexpr std::uint16_t kHalfNan = 0x7e00;

float key(const SideWrite::Args& a, int h, std::int64_t c, int d) {
  return element(a.raw, a.dtype, h * a.head + c * a.cell + d);
}

// The largest half <= x and the least half >= x; x is no NaN. Halves of one sign lie in order of their bits.
std::uint16_t half_below(float x) {
  const std::uint16_t h = float_to_half(x);
  if (half_to_float(h) <= x) return h;
  if (h & 0x8000) return static_cast<std::uint16_t>(h + 1);
  return h == 0 ? std::uint16_t{0x8001} : static_cast<std::uint16_t>(h - 1);
}
std::uint16_t half_above(float x) {
  const std::uint16_t h = float_to_half(x);
  if (half_to_float(h) >= x) return h;
  if (!(h & 0x8000)) return static_cast<std::uint16_t>(h + 1);
  return h == 0x8000 ? std::uint16_t{0x0001} : static_cast<std::uint16_t>(h - 1);
}

void put(const void* data, Dtype type, std::int64_t at, float x, std::uint16_t half) {
  if (type == Dtype::f32) static_cast<float*>(const_cast<void*>(data))[at] = x;
  else static_cast<std::uint16_t*>(const_cast<void*>(data))[at] = half;
}

void write_page(const SideWrite::Args& a, std::int64_t page) {
  const PageBounds& to = a.to.pages;
  const std::int64_t begin = page * to.page, end = begin + to.page;
  for (int h = 0; h < a.heads; ++h)
    for (int d = 0; d < a.dim; ++d) {
      float least = kInfinity, largest = -kInfinity;
      for (std::int64_t c = begin; c < end; ++c) {
        const float x = c < a.cells ? key(a, h, c, d) : 0.0f;
        least = x < least ? x : least;  // NaN is passed over
        largest = x > largest ? x : largest;
      }
      put(to.data, to.type, page_offset(to, page, h, d, false), least, half_below(least));
      put(to.data, to.type, page_offset(to, page, h, d, true), largest, half_above(largest));
    }
}

void write_block(const SideWrite::Args& a, std::int64_t block) {
  const PooledKeys& to = a.to.pooled;
  for (int h = 0; h < a.heads; ++h)
    for (int d = 0; d < a.dim; ++d) {
      float sum = 0;
      for (std::int64_t c = block * to.block; c < std::min((block + 1) * to.block, a.cells); ++c) sum += key(a, h, c, d);
      const_cast<float*>(to.sum(block, h))[d] = sum;
    }
}

void write_labels(const SideWrite::Args& a, std::int64_t cell) {
  const Labels& to = a.to.labels;
  for (int h = 0; h < a.heads; ++h)
    for (int i = 0; i < to.count; ++i) {
      const float x = key(a, h, cell, to.channels[static_cast<std::int64_t>(h) * to.count + i]);
      put(to.data, to.type, label_offset(to, cell, h, i), x, float_to_half(x));
    }
}

void write_int4_tile(const SideWrite::Args& a, std::int64_t tile) {
  const Int4Keys& to = a.to.int4;
  auto* words = static_cast<std::uint32_t*>(const_cast<void*>(to.data));
  auto* halves = static_cast<std::uint16_t*>(const_cast<void*>(to.data));
  const std::int64_t begin = tile * kTileKeys, end = begin + kTileKeys;
  for (int h = 0; h < a.heads; ++h) {
    for (std::int64_t c = begin; c < end; ++c)
      for (std::int64_t w = 0; w < to.words(); ++w) words[int4_offset(to, c, h, w)] = 0;
    for (int d = 0; d < 8 * to.words(); ++d) {
      const auto number = [&](std::int64_t c) { return c < a.cells && d < a.dim ? key(a, h, c, d) : 0.0f; };
      float least = kInfinity, largest = -kInfinity;
      bool finite = true;
      for (std::int64_t c = begin; c < end; ++c) {
        const float x = number(c);
        least = x < least ? x : least;
        largest = x > largest ? x : largest;
        finite = finite && std::isfinite(x);
      }
      const std::uint16_t low = finite ? half_below(least + 0.0f) : kHalfNan;  // + 0: one zero, not two
      const float zero = half_to_float(low);
      finite = finite && std::isfinite(zero);
      std::uint16_t unit = finite ? half_above((largest - zero) / 15.0f) : std::uint16_t{0};
      finite = finite && std::isfinite(half_to_float(unit));
      if (!finite) unit = 0;
      halves[int4_range_offset(to, tile, h, d, false)] = unit;
      halves[int4_range_offset(to, tile, h, d, true)] = finite ? low : kHalfNan;
      if (unit == 0) continue;
      const float inverse = 1.0f / half_to_float(unit);
      for (std::int64_t c = begin; c < end; ++c) {
        const float n = std::clamp(std::nearbyint((number(c) - zero) * inverse), 0.0f, 15.0f);
        words[int4_offset(to, c, h, d / 8)] |= static_cast<std::uint32_t>(n) << int4_shift(d % 8);
      }
    }
  }
}

void write_int8_tile(const SideWrite::Args& a, std::int64_t tile) {
  const Int8Keys& to = a.to.int8;
  auto* numbers = static_cast<std::int8_t*>(const_cast<void*>(to.data));
  auto* floats = static_cast<float*>(const_cast<void*>(to.data));
  auto* halves = static_cast<std::uint16_t*>(const_cast<void*>(to.data));
  const std::int64_t begin = tile * kTileKeys, end = begin + kTileKeys;
  for (int h = 0; h < a.heads; ++h) {
    const auto number = [&](std::int64_t c, int d) { return c < a.cells && d < a.dim ? key(a, h, c, d) : 0.0f; };
    const auto rest = [&](std::int64_t c, int d) { return number(c, d) - bf16_to_float(halves[int8_centre_offset(to, tile, h, d)]); };
    const int dims = static_cast<int>(padded_dim(a.dim));
    for (int d = 0; d < dims; ++d) {
      float least = kInfinity, largest = -kInfinity;
      for (std::int64_t c = begin; c < end; ++c) {
        const float x = number(c, d);
        if (!std::isfinite(x)) continue;
        least = x < least ? x : least;
        largest = x > largest ? x : largest;
      }
      halves[int8_centre_offset(to, tile, h, d)] = float_to_bf16(0.5f * least + 0.5f * largest + 0.0f);  // + 0: one zero, not two
    }
    for (std::int64_t c = begin; c < end; ++c) {
      float largest = 0;
      bool finite = true;
      for (int d = 0; d < dims; ++d) {
        largest = std::max(largest, std::fabs(rest(c, d)));
        finite = finite && std::isfinite(rest(c, d));
      }
      const float scale = largest / 127.0f;
      const float inverse = finite && scale >= kLeastInt8Scale ? 1.0f / scale : 0.0f;
      floats[int8_scale_offset(to, c, h)] = !finite ? std::numeric_limits<float>::quiet_NaN() : inverse > 0 ? scale : 0.0f;
      for (int d = 0; d < dims; ++d)
        numbers[int8_offset(to, c, h, d)] = inverse > 0 ? static_cast<std::int8_t>(std::nearbyint(rest(c, d) * inverse)) : std::int8_t{0};
    }
  }
}

}  // namespace

std::int64_t page_offset(const PageBounds& x, std::int64_t page, int head, int d, bool largest) {
  const std::int64_t block = (page / kTileKeys * x.heads + head) * 2, half = page % kTileKeys / 16;
  return (((block + half) * x.dim + d) * 2 + largest) * 16 + page % 16;
}

std::int64_t label_offset(const Labels& x, std::int64_t cell, int head, int i) {
  const std::int64_t block = (cell / kTileKeys * x.heads + head) * 2, half = cell % kTileKeys / 16;
  return ((block + half) * x.count + i) * 16 + cell % 16;
}

std::int64_t int4_offset(const Int4Keys& x, std::int64_t cell, int head, std::int64_t w) {
  const std::int64_t block = cell / kTileKeys * x.heads + head;
  return block * static_cast<std::int64_t>(x.block_bytes() / 4) + x.words() * 8 + w * kTileKeys + cell % kTileKeys;
}

std::int64_t int4_range_offset(const Int4Keys& x, std::int64_t tile, int head, int d, bool zero) {
  return (tile * x.heads + head) * static_cast<std::int64_t>(x.block_bytes() / 2) + (zero ? x.words() * 8 : 0) + d;
}

std::int64_t int8_offset(const Int8Keys& x, std::int64_t cell, int head, int d) {
  const std::int64_t block = cell / kTileKeys * x.heads + head, half = cell % kTileKeys / 16;
  return block * static_cast<std::int64_t>(x.block_bytes()) + ((half * (padded_dim(x.dim) / 4) + d / 4) * 16 + cell % 16) * 4 + d % 4;
}

std::int64_t int8_scale_offset(const Int8Keys& x, std::int64_t cell, int head) {
  const std::int64_t block = cell / kTileKeys * x.heads + head;
  return block * static_cast<std::int64_t>(x.block_bytes() / 4) + padded_dim(x.dim) * kTileKeys / 4 + cell % kTileKeys;
}

std::int64_t int8_centre_offset(const Int8Keys& x, std::int64_t tile, int head, int d) {
  const std::int64_t block = tile * x.heads + head;
  return block * static_cast<std::int64_t>(x.block_bytes() / 2) + padded_dim(x.dim) * kTileKeys / 2 + kTileKeys * 2 + d;
}

void side_write_ref(const SideWrite::Args& a) {
  std::int64_t page = -1, block = -1, tile = -1, tile8 = -1;
  for (std::int64_t i = 0; i < a.n; ++i) {
    const std::int64_t cell = a.list ? a.list[i] : a.first + i;
    if (a.to.pages.data && cell / a.to.pages.page != page) write_page(a, page = cell / a.to.pages.page);
    if (a.to.pooled.data && cell / a.to.pooled.block != block) write_block(a, block = cell / a.to.pooled.block);
    if (a.to.labels.data) write_labels(a, cell);
    if (a.to.int4.data && cell / kTileKeys != tile) write_int4_tile(a, tile = cell / kTileKeys);
    if (a.to.int8.data && cell / kTileKeys != tile8) write_int8_tile(a, tile8 = cell / kTileKeys);
  }
}

}  // namespace lacuna::op
