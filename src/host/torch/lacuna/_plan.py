# SPDX-License-Identifier: Apache-2.0
"""lacuna.Plan: what a call keeps, apart from the call. lacuna.plan makes one, lacuna.attend runs it."""
import dataclasses

import torch

from . import _check
from . import _importers
from ._attention import call, numbers, opened_by, visible
from ._ops import additive, readable, scale_of
from ._session import Session
from ._sessions import handle_of


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What calls of one shape keep.

    words: int32 [n], the library's own form; checked whole whenever it is used.
    n_rows, n_keys: of the calls it is for.
    causal, mask: what rows may see at all: as for lacuna.attention, the mask as bool [B or 1, Nq, Nkv].
    source: where it comes from, for messages.

    Made by lacuna.plan, or from lists of other libraries by the class methods, which raise ValueError where a list is out of
    range and TypeError where it is no list of whole numbers."""

    words: torch.Tensor
    n_rows: int
    n_keys: int
    causal: bool = True
    mask: torch.Tensor | None = None
    source: str = "words"

    from_block_mask = classmethod(_importers.from_block_mask)
    from_fa4 = classmethod(_importers.from_fa4)
    from_bsr = classmethod(_importers.from_bsr)
    from_page_table = classmethod(_importers.from_page_table)
    from_map = classmethod(_importers.from_map)
    from_topk = classmethod(_importers.from_topk)

    def __repr__(self):
        seen = "causal" if self.causal else "all" if self.mask is None else "masked"
        return f"lacuna.Plan({self.source}: {self.n_rows} rows x {self.n_keys} keys, {seen}, {self.words.numel()} words)"


def plan(q, k, v=None, method="dense", *, causal=None, mask=None, scale=None, softcap=0.0, precision=None, layer=0):
    """What `method` would keep in lacuna.attention(q, k, v, method, ...), as a Plan: to look at what repeats, to use it for
    several calls, or to hold it between forward and backward. Arguments and errors as there; v only gives its channels, and
    may be left out where they are k's. Not differentiable, and of a size that depends on the tensors: call it outside of
    torch.compile."""
    v = k if v is None else v
    _check.inputs(q, k, v)
    scale, softcap = numbers(scale, softcap)
    causal, mask = visible(causal, mask, q, k)
    options, session = opened_by(method, precision, q)
    q, k, v = (readable(x.detach()) for x in (q.float(), k, v))
    words = torch.ops.lacuna._plan(q, k, v, additive(mask), handle_of(options, session), causal, scale_of(q, scale), softcap, layer)
    source = method.method if isinstance(method, Session) else method
    return Plan(words, q.shape[2], k.shape[2], causal, mask, source)


def attend(q, k, v, plan, *, scale=None, softcap=0.0, sinks=None, precision=None, session=None, layer=0, return_lse=False):
    """lacuna.attention that keeps what `plan` says. Differentiable; the other arguments, results and errors as there.

    session: a lacuna.Session whose report counts and audits the call; None = none does.
    Raises ValueError where plan and tensors do not fit."""
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: got {type(plan).__name__}, need a lacuna.Plan, as lacuna.plan or Plan.from_... gives it")
    _check.inputs(q, k, v)
    if (q.shape[2], k.shape[2]) != (plan.n_rows, plan.n_keys):
        raise ValueError(f"plan: for {plan.n_rows} rows x {plan.n_keys} keys, the call has {q.shape[2]} x {k.shape[2]}")
    if plan.mask is not None and plan.mask.shape[0] not in (1, q.shape[0]):
        raise ValueError(f"plan: its mask is of {plan.mask.shape[0]} sequences, the batch has {q.shape[0]}")
    return call(q, k, v, session or "dense", plan.causal, plan.mask, scale, softcap, sinks, precision, layer, return_lse, plan.words)
