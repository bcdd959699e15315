# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from torch import Tensor, device
from torch.nn.attention.flex_attention import BlockMask

__version__: str
__all__: list[str]

class Loss:
    mean: float
    upper: float
    p95: float
    max: float
    rows: int
    def __init__(self, mean: float, upper: float, p95: float, max: float, rows: int) -> None: ...

class Recall:
    mean: float
    lower: float
    rows: int
    def __init__(self, mean: float, lower: float, rows: int) -> None: ...

class Phase:
    calls: int
    density: float
    kv_bytes: float
    seconds: dict[str, float]
    lost_mass: Loss
    output_error: Loss
    top_recall: Recall
    def __init__(self, calls: int, density: float, kv_bytes: float, seconds: dict[str, float], lost_mass: Loss, output_error: Loss,
                 top_recall: Recall) -> None: ...

class Promise:
    state: str
    mean: float
    upper: float
    heads: int
    dense_heads: int
    widened_layers: int
    def __init__(self, state: str, mean: float, upper: float, heads: int, dense_heads: int, widened_layers: int) -> None: ...

class Contract:
    limit: float
    of: str
    prefill: Promise
    decode: Promise
    def __init__(self, limit: float, of: str, prefill: Promise, decode: Promise) -> None: ...

class Report:
    method: str
    kernel: str
    machine: str
    note: str
    prefill: Phase
    decode: Phase
    contract: Contract | None
    json: dict[str, Any]
    def __init__(self, method: str, kernel: str, machine: str, note: str, prefill: Phase, decode: Phase, contract: Contract | None,
                 json: dict[str, Any]) -> None: ...

class Session:
    method: str
    options: str
    number: int
    def __init__(self, method: str = "dense", *, audit: Literal["off", "sample", "full"] = "off", max_loss: float | None = None,
                 max_error: float | None = None, precision: Literal["fast", "high"] = "fast", windowed: bool = True,
                 options: str = "") -> None: ...
    def report(self) -> Report: ...
    def reset_report(self) -> None: ...
    def announce(self, n_layers: int, prompt_tokens: int = -1) -> None: ...

class Plan:
    words: Tensor
    n_rows: int
    n_keys: int
    causal: bool
    mask: Tensor | None
    source: str
    lists: Any | None
    def __init__(self, words: Tensor, n_rows: int, n_keys: int, causal: bool = True, mask: Tensor | None = None,
                 source: str = "words", lists: Any | None = None) -> None: ...
    def to(self, device: str | device) -> Plan: ...
    @classmethod
    def from_block_mask(cls, block_mask: BlockMask) -> Plan: ...
    @classmethod
    def from_fa4(cls, mask_block_cnt: Tensor, mask_block_idx: Tensor, full_block_cnt: Tensor | None = None,
                 full_block_idx: Tensor | None = None, *, n_rows: int, n_keys: int, block_q: int = 128, block_k: int = 128,
                 mask_mod: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None) -> Plan: ...
    @classmethod
    def from_bsr(cls, indptr: Tensor | Sequence[int], indices: Tensor | Sequence[int] | Sequence[Tensor], *, n_rows: int, n_keys: int,
                 block_q: int, block_k: int, causal: bool = False) -> Plan: ...
    @classmethod
    def from_page_table(cls, kv_indptr: Tensor | Sequence[int], kv_indices: Tensor | Sequence[int],
                        kv_last_page_len: Tensor | Sequence[int], *, page_size: int, n_pages: int, n_rows: int = 1) -> Plan: ...
    @classmethod
    def from_map(cls, kept: Tensor, *, n_rows: int, n_keys: int, block_q: int = 128, block_k: int = 64,
                 causal: bool = True) -> Plan: ...
    @classmethod
    def from_topk(cls, indices: Tensor, *, n_rows: int, n_keys: int, block_q: int = 1, block_k: int = 1,
                  causal: bool = True) -> Plan: ...
    @classmethod
    def from_block_lists(cls, row_ptr: Tensor, columns: Tensor, *, n_rows: int, n_keys: int, block_q: int = 128, block_k: int = 128,
                         causal: bool = True, bits: Tensor | None = None, words: Tensor | None = None) -> Plan: ...

@overload
def attention(q: Tensor, k: Tensor, v: Tensor, method: str | Session = "dense", *, causal: bool | None = None,
              mask: Tensor | None = None, scale: float | None = None, softcap: float = 0.0, sinks: Tensor | None = None,
              precision: Literal["fast", "high"] | None = None, layer: int = 0, return_lse: Literal[False] = False) -> Tensor: ...
@overload
def attention(q: Tensor, k: Tensor, v: Tensor, method: str | Session = "dense", *, causal: bool | None = None,
              mask: Tensor | None = None, scale: float | None = None, softcap: float = 0.0, sinks: Tensor | None = None,
              precision: Literal["fast", "high"] | None = None, layer: int = 0,
              return_lse: Literal[True]) -> tuple[Tensor, Tensor]: ...
@overload
def attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, *, scale: float | None = None, softcap: float = 0.0,
           sinks: Tensor | None = None, precision: Literal["fast", "high"] | None = None, session: Session | None = None,
           layer: int = 0, return_lse: Literal[False] = False) -> Tensor: ...
@overload
def attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, *, scale: float | None = None, softcap: float = 0.0,
           sinks: Tensor | None = None, precision: Literal["fast", "high"] | None = None, session: Session | None = None,
           layer: int = 0, return_lse: Literal[True]) -> tuple[Tensor, Tensor]: ...
def plan(q: Tensor, k: Tensor, v: Tensor | None = None, method: str | Session = "dense", *, causal: bool | None = None,
         mask: Tensor | None = None, scale: float | None = None, softcap: float = 0.0,
         precision: Literal["fast", "high"] | None = None, layer: int = 0) -> Plan: ...
def register_transformers(method: str = "dense", *, name: str = "lacuna", audit: Literal["off", "sample", "full"] = "off",
                          max_loss: float | None = None, max_error: float | None = None,
                          precision: Literal["fast", "high"] = "fast", windowed: bool = True, options: str = "") -> Session: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
