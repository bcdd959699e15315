// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/claim.h"

#include "host/ggml/api.h"
#include "host/ggml/cache.h"
#include "host/ggml/types.h"

namespace lacuna::ggml {
namespace {

constexpr const char* kType = "keys or values of a type not taken (use -ctk and -ctv f32, f16, bf16, q8_0 or q4_0)";
constexpr const char* kNoQuantiser = "a quantised cache without ggml's CPU backend to write it (use -ctk f16 -ctv f16)";

// Whether rows of this type can be written as ggml would.
bool written(int type) { return !is_quantised(dtype_of(type)) || quantiser(type); }

// Memory the CPU may touch, or memory that is still to be given out by the scheduler.
bool on_host(const Tensor& t) {
  const Tensor& whole = whole_of(t);
  return !whole.buffer || api().buft_is_host(whole.buffer->type);
}

// Null, or why this attention call stays with ggml.
const char* refuse(const Tensor& op) {
  const Tensor *q = op.src[0], *k = op.src[1], *v = op.src[2], *mask = op.src[3], *sinks = op.src[4];
  if (!q || !k || !v) return "a source is missing";
  if (!taken(k->type) || !taken(v->type)) return kType;
  if (k->type != v->type && !is_quantised(dtype_of(k->type)) && !is_quantised(dtype_of(v->type)))
    return "keys and values of different types, neither of them quantised";
  if (q->type != type_f32 || op.type != type_f32) return "queries or output not f32";
  if (k->view_src && k->view_src == v->view_src) return "values are a view of the keys (MLA)";
  if (q->nb[0] != 4 || k->nb[0] != unit_bytes(k->type) || v->nb[0] != unit_bytes(v->type)) return "channels do not lie side by side";
  if (q->ne[0] != k->ne[0] || q->ne[0] > 1024 || v->ne[0] > 1024) return "head_dim beyond 1024";
  if (k->ne[2] < 1 || q->ne[2] % k->ne[2] || k->ne[2] != v->ne[2] || k->ne[1] != v->ne[1]) return "head counts do not fit";
  if (q->ne[3] != k->ne[3] || q->ne[3] != v->ne[3]) return "stream counts do not fit";
  for (int i = 1; i < 4; ++i)
    if (q->nb[i] % 4 || k->nb[i] % unit_bytes(k->type) || v->nb[i] % unit_bytes(v->type)) return "odd strides";
  if (!mask) {
    if (q->ne[1] != 1) return "no mask: every row sees every key";
  } else {
    if (mask->type != type_f16 || mask->nb[0] != 2) return "a mask that is not f16";
    if (mask->ne[2] != 1) return "a mask per head";
    if (mask->ne[0] < k->ne[1] || mask->ne[1] < q->ne[1]) return "a mask smaller than the call";
    if (mask->ne[3] < 1 || q->ne[3] % mask->ne[3]) return "a mask for other streams";
  }
  if (sinks && (sinks->type != type_f32 || sinks->ne[0] != q->ne[2])) return "sinks not f32 [heads]";
  if (!on_host(*q) || !on_host(*k) || !on_host(*v)) return "keys or values in another device's memory";
  return nullptr;
}

}  // namespace

Claim claim_of(const Tensor& op, bool own_buffers, const char** why) {
  const auto& o = api().ops;
  if (op.op == o.none || op.op == o.view || op.op == o.reshape || op.op == o.permute || op.op == o.transpose)
    return Claim::nothing;
  if (op.op == o.flash_attn) {
    *why = refuse(op);
    return *why ? Claim::none : Claim::attend;
  }
  if (!own_buffers) return Claim::none;
  const bool to_cache = op.view_src && own_buffer(op) && is_cache_name(op.view_src->name);
  if (!to_cache) return Claim::none;
  if (op.op == o.set_rows && !taken(op.type)) {  // then the scheduler does not even ask about attention
    *why = kType;
    return Claim::none;
  }
  if (op.op == o.set_rows && !written(op.type)) {
    *why = kNoQuantiser;
    return Claim::none;
  }
  if (op.op == o.set_rows && op.src[0] && op.src[1]) {
    const Tensor &from = *op.src[0], &index = *op.src[1];
    const bool fits = from.type == type_f32 && from.nb[0] == 4 && taken(op.type) &&
                      (index.type == type_i64 || index.type == type_i32) && from.ne[2] == 1 && from.ne[3] == 1 &&
                      op.nb[0] == unit_bytes(op.type) && cache_of(op) && op.view_offs == 0 &&
                      op.ne[0] == op.view_src->ne[0] && op.nb[1] == op.view_src->nb[1];
    if (fits) return Claim::write_rows;
  }
  // A context shift rotates in place; quantised keys are rotated as floats and copied back.
  const bool shifts = op.op == o.rope || (op.op == o.cpy && taken(op.type) && is_quantised(dtype_of(op.type)));
  if (shifts && op.src[0] && taken(op.type) && cache_of(op)) return Claim::rotate;
  return Claim::none;
}

}  // namespace lacuna::ggml
