# SPDX-License-Identifier: Apache-2.0
"""The operators that graphs hold:

    lacuna::attention           (q, k, v, mask?, sinks?, plan?, options, session, causal, scale?, softcap, layer)
                                -> out [B, Hq, Nq, Dv] of q's type, lse [B, Hq, Nq] float32, number [B] int64
    lacuna::attention_backward  (d_out, d_lse?, q, k, v, out, lse, number, mask?, sinks?, plan?, the same rest)
                                -> d_q, d_k, d_v, d_sinks

Functional, of static shapes. Without a plan the method makes one in forward and, from the same tensors, once more in
backward; `number` tells that both are the same, else backward is an error. They allocate and convert; the compiled
operators (ops.cpp) work on memory as it lies.
"""
import math

import torch

from ._library import LIBRARY  # noqa: F401  loads the operators
from ._sessions import handle_of

_REST = "Tensor? mask, Tensor? sinks, Tensor? plan, str options, int session, bool causal, float? scale, float softcap, int layer"
definitions = torch.library.Library("lacuna", "FRAGMENT")
definitions.define(f"attention(Tensor q, Tensor k, Tensor v, {_REST}) -> (Tensor, Tensor, Tensor)")
definitions.define("attention_backward(Tensor d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
                    f"Tensor number, {_REST}) -> (Tensor, Tensor, Tensor, Tensor)")


def readable(t):
    """t with its channels side by side, as the library reads them: itself, or a copy."""
    return t if t.shape[-1] <= 1 or t.stride(-1) == 1 else t.contiguous()


def additive(mask):
    """A bool mask [B, Nq, Nkv] as the library has it: float16, 0 and -infinity."""
    return None if mask is None else torch.zeros(mask.shape, dtype=torch.float16).masked_fill_(~mask, float("-inf"))


def scale_of(q, scale):
    return 1.0 / math.sqrt(q.shape[3]) if scale is None else scale


def floats(t):
    return None if t is None else t.float().contiguous()


def _new_outputs(q, v, dtype):
    batch, heads, rows = q.shape[:3]
    return (q.new_empty((batch, heads, rows, v.shape[3]), dtype=dtype), q.new_empty((batch, heads, rows), dtype=torch.float32),
            q.new_zeros((batch,), dtype=torch.int64))


@torch.library.impl("lacuna::attention", "cpu", lib=definitions)
def _attention(q, k, v, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    out, lse, number = _new_outputs(q, v, torch.float32)
    torch.ops.lacuna._attend(readable(q.float()), readable(k), readable(v), out, lse, number, additive(mask), floats(sinks), plan,
                             handle_of(options, session), causal, scale_of(q, scale), softcap, layer)
    return out.to(q.dtype), lse, number


@torch.library.register_fake("lacuna::attention", lib=definitions)
def _attention_fake(q, k, v, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    return _new_outputs(q, v, q.dtype)


@torch.library.impl("lacuna::attention_backward", "cpu", lib=definitions)
def _attention_backward(d_out, d_lse, q, k, v, out, lse, number, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    d_q, d_k, d_v = (torch.empty(t.shape, dtype=torch.float32) for t in (q, k, v))
    d_sinks = torch.zeros((q.shape[0], q.shape[1]), dtype=torch.float32)
    torch.ops.lacuna._attend_grad(readable(d_out.float()), floats(d_lse), readable(q.float()), readable(k), readable(v), floats(out),
                                  lse.contiguous(), number, additive(mask), floats(sinks), plan, handle_of(options, session), causal,
                                  scale_of(q, scale), softcap, layer, d_q, d_k, d_v, None if sinks is None else d_sinks)
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), d_sinks.sum(0) if sinks is None else d_sinks.sum(0).to(sinks.dtype)


@torch.library.register_fake("lacuna::attention_backward", lib=definitions)
def _attention_backward_fake(d_out, d_lse, q, k, v, out, lse, number, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    d_q, d_k, d_v = (t.new_empty(t.shape) for t in (q, k, v))
    return d_q, d_k, d_v, q.new_empty((q.shape[1],), dtype=torch.float32 if sinks is None else sinks.dtype)


def _save(ctx, inputs, output):
    q, k, v, mask, sinks, plan = inputs[:6]
    out, lse, number = output
    ctx.save_for_backward(q, k, v, out, lse, number, mask, sinks, plan)
    ctx.rest = inputs[6:]
    ctx.set_materialize_grads(False)


def _backward(ctx, d_out, d_lse, _):
    q, k, v, out, lse, number, mask, sinks, plan = ctx.saved_tensors
    if d_out is None:
        d_out = torch.zeros_like(out)
    d_q, d_k, d_v, d_sinks = torch.ops.lacuna.attention_backward(d_out, d_lse, q, k, v, out, lse, number, mask, sinks, plan, *ctx.rest)
    return d_q, d_k, d_v, None, None if sinks is None else d_sinks, None, None, None, None, None, None, None


def _no_second(ctx, *_):
    raise RuntimeError("lacuna.attention has no second derivative; leave out create_graph=True")


torch.library.register_autograd("lacuna::attention", _backward, setup_context=_save, lib=definitions)
torch.library.register_autograd("lacuna::attention_backward", _no_second, lib=definitions)
