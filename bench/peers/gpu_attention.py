#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention on the GPU, beside lacuna-cuda-bench: cuDNN's dense kernel and FlexAttention's block lists.

    bench/peers/gpu_attention.py [--grad] LACUNA.json [OUT.json]

LACUNA.json is what lacuna-cuda-bench prefill (or grad, with --grad) wrote a moment ago on the same card. The shapes, the
lists and the way to count operations are the same (test/cuda/bench_case.h), and so are the times of warming up and
measuring. Prints a table with the ratio of every case that PyTorch can run, of lists also that of their TFLOP/s over
cuDNN's dense ones at that length; OUT.json has both sides.
"""
import functools
import json
import statistics
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

# name -> heads, KV heads, length, dk, dv, density; as in prefill_bench.cpp
DENSE = {
    "dense causal 8k D128": (32, 8, 8192, 128, 128, True),
    "dense causal 32k D128": (32, 8, 32768, 128, 128, True),
    "dense causal 64k D128": (32, 8, 65536, 128, 128, True),
    "dense full 16k D128": (32, 8, 16384, 128, 128, False),
    "dense causal 16k D64": (32, 8, 16384, 64, 64, True),
    "dense causal 16k D96": (32, 8, 16384, 96, 96, True),
    "dense causal 16k D192/128": (32, 8, 16384, 192, 128, True),
    "dense causal 16k D256": (16, 4, 16384, 256, 256, True),
}
LISTS = {f"blocks 128x128 32k {d:.2f}": (32, 8, 32768, 128, 128, d) for d in (0.5, 0.25, 0.1, 0.05)}
BLOCK = 128


def median_ms(call):
    """Median of one call among many in a row: a third of a second to warm up, a quarter to measure."""

    def once(n):
        at = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
        at[0].record()
        for i in range(n):
            call()
            at[i + 1].record()
        torch.cuda.synchronize()
        return statistics.median(at[i].elapsed_time(at[i + 1]) for i in range(n))

    first = once(3)
    once(max(3, int(330 / first)))
    return once(max(7, int(250 / first)))


def mix(x):
    x = ((x ^ (x >> 16)) * np.uint64(0x7FEB352D)) & np.uint64(0xFFFFFFFF)
    x = ((x ^ (x >> 15)) * np.uint64(0x846CA68B)) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> 16)


def named(heads, blocks, density):
    """[heads, blocks, blocks] of bool: the same draws as names() of prefill_bench.cpp."""
    h, i, j = np.meshgrid(*(np.arange(n, dtype=np.uint64) for n in (heads, blocks, blocks)), indexing="ij")
    draw = mix((((h * 1024 + i) * 1024 + j) + 1) & np.uint64(0xFFFFFFFF))
    return ((draw < density * 2**32) & (j < i)) | (i == j)


def tensors(hq, hkv, n, dk, dv, grad):
    shape = [(hq, dk), (hkv, dk), (hkv, dv)]
    return [torch.randn(1, h, n, d, device="cuda", dtype=torch.bfloat16, requires_grad=grad) for h, d in shape]


def time_of(attend, q, k, v, grad):
    """Milliseconds of attend(q, k, v), or of its backward alone."""
    if not grad:
        with torch.no_grad():
            return median_ms(lambda: attend(q, k, v))
    out = attend(q, k, v)
    by_out = torch.randn_like(out)
    return median_ms(lambda: torch.autograd.grad(out, (q, k, v), by_out, retain_graph=True))


def operations(dk, dv, pairs, grad):
    return 2 * (3 * dk + 2 * dv if grad else dk + dv) * pairs


def dense(hq, hkv, n, dk, dv, causal, grad):
    q, k, v = tensors(hq, hkv, n, dk, dv, grad)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        try:
            attend = functools.partial(F.scaled_dot_product_attention, is_causal=causal, enable_gqa=True)
            ms = time_of(attend, q, k, v, grad)
        except RuntimeError:  # without grouped heads: every query head with its own copy
            k, v = (t.detach().repeat_interleave(hq // hkv, 1).requires_grad_(grad) for t in (k, v))
            ms = time_of(functools.partial(F.scaled_dot_product_attention, is_causal=causal), q, k, v, grad)
    return ms, operations(dk, dv, hq * n * n * (0.5 if causal else 1), grad)


def causal_pair(b, h, q, kv):
    return q >= kv


def block_lists(hq, hkv, n, dk, dv, density, grad):
    q, k, v = tensors(hq, hkv, n, dk, dv, grad)
    keep = named(hq, n // BLOCK, density)
    diagonal = torch.arange(n // BLOCK, dtype=torch.int32, device="cuda").view(1, 1, -1, 1)
    full = torch.from_numpy(keep).cuda() & ~torch.eye(n // BLOCK, dtype=torch.bool, device="cuda")
    count = full.sum(-1, dtype=torch.int32).unsqueeze(0)
    order = torch.sort(full.to(torch.int8), dim=-1, descending=True, stable=True).indices.to(torch.int32).unsqueeze(0)
    one = torch.ones_like(count)
    index = diagonal.expand(1, hq, -1, n // BLOCK).contiguous()
    mask = BlockMask.from_kv_blocks(one, index, count, order.contiguous(), BLOCK_SIZE=BLOCK, mask_mod=causal_pair,
                                    seq_lengths=(n, n), compute_q_blocks=grad)
    ms = time_of(functools.partial(torch.compile(flex_attention), block_mask=mask, enable_gqa=True), q, k, v, grad)
    return ms, operations(dk, dv, float(keep.sum()) * BLOCK * BLOCK, grad)


def main(ours, out=None, grad=False):
    rows = {r["case"]: r for r in json.load(open(ours))}
    torch.manual_seed(1)
    for peer, cases, run in (("cuDNN", DENSE, dense), ("FlexAttention", LISTS, block_lists)):
        for name, shape in cases.items():
            row = rows.setdefault(name, {"case": name})
            row["peer"] = peer
            try:
                ms, count = run(*shape, grad)
                row["peer_ms"], row["peer_tflops"] = ms, count / ms / 1e9
                if "ms" in row:
                    row["ratio"] = ms / row["ms"]
                    beside = rows.get(f"dense causal {shape[2] // 1024}k D{shape[3]}", {})
                    if run is block_lists and "peer_tflops" in beside:
                        row["over_dense"] = row["tflops"] / beside["peer_tflops"]
            except Exception as error:  # a peer that cannot: say so and go on
                row["peer_error"] = str(error).splitlines()[0][:200]
            torch.cuda.empty_cache()
    print(f"{'case':40} {'ms':>8} {'TFLOP/s':>8} {'peer':>14} {'TFLOP/s':>8} {'ratio':>6} {'of dense':>8}")
    for r in rows.values():
        print(f"{r['case']:40} {r.get('ms', 0):8.3f} {r.get('tflops', 0):8.0f} {r.get('peer', '-'):>14} "
              f"{r.get('peer_tflops', 0):8.0f} {r.get('ratio', 0):6.2f} {r.get('over_dense', 0):8.2f} "
              f"{r.get('peer_error', '')}")
    if out:
        card = torch.cuda.get_device_name()
        with open(out, "w") as file:
            json.dump({"card": card, "torch": torch.__version__, "cuda": torch.version.cuda,
                       "cudnn": torch.backends.cudnn.version(), "cases": list(rows.values())}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*(a for a in sys.argv[1:] if a != "--grad"), grad="--grad" in sys.argv)
