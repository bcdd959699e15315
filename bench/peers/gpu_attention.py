#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention on the GPU, beside lacuna-cuda-bench: cuDNN's dense kernel and FlexAttention's block lists.

    bench/peers/gpu_attention.py LACUNA.json [OUT.json]

LACUNA.json is what lacuna-cuda-bench wrote a moment ago on the same card. The shapes, the lists and the way to
count operations are the same (test/cuda/prefill_bench.cpp), and so are the times of warming up and measuring. Prints
a table with the ratio of every case that PyTorch can run; OUT.json has both sides.
"""
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


def tensors(hq, hkv, n, dk, dv):
    shape = [(hq, dk), (hkv, dk), (hkv, dv)]
    return [torch.randn(1, h, n, d, device="cuda", dtype=torch.bfloat16) for h, d in shape]


def dense(hq, hkv, n, dk, dv, causal):
    q, k, v = tensors(hq, hkv, n, dk, dv)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        try:
            F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
            ms = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True))
        except RuntimeError:  # without grouped heads: every query head with its own copy
            k, v = (t.repeat_interleave(hq // hkv, 1) for t in (k, v))
            ms = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    return ms, 2 * (dk + dv) * hq * n * n * (0.5 if causal else 1)


def causal_pair(b, h, q, kv):
    return q >= kv


def block_lists(hq, hkv, n, dk, dv, density):
    q, k, v = tensors(hq, hkv, n, dk, dv)
    keep = named(hq, n // BLOCK, density)
    diagonal = torch.arange(n // BLOCK, dtype=torch.int32, device="cuda").view(1, 1, -1, 1)
    full = torch.from_numpy(keep).cuda() & ~torch.eye(n // BLOCK, dtype=torch.bool, device="cuda")
    count = full.sum(-1, dtype=torch.int32).unsqueeze(0)
    order = torch.sort(full.to(torch.int8), dim=-1, descending=True, stable=True).indices.to(torch.int32).unsqueeze(0)
    one = torch.ones_like(count)
    index = diagonal.expand(1, hq, -1, n // BLOCK).contiguous()
    mask = BlockMask.from_kv_blocks(one, index, count, order.contiguous(), BLOCK_SIZE=BLOCK, mask_mod=causal_pair,
                                    seq_lengths=(n, n), compute_q_blocks=False)
    compiled = torch.compile(flex_attention)
    ms = median_ms(lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True))
    return ms, 2 * (dk + dv) * float(keep.sum()) * BLOCK * BLOCK


def main(ours, out=None):
    rows = {r["case"]: r for r in json.load(open(ours))}
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    for peer, cases, run in (("cuDNN", DENSE, dense), ("FlexAttention", LISTS, block_lists)):
        for name, shape in cases.items():
            row = rows.setdefault(name, {"case": name})
            row["peer"] = peer
            try:
                ms, operations = run(*shape)
                row["peer_ms"], row["peer_tflops"] = ms, operations / ms / 1e9
                if "ms" in row:
                    row["ratio"] = ms / row["ms"]
            except Exception as error:  # a peer that cannot: say so and go on
                row["peer_error"] = str(error).splitlines()[0][:200]
            torch.cuda.empty_cache()
    print(f"{'case':40} {'ms':>8} {'TFLOP/s':>8} {'peer':>14} {'TFLOP/s':>8} {'ratio':>6}")
    for r in rows.values():
        print(f"{r['case']:40} {r.get('ms', 0):8.3f} {r.get('tflops', 0):8.0f} {r.get('peer', '-'):>14} "
              f"{r.get('peer_tflops', 0):8.0f} {r.get('ratio', 0):6.2f} {r.get('peer_error', '')}")
    if out:
        card = torch.cuda.get_device_name()
        with open(out, "w") as file:
            json.dump({"card": card, "torch": torch.__version__, "cuda": torch.version.cuda,
                       "cudnn": torch.backends.cudnn.version(), "cases": list(rows.values())}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
