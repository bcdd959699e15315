#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lacuna's attention beside PyTorch's on a CPU, in turn in one process, as a table and as JSON in bench/results/<processor>/:

  bench/peers/torch_cpu.py      needs torch 2.13 (a CPU build will do): pip install torch==2.13.0

Dense causal calls beside scaled_dot_product_attention; a window with sinks beside FlexAttention, compiled, with the same mask.
PyTorch reads q, k, v in bf16 and writes bf16; Lacuna reads q in f32, k and v in bf16, packs them anew in every call, and
writes f32. LACUNA_BUILD (build/release), OUT_DIR (bench/results), THREADS (2) and ROUNDS (7) say where and how.
"""
import ctypes
import datetime
import json
import os
import pathlib
import statistics
import sys
import time

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import ROOT, commit, processor, results  # noqa: E402

BUILD = pathlib.Path(os.environ.get("LACUNA_BUILD", ROOT / "build/release"))
THREADS, ROUNDS = int(os.environ.get("THREADS", "2")), int(os.environ.get("ROUNDS", "7"))

# Hq, Hkv, D, Nq, Nkv, and sinks and window of the mask (0: dense).
CASES = [
    (32, 8, 128, 512, 8192, 0, 0),
    (32, 8, 128, 2048, 8192, 0, 0),
    (9, 3, 64, 512, 8192, 0, 0),
    (9, 3, 64, 2048, 8192, 0, 0),
    (8, 2, 128, 8192, 8192, 128, 2048),
    (8, 2, 128, 8192, 8192, 128, 384),
]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("n", ctypes.c_int64 * 4), ("stride", ctypes.c_int64 * 4)]

    @classmethod
    def of(cls, t):
        kind = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}[t.dtype]
        four = ctypes.c_int64 * 4
        return cls(t.data_ptr(), kind, four(*t.shape), four(*t.stride()))


class Call(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("layer", ctypes.c_int32), ("q", Tensor), ("k", Tensor), ("v", Tensor), ("out", Tensor),
                ("lse", ctypes.c_void_p), ("scale", ctypes.c_float), ("softcap", ctypes.c_float), ("sinks", ctypes.c_void_p),
                ("mask", ctypes.c_void_p), ("mask_row_stride", ctypes.c_int64), ("mask_row_cell", ctypes.c_void_p),
                ("mask_cell_pos", ctypes.c_void_p), ("slopes", ctypes.c_void_p)]


def library():
    lib = ctypes.CDLL(str(BUILD / "liblacuna.so"))
    lib.lacuna_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
    lib.lacuna_attend.argtypes = [ctypes.c_void_p, ctypes.POINTER(Call)]
    lib.lacuna_close.argtypes = [ctypes.c_void_p]
    lib.lacuna_last_error.argtypes, lib.lacuna_last_error.restype = [ctypes.c_void_p], ctypes.c_char_p
    lib.lacuna_report_json.argtypes, lib.lacuna_report_json.restype = [ctypes.c_void_p], ctypes.c_char_p
    return lib


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(lib, flex, case):
    hq, hkv, d, nq, nkv, sink, window = case
    generator = torch.Generator().manual_seed(1)
    # Heads of a token side by side, as caches and projections have them.
    q, k, v = (torch.randn(1, n, h, d, generator=generator).transpose(1, 2) for n, h in ((nq, hq), (nkv, hkv), (nkv, hkv)))
    bf = [x.to(torch.bfloat16) for x in (q, k, v)]
    q = bf[0].float()  # both see the same numbers
    out = torch.empty(1, nq, hq, d).transpose(1, 2)
    handle = ctypes.c_void_p()
    spec = f"streamingllm:sink={sink}:window={window}" if window else "dense"
    if lib.lacuna_open(f"{spec} precision=fast audit=off threads={THREADS}".encode(), ctypes.byref(handle)):
        sys.exit(f"error: {lib.lacuna_last_error(None).decode()}")
    call = Call(size=ctypes.sizeof(Call), q=Tensor.of(q), k=Tensor.of(bf[1]), v=Tensor.of(bf[2]), out=Tensor.of(out))

    def ours():
        if lib.lacuna_attend(handle, ctypes.byref(call)):
            sys.exit(f"error: {lib.lacuna_last_error(handle).decode()}")

    if window:
        first = nkv - nq

        def keeps(b, h, i, j):
            return (j <= i + first) & ((j < sink) | (j > i + first - window))

        mask = create_block_mask(keeps, None, None, nq, nkv, device="cpu")
        name = "FlexAttention"
        theirs = lambda: flex(*bf, block_mask=mask, enable_gqa=True)
    else:
        name = "scaled_dot_product_attention"
        # is_causal aligns the first row with the first key; chunks of a prompt need the last ones aligned.
        mask = torch.ones(nq, nkv, dtype=torch.bool).tril(nkv - nq) if nq != nkv else None
        theirs = lambda: torch.nn.functional.scaled_dot_product_attention(*bf, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
    with torch.inference_mode():
        result = theirs()
        ours()
        difference = (result.float() - out).abs().max().item()
        if not difference < 0.05:
            sys.exit(f"error: results differ by {difference}: not the same mask")
        report = json.loads(lib.lacuna_report_json(handle))
        mine, his = [], []
        for _ in range(ROUNDS):
            mine.append(seconds(ours))
            his.append(seconds(theirs))
    lib.lacuna_close(handle)
    return {"hq": hq, "hkv": hkv, "d": d, "nq": nq, "nkv": nkv, "sink": sink, "window": window,
            "density": report["prefill"]["density"], "peer": name, "difference": difference,
            "ours_ms": statistics.median(mine) * 1e3, "peer_ms": statistics.median(his) * 1e3,
            "ratio": statistics.median(his) / statistics.median(mine)}


def main():
    torch.set_num_threads(THREADS)
    lib, flex = library(), torch.compile(flex_attention, dynamic=False)
    out = results()
    lines = ["bench/peers/torch_cpu.py",
             f"commit {commit()}; {datetime.date.today()}; {os.cpu_count()} cores, {THREADS} threads; {processor()[0]}; torch {torch.__version__}",
             "", f"{ROUNDS} calls of each in turn, medians; packing of K and V included in ours.", "",
             "   heads    d    Nq   Nkv  density  ours ms  peer ms  ratio  difference  peer"]
    rows = []
    print("\n".join(lines), flush=True)
    for case in CASES:
        r = measure(lib, flex, case)
        rows.append(r)
        lines.append(f"{r['hq']:4}/{r['hkv']:<3} {r['d']:4} {r['nq']:5} {r['nkv']:5}  {r['density']:6.1%}  {r['ours_ms']:7.1f}  {r['peer_ms']:7.1f}"
                     f"  {r['ratio']:5.2f}     {r['difference']:.1e}  {r['peer']}")
        print(lines[-1], flush=True)
    (out / "torch.txt").write_text("\n".join(lines) + "\n")
    (out / "torch.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
