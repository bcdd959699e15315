# SPDX-License-Identifier: Apache-2.0
"""lacuna.attention: scaled dot product attention that a method thins out."""
import math

import torch

from . import _check
from . import _list_ops  # noqa: F401  defines torch.ops.lacuna.attention, and what it does with CUDA tensors
from ._session import Session
from ._sessions import SHARED


def numbers(scale, softcap):
    """Scale and soft-cap as the operators take them."""
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale: got {scale}, need a number; None = 1 / sqrt(head_dim)")
    if not 0 <= softcap < math.inf:
        raise ValueError(f"softcap: got {softcap}, need 0 (none) or more")
    return None if scale is None else float(scale), float(softcap)


def opened_by(method, precision, q):
    """The text that opens the method's session, and its number."""
    if isinstance(method, Session):
        if precision is not None:
            raise ValueError(f"precision: got '{precision}' beside a Session, which has its own; leave it out")
        return method.options, method.number
    if not isinstance(method, str):
        raise TypeError(f"method: got {type(method).__name__}, need a spec such as 'xattention:stride=8', or a lacuna.Session")
    if precision is None:
        precision = "high" if q.dtype == torch.float32 else "fast"
    return f"precision={precision} windowed=sparse {method}", SHARED


def visible(causal, mask, q, k):
    """(causal, mask [B, Nq, Nkv] or None) as the operators take them."""
    if mask is None:
        return causal is not False, None
    mask = _check.mask(mask, q, k)
    if causal:
        rows, cells = mask.shape[1:]
        mask = mask & torch.ones(rows, cells, dtype=torch.bool).tril(cells - rows)
    return False, mask


def call(q, k, v, method, causal, mask, scale, softcap, sinks, precision, layer, return_lse, plan=None):
    """The operator, on inputs that are checked."""
    scale, softcap = numbers(scale, softcap)
    if sinks is not None:
        _check.sinks(sinks, q)
    options, session = opened_by(method, precision, q)
    out, lse, _ = torch.ops.lacuna.attention(q, k, v, mask, sinks, plan, options, session, causal, scale, softcap, layer)
    return (out, lse) if return_lse else out


def attention(q, k, v, method="dense", *, causal=None, mask=None, scale=None, softcap=0.0, sinks=None, precision=None, layer=0,
              return_lse=False):
    """Softmax attention of which `method` leaves out what it holds to be unimportant. Differentiable; a selection is a
    constant.

    q: [B, Hq, Nq, Dk]; k: [B, Hkv, Nkv, Dk]; v: [B, Hkv, Nkv, Dv]; Hkv divides Hq. float32, float16 or bfloat16 on the CPU, float16
        or bfloat16 on a CUDA device (sm_80 or newer), of any strides; channels that do not lie side by side are copied, on CUDA also
        what is not aligned to 16 bytes or repeats (expand).
    method: a spec ("xattention:stride=8:mass=0.95"; `lacuna list` and docs/generated have all), or a lacuna.Session.
    causal: row i sees keys up to Nkv - Nq + i: the last row is aligned with the last key. Default: true without a mask.
    mask: bool [Nq, Nkv] or [B or 1, 1, Nq, Nkv], true = may be seen. Beside causal=True both must allow a key. Methods leave
        something out only where rows see their keys in order, as causal ones do.
    scale: factor of the scores; None = 1 / sqrt(Dk). softcap: scores become softcap * tanh(score / softcap); 0 = not.
    sinks: [Hq] logits of a key without a value that each row sees; None = none. Gets a gradient.
    precision: "high" = float32 throughout; "fast" = bfloat16 products where the machine has them. None: high for float32
        tensors, fast for the others.
    layer: for methods that treat the layers of a model differently.
    On CUDA: the methods of closed form (dense, streamingllm, trianglemix, powerattention), whose lists are made on the CPU and moved once
        for each shape; those that look at keys by way of lacuna.plan, which copies them. No mask (plans have theirs), sinks, soft-cap,
        Session or precision "high". Few rows (at most 16) take the decode kernel. Calls go to the current stream; a CUDA graph may hold
        them, once the same call has run before.
    Returns out [B, Hq, Nq, Dv] of q's type; with return_lse also lse [B, Hq, Nq] float32, the logarithm of each row's sum of
    exponentials. A row that sees nothing has out 0 and lse -infinity.

    Raises TypeError for types that do not fit, ValueError for shapes, values and names out of range, RuntimeError where a
    kernel or a method cannot do what is asked for; backward() raises RuntimeError where the method's plan has no gradient.
    """
    _check.inputs(q, k, v)
    if q.is_cuda:
        session = method if isinstance(method, Session) else None
        _check.on_cuda(q, v, mask=mask, sinks=sinks, softcap=softcap, scale=scale, precision=precision, session=session)
    causal, mask = visible(causal, mask, q, k)
    return call(q, k, v, method, causal, mask, scale, softcap, sinks, precision, layer, return_lse)
