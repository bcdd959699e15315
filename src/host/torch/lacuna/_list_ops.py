# SPDX-License-Identifier: Apache-2.0
"""The operators of CUDA tensors: those of _ops.py for methods of closed form, and two more for lists of blocks on the device:

    lacuna::attention_lists           (q, k, v, row_ptr, columns, bits?, words?, counts?, pages?, block_q, block_k, cells, causal, scale?)
                                      -> out [B, Hq, Nq, Dv] of q's type, lse [B, Hq, Nq] float32
    lacuna::attention_lists_backward  (d_out, d_lse?, q, k, v, out, lse, the same rest) -> d_q, d_k, d_v

The lists are operands like any other (_lists.py has their shapes), so graphs and captures hold them.
"""
import torch

from . import _cuda
from ._lists import Lists
from ._ops import definitions, scale_of

_REST = ("Tensor row_ptr, Tensor columns, Tensor? bits, Tensor? words, Tensor? counts, Tensor? pages, int block_q, int block_k, int cells, "
         "bool causal, float? scale")
definitions.define(f"attention_lists(Tensor q, Tensor k, Tensor v, {_REST}) -> (Tensor, Tensor)")
definitions.define("attention_lists_backward(Tensor d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
                   f"{_REST}) -> (Tensor, Tensor, Tensor)")


def _refuse(mask, sinks, plan, softcap):
    """What lacuna.attention has refused by name before; graphs made elsewhere may still ask for it."""
    for name, given in (("mask", mask is not None), ("sinks", sinks is not None), ("plan", plan is not None), ("softcap", softcap != 0)):
        if given:
            raise RuntimeError(f"lacuna::attention: {name} beside CUDA tensors: the CUDA kernels have none")


@torch.library.impl("lacuna::attention", "cuda", lib=definitions)
def _attention(q, k, v, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    _refuse(mask, sinks, plan, softcap)
    lists = _cuda.lists_of_shape(q, k, causal, options, layer)
    out, lse = _cuda.forward(q, k, v, lists, causal, scale_of(q, scale))
    return out, lse, q.new_zeros((q.shape[0],), dtype=torch.int64)


@torch.library.impl("lacuna::attention_backward", "cuda", lib=definitions)
def _attention_backward(d_out, d_lse, q, k, v, out, lse, number, mask, sinks, plan, options, session, causal, scale, softcap, layer):
    _refuse(mask, sinks, plan, softcap)
    lists = _cuda.lists_of_shape(q, k, causal, options, layer)
    gradients = _cuda.backward(d_out, d_lse, q, k, v, out, lse, lists, causal, scale_of(q, scale))
    return *gradients, q.new_zeros((q.shape[1],), dtype=torch.float32)


@torch.library.impl("lacuna::attention_lists", "cuda", lib=definitions)
def _attention_lists(q, k, v, row_ptr, columns, bits, words, counts, pages, block_q, block_k, cells, causal, scale):
    lists = Lists(row_ptr, columns, bits, words, counts, pages, block_q, block_k, cells)
    return _cuda.forward(q, k, v, lists, causal, scale_of(q, scale))


@torch.library.register_fake("lacuna::attention_lists", lib=definitions)
def _attention_lists_fake(q, k, v, row_ptr, columns, bits, words, counts, pages, block_q, block_k, cells, causal, scale):
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.impl("lacuna::attention_lists_backward", "cuda", lib=definitions)
def _attention_lists_backward(d_out, d_lse, q, k, v, out, lse, row_ptr, columns, bits, words, counts, pages, block_q, block_k, cells, causal,
                              scale):
    lists = Lists(row_ptr, columns, bits, words, counts, pages, block_q, block_k, cells)
    return _cuda.backward(d_out, d_lse, q, k, v, out, lse, lists, causal, scale_of(q, scale))


@torch.library.register_fake("lacuna::attention_lists_backward", lib=definitions)
def _attention_lists_backward_fake(d_out, d_lse, q, k, v, *rest):
    return tuple(t.new_empty(t.shape) for t in (q, k, v))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3], *output, *inputs[3:9])
    ctx.rest = inputs[9:]
    ctx.set_materialize_grads(False)


def _backward(ctx, d_out, d_lse):
    q, k, v, out, lse, *lists = ctx.saved_tensors
    if d_out is None:
        d_out = torch.zeros_like(out)
    gradients = torch.ops.lacuna.attention_lists_backward(d_out, d_lse, q, k, v, out, lse, *lists, *ctx.rest)
    return *gradients, *[None] * 11


def _no_second(ctx, *_):
    raise RuntimeError("lacuna.attend has no second derivative; leave out create_graph=True")


torch.library.register_autograd("lacuna::attention_lists", _backward, setup_context=_save, lib=definitions)
torch.library.register_autograd("lacuna::attention_lists_backward", _no_second, lib=definitions)
