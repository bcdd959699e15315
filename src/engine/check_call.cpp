// SPDX-License-Identifier: Apache-2.0
// What a call must be before anything looks at it: shapes, types, strides, and what is written apart from itself.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "engine/session.h"

namespace lacuna {
namespace {

Status check_tensor(const char* name, const Tensor& t, bool need_f32) {
  if (!t.data && t.n[1] > 0 && t.n[2] > 0 && t.n[3] > 0) return bad_argument(fmt::format("{}: no data", name));
  if (t.n[0] != 1) return bad_argument(fmt::format("{}: batch {}, need 1 (batches are separate calls)", name, t.n[0]));
  if (t.stride[3] != 1)
    return bad_argument(fmt::format("{}: channel stride {}, need 1; copy it so that channels lie side by side", name, t.stride[3]));
  if (need_f32 && t.dtype != Dtype::f32) return bad_argument(fmt::format("{}: type {}, need f32", name, name_of(t.dtype)));
  if (const std::int64_t block = block_size(t.dtype); block > 1) {
    if (t.n[3] % block)
      return bad_argument(fmt::format("{}: {} channels of {}, need a multiple of {}, its block; take f16 for this head_dim",
                                      name, t.n[3], name_of(t.dtype), block));
    for (int i = 0; i < 3; ++i)
      if (t.stride[i] % block)
        return bad_argument(fmt::format("{}: stride {} in dimension {} of {}, need a multiple of {}: rows begin with a block",
                                        name, t.stride[i], i, name_of(t.dtype), block));
  }
  // 2^30 leaves room for int32 row and cell numbers rounded up to a block.
  constexpr std::int64_t kLargest = std::int64_t{1} << 30, kFarthest = std::int64_t{1} << 60;
  std::int64_t last = 0;  // element number of the last element, from data
  for (int i = 0; i < 4; ++i) {
    if (t.n[i] < 0 || t.n[i] > kLargest)
      return bad_argument(fmt::format("{}: size {} in dimension {}, need 0..{}", name, t.n[i], i, kLargest));
    if (t.stride[i] < 0)
      return bad_argument(fmt::format("{}: stride {} in dimension {}, need 0 or more: point data at the first row",
                                      name, t.stride[i], i));
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(t.stride[i], std::max<std::int64_t>(t.n[i] - 1, 0), &reach) || reach > kFarthest ||
        (last += reach) > kFarthest)
      return bad_argument(fmt::format("{}: stride {} in dimension {} of size {} reaches beyond any memory", name,
                                      t.stride[i], i, t.n[i]));
  }
  return {};
}

// Rows that are written must not share elements: two workers would write them.
Status check_apart(const char* name, const Tensor& t) {
  const std::int64_t heads = t.heads(), rows = t.tokens(), head = t.stride[1], row = t.stride[2];
  const bool rows_inside = (rows < 2 || row >= t.dim()) && (heads < 2 || head >= (rows - 1) * row + t.dim());
  const bool heads_inside = (heads < 2 || head >= t.dim()) && (rows < 2 || row >= (heads - 1) * head + t.dim());
  if (t.n[3] > 0 && rows > 0 && !rows_inside && !heads_inside)
    return bad_argument(fmt::format("{}: head stride {} and row stride {} let rows of {} channels overlap: lay "
                                    "them apart", name, head, row, t.dim()));
  return {};
}

}  // namespace

Status check_floats(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim) {
  LACUNA_CHECK(check_tensor(name, t, true));
  if (t.heads() != heads || t.tokens() != tokens || t.dim() != dim)
    return bad_argument(fmt::format("{} is [{}, {}, {}], need [{}, {}, {}]", name, t.heads(), t.tokens(), t.dim(), heads, tokens, dim));
  return {};
}

Status check_written(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim) {
  LACUNA_CHECK(check_floats(name, t, heads, tokens, dim));
  return check_apart(name, t);
}

Status check_inputs(const AttendCall& c) {
  LACUNA_CHECK(check_tensor("q", c.q, true));
  if (c.k.tokens() != 0) {
    LACUNA_CHECK(check_tensor("k", c.k, false));
    LACUNA_CHECK(check_tensor("v", c.v, false));
  }
  if (c.k.dtype != c.v.dtype && !is_quantised(c.k.dtype) && !is_quantised(c.v.dtype))
    return bad_argument(fmt::format("k is {} and v is {}: both must be of one type, or one of them q8_0 or q4_0",
                                    name_of(c.k.dtype), name_of(c.v.dtype)));
  const std::int64_t hq = c.q.heads(), hkv = c.k.heads();
  if (hq < 1 || hkv < 1 || hq % hkv)
    return bad_argument(fmt::format("{} query heads over {} KV heads: the first must be a multiple of the second", hq, hkv));
  if (c.v.heads() != hkv || c.v.tokens() != c.k.tokens())
    return bad_argument(fmt::format("k has {} heads x {} cells, v has {} x {}: they must agree", hkv, c.k.tokens(),
                                    c.v.heads(), c.v.tokens()));
  if (c.q.dim() != c.k.dim() || c.q.dim() < 1 || c.q.dim() > 1024)
    return bad_argument(fmt::format("head_dim of q is {}, of k {}: they must agree, 1..1024", c.q.dim(), c.k.dim()));
  if (c.v.dim() < 1 || c.v.dim() > 1024) return bad_argument(fmt::format("head_dim of v is {}, need 1..1024", c.v.dim()));
  if (!(c.softcap >= 0) || std::isinf(c.softcap))
    return bad_argument(fmt::format("softcap: got {}, need 0 (none) or more", c.softcap));
  if (!std::isfinite(c.scale)) return bad_argument(fmt::format("scale: got {}, need a number; 0 = 1 / sqrt(Dk)", c.scale));
  if (c.mask.data && c.mask.row_stride < c.k.tokens() && c.q.tokens() > 1 && c.mask.row_stride != 0)
    return bad_argument(fmt::format("mask: row stride {}, need {} (cells) or more, or 0 for one row shared by all",
                                    c.mask.row_stride, c.k.tokens()));
  return {};
}

}  // namespace lacuna
