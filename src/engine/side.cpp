// SPDX-License-Identifier: Apache-2.0
#include "engine/side.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "base/half.h"
#include "engine/pick.h"
#include "op/side_write_ref.h"

namespace lacuna {
namespace {

// The spec without what does not fit.
SideSpec fitting(SideSpec s, int heads, int dim) {
  if (s.page != 8 && s.page != 16 && s.page != 32 && s.page != 64) s.page = 0;
  if (s.page_type != Dtype::f16 && s.page_type != Dtype::f32) s.page = 0;
  if (s.pool != 32 && s.pool != 64 && s.pool != 128) s.pool = 0;
  if (s.labels < 1 || s.labels > dim) s.labels = 0;
  if (s.labels && s.channels) {
    const std::int64_t n = static_cast<std::int64_t>(s.label_heads) * s.labels;
    if (s.label_heads != heads || !std::all_of(s.channels, s.channels + n, [dim](int c) { return c >= 0 && c < dim; })) s.labels = 0;
  }
  return s;
}

std::vector<std::int16_t> channels_of(const SideSpec& s, int heads, int dim) {
  std::vector<std::int16_t> out;
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < s.labels; ++i)
      out.push_back(s.channels ? s.channels[static_cast<std::int64_t>(h) * s.labels + i] : static_cast<std::int16_t>(i * dim / s.labels));
  return out;
}

void* zeros(Buffer& b, std::size_t bytes) { return std::memset(b.grow(bytes + 64), 0, bytes); }

}  // namespace

void SideStore::open(const SideSpec& spec, Dtype cache, std::int64_t cells, int heads, int dim) {
  SideSpec s = fitting(spec, heads, dim);
  view_ = {};
  bytes_ = {};
  channels_ = channels_of(s, heads, dim);
  s.channels = channels_.data();
  s.label_heads = heads;
  spec_ = s, cache_ = cache, cells_ = cells, heads_ = heads, dim_ = dim;
  if (s.page) {
    view_.pages = {nullptr, s.page_type, s.page, heads, dim, cells};
    view_.pages.data = zeros(pages_, bytes_.pages = view_.pages.bytes());
  }
  if (s.int4) {
    view_.int4 = {nullptr, heads, dim, cells};
    view_.int4.data = zeros(int4_, bytes_.int4 = view_.int4.bytes());
  }
  if (s.int8) {
    view_.int8 = {nullptr, heads, dim, cells};
    view_.int8.data = zeros(int8_, bytes_.int8 = view_.int8.bytes());
  }
  if (s.labels) {
    view_.labels = {nullptr, cache == Dtype::f16 ? Dtype::f16 : Dtype::f32, heads, dim, s.labels, channels_.data(), cells};
    view_.labels.data = zeros(labels_, bytes_.labels = view_.labels.bytes());
  }
  if (s.pool) {
    view_.pooled = {nullptr, s.pool, heads, dim, cells};
    view_.pooled.data = static_cast<float*>(zeros(pooled_, bytes_.pooled = view_.pooled.bytes()));
  }
}

SideStore SideStore::like() const {
  SideStore out;
  out.open(spec_, cache_, cells_, heads_, dim_);
  return out;
}

void SideStore::clear() {
  for (const auto& [data, n] : {std::pair{view_.pages.data, bytes_.pages}, std::pair{view_.int4.data, bytes_.int4},
                                std::pair{view_.int8.data, bytes_.int8}, std::pair{view_.labels.data, bytes_.labels},
                                std::pair{static_cast<const void*>(view_.pooled.data), bytes_.pooled}})
    if (data) std::memset(const_cast<void*>(data), 0, n);
}

bool SideStore::serves(const SideSpec& spec, std::int64_t cells, int heads, int dim) const {
  const SideSpec s = fitting(spec, heads, dim);
  const auto shape = [&](const auto& x) { return x.data && x.heads == heads && x.dim == dim && x.cells >= cells; };
  return (!s.page || (shape(view_.pages) && view_.pages.page == s.page && view_.pages.type == s.page_type)) &&
         (!s.int4 || shape(view_.int4)) && (!s.int8 || shape(view_.int8)) && (!s.pool || (shape(view_.pooled) && view_.pooled.block == s.pool)) &&
         (!s.labels || (shape(view_.labels) && view_.labels.count == s.labels && channels_ == channels_of(s, heads, dim)));
}

op::SideWrite::Args side_args(const Tensor& raw, const SideView& to) {
  op::SideWrite::Args a;
  a.dtype = raw.dtype;
  a.raw = raw.data;
  a.head = raw.stride[1];
  a.cell = raw.stride[2];
  a.heads = static_cast<std::int32_t>(raw.heads());
  a.dim = static_cast<std::int32_t>(raw.dim());
  a.cells = raw.tokens();
  a.to = to;
  return a;
}

void write_side(Features have, op::SideWrite::Args args, ParallelFor* parallel) {
  constexpr std::int64_t kSlice = 128;  // cells per task: whole tiles, pages and blocks
  const auto* k = pick(kernel::side_write_list, args, have, 1);
  if (!k || args.n <= 0) return;
  if (!parallel || args.n <= kSlice || args.list) {
    k->run(args, 0, 0, 1, nullptr, nullptr);
    return;
  }
  const std::int64_t first = args.first, end = first + args.n, base = first / kSlice * kSlice;
  parallel->each(static_cast<int>((end - base + kSlice - 1) / kSlice), [&](int i, int) {
    op::SideWrite::Args part = args;
    part.first = std::max(first, base + i * kSlice);
    part.n = std::min(end, base + (i + 1) * kSlice) - part.first;
    k->run(part, 0, 0, 1, nullptr, nullptr);
  });
}

namespace {

bool same(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (a != a && b != b); }

bool same(const void* a, const void* b, Dtype type, std::int64_t at) {
  if (type == Dtype::f32) return same(static_cast<const float*>(a)[at], static_cast<const float*>(b)[at]);
  const std::uint16_t x = static_cast<const std::uint16_t*>(a)[at], y = static_cast<const std::uint16_t*>(b)[at];
  const int infinity = type == Dtype::bf16 ? 0x7f80 : 0x7c00;
  return x == y || ((x & 0x7fff) > infinity && (y & 0x7fff) > infinity);
}

}  // namespace

std::string first_difference(const SideView& kept, const SideView& anew) {
  if (const PageBounds& x = kept.pages; x.data)
    for (std::int64_t p = 0; p < x.pages(); ++p)
      for (int h = 0; h < x.heads; ++h)
        for (int d = 0; d < 2 * x.dim; ++d)
          if (!same(x.data, anew.pages.data, x.type, op::page_offset(x, p, h, d / 2, d % 2)))
            return fmt::format("pages: page {} of {} cells, head {}, channel {}, {}", p, x.page, h, d / 2, d % 2 ? "max" : "min");
  if (const Int4Keys& x = kept.int4; x.data) {
    const auto *a = static_cast<const std::uint32_t*>(x.data), *b = static_cast<const std::uint32_t*>(anew.int4.data);
    for (std::int64_t c = 0; c < tiles_of(x.cells) * kTileKeys; ++c)
      for (int h = 0; h < x.heads; ++h)
        for (std::int64_t w = 0; w < x.words(); ++w)
          if (const std::int64_t at = op::int4_offset(x, c, h, w); a[at] != b[at])
            return fmt::format("int4: cell {}, head {}, word {}", c, h, w);
    for (std::int64_t t = 0; t < tiles_of(x.cells); ++t)
      for (int h = 0; h < x.heads; ++h)
        for (int i = 0; i < 2 * 8 * x.words(); ++i)
          if (!same(x.data, anew.int4.data, Dtype::f16, op::int4_range_offset(x, t, h, i / 2, i % 2)))
            return fmt::format("int4: tile {}, head {}, channel {}, {}", t, h, i / 2, i % 2 ? "zero" : "scale");
  }
  if (const Int8Keys& x = kept.int8; x.data) {
    const auto *a = static_cast<const std::int8_t*>(x.data), *b = static_cast<const std::int8_t*>(anew.int8.data);
    const int dims = static_cast<int>(padded_dim(x.dim));
    for (std::int64_t c = 0; c < tiles_of(x.cells) * kTileKeys; ++c)
      for (int h = 0; h < x.heads; ++h) {
        for (int d = 0; d < dims; ++d)
          if (const std::int64_t at = op::int8_offset(x, c, h, d); a[at] != b[at])
            return fmt::format("int8: cell {}, head {}, channel {}", c, h, d);
        if (!same(x.data, anew.int8.data, Dtype::f32, op::int8_scale_offset(x, c, h)))
          return fmt::format("int8: cell {}, head {}, scale", c, h);
      }
    for (std::int64_t t = 0; t < tiles_of(x.cells); ++t)
      for (int h = 0; h < x.heads; ++h)
        for (int d = 0; d < dims; ++d)
          if (!same(x.data, anew.int8.data, Dtype::bf16, op::int8_centre_offset(x, t, h, d)))
            return fmt::format("int8: tile {}, head {}, channel {}, centre", t, h, d);
  }
  if (const Labels& x = kept.labels; x.data)
    for (std::int64_t c = 0; c < x.cells; ++c)
      for (int h = 0; h < x.heads; ++h)
        for (int i = 0; i < x.count; ++i)
          if (!same(x.data, anew.labels.data, x.type, op::label_offset(x, c, h, i)))
            return fmt::format("labels: cell {}, head {}, label {}", c, h, i);
  if (const PooledKeys& x = kept.pooled; x.data)
    for (std::int64_t b = 0; b < x.blocks(); ++b)
      for (int h = 0; h < x.heads; ++h)
        for (int d = 0; d < x.dim; ++d)
          if (!same(x.sum(b, h)[d], anew.pooled.sum(b, h)[d]))
            return fmt::format("pooled: block {} of {} cells, head {}, channel {}", b, x.block, h, d);
  return "";
}

SideRequest make_request(const SideSpec& spec) {
  struct Owned {
    SideSpec spec;
    std::vector<std::int16_t> channels;
  };
  const auto owned = std::make_shared<Owned>();
  owned->spec = spec;
  if (spec.channels && spec.labels > 0 && spec.label_heads > 0) {
    owned->channels.assign(spec.channels, spec.channels + static_cast<std::int64_t>(spec.label_heads) * spec.labels);
    owned->spec.channels = owned->channels.data();
  } else if (spec.channels) {
    owned->spec.labels = 0;  // a list without a length is no list
    owned->spec.channels = nullptr;
  }
  return {owned, &owned->spec};
}

SideRequest every_side_kind() {
  return make_request({.page = 16, .page_type = Dtype::f16, .int4 = true, .int8 = true, .labels = 5, .label_heads = 0, .channels = nullptr, .pool = 64});
}

}  // namespace lacuna
