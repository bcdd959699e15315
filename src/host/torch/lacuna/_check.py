# SPDX-License-Identifier: Apache-2.0
"""What callers may hand over. Every refusal names the value, what is allowed, and what to do."""
import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_CHANNELS = 1024
CUDA_CHANNELS = 256


def tensor(name, t):
    """A strided tensor of the CPU, or of a CUDA device."""
    if not isinstance(t, torch.Tensor):
        raise TypeError(f"{name}: got {type(t).__name__}, need a torch.Tensor")
    if t.layout is not torch.strided:
        raise TypeError(f"{name}: layout {t.layout}, need a dense tensor: call .to_dense()")
    if t.device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{name} is on {t.device}: lacuna works on the CPU and on CUDA devices; call .cpu(), or keep another attention "
                         "for this device")


def inputs(q, k, v):
    """q [B, Hq, Nq, Dk], k [B, Hkv, Nkv, Dk], v [B, Hkv, Nkv, Dv] of one type."""
    for name, t in (("q", q), ("k", k), ("v", v)):
        tensor(name, t)
        if t.dim() != 4:
            raise ValueError(f"{name}: shape {list(t.shape)}, need 4 dimensions [batch, heads, tokens, channels]")
        if t.dtype not in DTYPES:
            raise TypeError(f"{name}: {t.dtype}, need float32, float16 or bfloat16: call .float()")
    if not q.device == k.device == v.device:
        raise ValueError(f"q is on {q.device}, k on {k.device}, v on {v.device}: need one device; move with .to({str(q.device)!r})")
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"q is {q.dtype}, k {k.dtype}, v {v.dtype}: need one type; convert with .to({q.dtype})")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(f"batch: q has {q.shape[0]}, k {k.shape[0]}, v {v.shape[0]}: need one; expand() repeats without a copy")
    if k.shape[1] != v.shape[1] or k.shape[2] != v.shape[2]:
        raise ValueError(f"k has {k.shape[1]} heads x {k.shape[2]} tokens, v {v.shape[1]} x {v.shape[2]}: they must agree")
    if q.shape[1] < 1 or k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads over {k.shape[1]} KV heads: need a multiple of the KV heads, 1 or more")
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"head_dim: q has {q.shape[3]}, k {k.shape[3]}: they must agree")
    for name, t in (("q", q), ("v", v)):
        if not 1 <= t.shape[3] <= MOST_CHANNELS:
            raise ValueError(f"{name}: head_dim {t.shape[3]}, need 1..{MOST_CHANNELS}: no kernel takes others")


def on_cuda(q, v, *, mask=None, sinks=None, softcap=0.0, scale=None, precision=None, session=None):
    """What the CUDA kernels do not take, beside what inputs() refuses."""
    if q.dtype == torch.float32:
        raise TypeError(f"q is float32 on {q.device}: the CUDA kernels take float16 and bfloat16; call .bfloat16() on q, k and v")
    for name, t in (("q", q), ("v", v)):
        if t.shape[3] > CUDA_CHANNELS:
            raise ValueError(f"{name}: head_dim {t.shape[3]} on {q.device}, need 1..{CUDA_CHANNELS}: no CUDA kernel takes others")
    if mask is not None:
        raise ValueError(f"mask: beside tensors on {q.device} masks come with a plan: lacuna.Plan.from_block_mask(...), then lacuna.attend")
    for name, given in (("sinks", sinks is not None), ("softcap", softcap != 0)):
        if given:
            raise ValueError(f"{name}: the CUDA kernels have none; leave it out, or call .cpu() on q, k and v")
    if scale is not None and not 0 < scale < float("inf"):
        raise ValueError(f"scale: got {scale} on {q.device}, need a number above 0; None = 1 / sqrt(head_dim)")
    if precision not in (None, "fast"):
        raise ValueError(f"precision: got '{precision}' on {q.device}, need 'fast' or None: products are of 16-bit numbers there, sums float32")
    if session is not None:
        raise ValueError(f"a Session counts and audits calls on the CPU only so far, q is on {q.device}: give the method's spec "
                         "(lacuna.attention) or leave out session (lacuna.attend)")


def mask(m, q, k):
    """A mask as [B or 1, Nq, Nkv], true = may be seen."""
    tensor("mask", m)
    if m.device != q.device:
        raise ValueError(f"mask is on {m.device}, q on {q.device}: need one device")
    if m.dtype != torch.bool:
        raise TypeError(f"mask: {m.dtype}, need bool (true = may be seen); numbers to add to scores are not taken here")
    batch, rows, cells = q.shape[0], q.shape[2], k.shape[2]
    if m.dim() == 2:
        m = m[None, None]
    if m.dim() != 4 or m.shape[0] not in (1, batch) or m.shape[1] != 1 or m.shape[2] != rows or m.shape[3] != cells:
        raise ValueError(f"mask: shape {list(m.shape)}, need [{rows}, {cells}] or [{batch} or 1, 1, {rows}, {cells}]: one for all heads")
    return m[:, 0]


def sinks(s, q):
    tensor("sinks", s)
    if s.device != q.device:
        raise ValueError(f"sinks is on {s.device}, q on {q.device}: need one device")
    if s.dim() != 1 or s.shape[0] != q.shape[1]:
        raise ValueError(f"sinks: shape {list(s.shape)}, need [{q.shape[1]}], a logit for each query head")
    if not s.dtype.is_floating_point:
        raise TypeError(f"sinks: {s.dtype}, need floating point")
