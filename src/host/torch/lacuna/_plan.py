# SPDX-License-Identifier: Apache-2.0
"""lacuna.Plan: what a call keeps, apart from the call. lacuna.plan makes one, lacuna.attend runs it."""
import dataclasses
import weakref

import torch

from . import _check
from . import _cuda
from . import _importers
from . import _lists
from ._attention import call, numbers, opened_by, visible
from ._ops import additive, readable, scale_of
from ._session import Session
from ._sessions import SHARED, handle_of


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What calls of one shape keep.

    words: int32 [n], the library's own form; checked whole whenever it is used.
    n_rows, n_keys: of the calls it is for.
    causal, mask: what rows may see at all: as for lacuna.attention, the mask as bool [B or 1, Nq, Nkv].
    source: where it comes from, for messages.
    lists: the same as block lists on a CUDA device, as to() makes them; None: it has none yet.

    Made by lacuna.plan, or from lists of other libraries by the class methods, which raise ValueError where a list is out of
    range and TypeError where it is no list of whole numbers."""

    words: torch.Tensor
    n_rows: int
    n_keys: int
    causal: bool = True
    mask: torch.Tensor | None = None
    source: str = "words"
    lists: _lists.Lists | None = None

    from_block_mask = classmethod(_importers.from_block_mask)
    from_fa4 = classmethod(_importers.from_fa4)
    from_bsr = classmethod(_importers.from_bsr)
    from_page_table = classmethod(_importers.from_page_table)
    from_map = classmethod(_importers.from_map)
    from_topk = classmethod(_importers.from_topk)
    from_block_lists = classmethod(_importers.from_block_lists)

    def to(self, device):
        """The plan with its lists on a CUDA device, for calls there: made on the CPU, moved in one copy. A plan without is given them by
        its first call on a device; inside of torch.compile and of a CUDA graph they must be there before.

        Raises ValueError where words, sizes and mask do not fit, RuntimeError for plans that have no such lists (made by a method under
        a mask)."""
        device = torch.device(device)
        if device.type == "cpu":
            return dataclasses.replace(self, lists=None) if self.words.numel() else self
        if device.type != "cuda":
            raise ValueError(f"device: got {device}, need cpu or a CUDA device")
        return dataclasses.replace(self, lists=_lists_on(self, torch.device("cuda", torch.cuda.current_device()) if device.index is None else device))

    def __repr__(self):
        seen = "causal" if self.causal else "all" if self.mask is None else "masked"
        return f"lacuna.Plan({self.source}: {self.n_rows} rows x {self.n_keys} keys, {seen}, {self.words.numel()} words)"


_made = weakref.WeakKeyDictionary()  # Plan -> {device: Lists}


def _lists_on(plan, device):
    """The plan's lists on a CUDA device, made when first asked for."""
    if plan.lists is not None and plan.lists.device in (device, None):
        return plan.lists
    if not plan.words.numel():
        raise ValueError(f"plan: its lists lie on {plan.lists.device} alone, the call is on {device}")
    if torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"plan: its lists are not on {device} yet; before torch.compile or a capture, call plan = plan.to('{device}')")
    lists = _made.setdefault(plan, {})
    if device not in lists:
        lists[device] = _lists.make(plan.words, plan.mask, plan.n_rows, plan.n_keys, plan.causal, device)
    return lists[device]


def _attend_on_cuda(q, k, v, plan, scale, return_lse):
    lists = _lists_on(plan, q.device)
    if lists.dense:
        out, lse, _ = torch.ops.lacuna.attention(q, k, v, None, None, None, "dense", SHARED, plan.causal, scale, 0.0, 0)
    else:
        batches, each = lists.row_ptr.shape[:2]
        if batches not in (1, q.shape[0]):
            raise ValueError(f"plan: of {batches} sequences, the batch has {q.shape[0]}")
        if each not in (1, k.shape[1], q.shape[1]):
            raise ValueError(f"plan: of {each} lists, need 1, {k.shape[1]} (KV heads) or {q.shape[1]} (query heads)")
        out, lse = torch.ops.lacuna.attention_lists(q, k, v, *lists.tensors, lists.counts, lists.pages, lists.block_q, lists.block_k,
                                                    lists.cells, plan.causal and plan.mask is None, scale)
    return (out, lse) if return_lse else out


def plan(q, k, v=None, method="dense", *, causal=None, mask=None, scale=None, softcap=0.0, precision=None, layer=0):
    """What `method` would keep in lacuna.attention(q, k, v, method, ...), as a Plan: to look at what repeats, to use it for
    several calls, or to hold it between forward and backward. Arguments and errors as there; v only gives its channels, and
    may be left out where they are k's. Not differentiable, and of a size that depends on the tensors: call it outside of
    torch.compile.

    CUDA tensors are copied to the CPU, and the method runs there: 2 * (Nq + Nkv) * D * heads bytes and the method's own time."""
    v = k if v is None else v
    _check.inputs(q, k, v)
    scale, softcap = numbers(scale, softcap)
    mask = mask.cpu() if q.is_cuda and isinstance(mask, torch.Tensor) else mask
    q, k, v = (t.detach().cpu() for t in (q, k, v)) if q.is_cuda else (q, k, v)
    causal, mask = visible(causal, mask, q, k)
    options, session = opened_by(method, precision, q)
    q, k, v = (readable(x.detach()) for x in (q.float(), k, v))
    words = torch.ops.lacuna._plan(q, k, v, additive(mask), handle_of(options, session), causal, scale_of(q, scale), softcap, layer)
    source = method.method if isinstance(method, Session) else method
    return Plan(words, q.shape[2], k.shape[2], causal, mask, source)


def attend(q, k, v, plan, *, scale=None, softcap=0.0, sinks=None, precision=None, session=None, layer=0, return_lse=False):
    """lacuna.attention that keeps what `plan` says. Differentiable; the other arguments, results and errors as there.

    session: a lacuna.Session whose report counts and audits the call; None = none does.
    On CUDA as lacuna.attention there; the plan's lists are moved to the device by the first call, or before by Plan.to.
    Raises ValueError where plan and tensors do not fit."""
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: got {type(plan).__name__}, need a lacuna.Plan, as lacuna.plan or Plan.from_... gives it")
    _check.inputs(q, k, v)
    if (q.shape[2], k.shape[2]) != (plan.n_rows, plan.n_keys):
        raise ValueError(f"plan: for {plan.n_rows} rows x {plan.n_keys} keys, the call has {q.shape[2]} x {k.shape[2]}")
    if plan.mask is not None and plan.mask.shape[0] not in (1, q.shape[0]):
        raise ValueError(f"plan: its mask is of {plan.mask.shape[0]} sequences, the batch has {q.shape[0]}")
    if q.is_cuda:
        _check.on_cuda(q, v, sinks=sinks, softcap=softcap, scale=scale, precision=precision, session=session)
        return _attend_on_cuda(q, k, v, plan, numbers(scale, softcap)[0], return_lse)
    if not plan.words.numel() and plan.lists is not None:
        raise ValueError(f"plan: its lists lie on {plan.lists.device} alone, q is on {q.device}")
    return call(q, k, v, session or "dense", plan.causal, plan.mask, scale, softcap, sinks, precision, layer, return_lse, plan.words)
