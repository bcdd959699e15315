# SPDX-License-Identifier: Apache-2.0
"""Calls of the CUDA kernels: their library, loaded when first needed; scratch memory from PyTorch's allocator; and the lists of
methods of closed form, made once for each shape."""
import collections
import ctypes
import functools
import pathlib
import threading

import torch

from . import _lists
from ._library import LIBRARY, error

NAME = "_lacuna_cuda.so"
DECODE_ROWS = 16  # at most that many query rows go to the decode kernel
MOST_SHAPES = 256  # lists that are kept for calls to come

_lock = threading.Lock()
_kept = collections.OrderedDict()  # (device, rows, keys, causal, words) -> Lists; those used last stand last
_captured = {}  # the same for calls that a CUDA graph holds: never given up, the graph may run at any time


@functools.cache
def library():
    """The kernels' library; torch.ops.lacuna._cuda_... are there from then on.

    Raises RuntimeError where the package was built without it."""
    path = pathlib.Path(__file__).with_name(NAME)
    if not path.is_file():
        raise RuntimeError(f"lacuna: {NAME} is missing beside {__file__}: the package was built without CUDA; where there is an nvcc, run "
                           "'pip install . -C cmake.define.LACUNA_CUDA=ON' in Lacuna's source tree, or call .cpu() on q, k and v")
    torch.ops.load_library(str(path))
    loaded = ctypes.CDLL(str(path))
    loaded.lacuna_torch_words_of.restype, loaded.lacuna_torch_words_of.argtypes = ctypes.c_char_p, [ctypes.c_uint32]
    return loaded


@functools.lru_cache(4096)
def words_of_shape(options, layer, heads, kv_heads, rows, keys, head_dim, causal):
    """The words of what a method keeps in calls of a shape, as bytes.

    Raises ValueError for bad options, RuntimeError where the method looks at keys."""
    found = ctypes.POINTER(ctypes.c_int32)()
    n = LIBRARY.lacuna_torch_plan_of_shape(options.encode(), layer, heads, kv_heads, rows, keys, head_dim, causal, ctypes.byref(found))
    if n == -2:
        raise RuntimeError(f"lacuna: {error()}. It has no estimator on the GPU yet: make a plan from copies on the CPU, "
                           "plan = lacuna.plan(q, k, v, method), and call lacuna.attend(q, k, v, plan)")
    if n < 0:
        raise ValueError(f"lacuna: {error()}")
    return ctypes.string_at(found, 4 * n)


def lists_of_shape(q, k, causal, options, layer):
    """The Lists on q's device of a method of closed form."""
    rows, keys = q.shape[2], k.shape[2]
    words = words_of_shape(options, layer, q.shape[1], k.shape[1], rows, keys, q.shape[3], causal)
    key = (q.device, rows, keys, causal, words)
    capturing = torch.cuda.is_current_stream_capturing()
    with _lock:
        lists = _captured.get(key) or _kept.get(key)
        if lists is None:
            plan = torch.frombuffer(bytearray(words), dtype=torch.int32)
            if capturing and not _lists.make(plan, None, rows, keys, causal, "cpu").dense:
                raise RuntimeError(f"lacuna: the lists of this method for {rows} rows x {keys} keys are not on {q.device} yet, and a CUDA graph "
                                   "cannot copy them there: run the call once before the capture")
            lists = _lists.make(plan, None, rows, keys, causal, q.device)
            _kept[key] = lists
            if len(_kept) > MOST_SHAPES:
                _kept.popitem(last=False)
        elif key in _kept:
            _kept.move_to_end(key)
        if capturing:
            _captured[key] = lists
    if not capturing and lists.row_ptr is not None:  # its memory is of the stream that made it
        lists.row_ptr.record_stream(torch.cuda.current_stream(q.device))
    return lists


def _aligned(t):
    """t as the fast kernels read it: channels side by side, the rest at positive multiples of 16 bytes; itself, or a copy."""
    good = t.data_ptr() % 16 == 0 and (t.shape[3] <= 1 or t.stride(3) == 1)
    good = good and all(n <= 1 or (s > 0 and s % 8 == 0) for n, s in zip(t.shape[:3], t.stride()[:3]))
    return t if good else t.clone(memory_format=torch.contiguous_format)


def _work(q):
    return torch.zeros(2, dtype=torch.int32, device=q.device)


def _pages_of(lists, q, k):
    """(counts, pages) for each sequence, where the decode kernel takes such lists; else None."""
    if lists.counts is None or lists.counts.shape[1] not in (1, k.shape[1]):
        return None
    return tuple(t.expand(q.shape[0], *t.shape[1:]).contiguous() for t in (lists.counts, lists.pages))


def _decode(q, k, v, out, lse, lists, causal, scale):
    """Whether the decode kernel took the call."""
    pages = (None, None) if lists.dense else _pages_of(lists, q, k)
    if q.shape[2] > DECODE_ROWS or pages is None:
        return False
    n = torch.ops.lacuna._cuda_decode_work(q, k, v, out, *pages, lists.cells, causal, scale)
    if n < 0:
        return False
    work = torch.zeros(n, dtype=torch.uint8, device=q.device)
    torch.ops.lacuna._cuda_decode(q, k, v, out, lse, work, *pages, lists.cells, causal, scale)
    return True


def forward(q, k, v, lists, causal, scale):
    """(out, lse) of a call."""
    library()
    out = q.new_empty((*q.shape[:3], v.shape[3]))
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    if 0 in (*out.shape, k.shape[2]):
        return out.zero_(), lse.fill_(float("-inf"))
    q, k, v = (_aligned(t) for t in (q, k, v))
    if not _decode(q, k, v, out, lse, lists, causal, scale):
        torch.ops.lacuna._cuda_prefill(q, k, v, out, lse, _work(q), *lists.tensors, lists.block_q, lists.block_k, causal, scale)
    return out, lse


def _inverse(lists, k):
    """Room for the lists by keys: src/host/torch/cuda/ops.cpp has the same sum."""
    if lists.dense:
        return None
    each = lists.row_ptr.shape[0] * lists.row_ptr.shape[1]
    blocks, entries = -(-k.shape[2] // lists.block_k), lists.columns.numel()
    n = each * (blocks + 1) + entries * (1 if lists.bits is None else 2) + each * 16 * blocks
    return torch.empty(n, dtype=torch.int32, device=k.device)


def backward(d_out, d_lse, q, k, v, out, lse, lists, causal, scale):
    """(d_q, d_k, d_v) of a call."""
    library()
    d_q, d_k, d_v = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    if 0 in (*out.shape, k.shape[2]):
        return d_q.zero_(), d_k.zero_(), d_v.zero_()
    q, k, v, d_out, out = (_aligned(t) for t in (q, k, v, d_out.to(q.dtype), out))
    rows = torch.empty(2 * q.shape[0] * q.shape[1] * -(-q.shape[2] // 128) * 128, dtype=torch.float32, device=q.device)
    torch.ops.lacuna._cuda_grad(d_out, None if d_lse is None else d_lse.float().contiguous(), q, k, v, out, lse.contiguous(), _work(q), rows,
                                _inverse(lists, k), *lists.tensors, lists.block_q, lists.block_k, causal, scale, d_q, d_k, d_v)
    return d_q, d_k, d_v


def check_lists(lists, batch, heads, rows, keys):
    """Raises ValueError where lists on a GPU name what is not there. Waits for the GPU."""
    words = library()
    found = torch.zeros(1, dtype=torch.int32, device=lists.device)
    q = lists.columns.new_empty((batch, heads, rows, 0))  # a shape alone
    torch.ops.lacuna._cuda_list_error(q, *lists.tensors, lists.block_q, lists.block_k, keys, found)
    if wrong := found.item():
        raise ValueError(f"block lists: {words.lacuna_torch_words_of(wrong).decode()}")
