#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention of one query token on the GPU, beside lacuna-cuda-bench decode.

    bench/peers/gpu_decode.py LACUNA.json [OUT.json]

LACUNA.json is what `lacuna-cuda-bench decode` wrote a moment ago on the same card. Of scaled_dot_product_attention the
fastest backend that takes the shape counts; calls are timed in a CUDA graph of many, as in test/cuda/decode_bench.cpp.
Prints a table with the ratio of every case that PyTorch can run; OUT.json has both sides.
"""
import json
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# name -> batch, heads, KV heads, keys, channels; as in decode_bench.cpp
CASES = {
    "dense 32k": (8, 32, 8, 32768, 128),
    "dense 64k": (8, 32, 8, 65536, 128),
    "dense 128k": (8, 32, 8, 131072, 128),
    "dense 32k, D 64": (8, 32, 8, 32768, 64),
    "dense 32k, D 256": (8, 16, 4, 32768, 256),
}
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def graph_ms(call):
    """Median of one call among many in a graph: a few replays to warm up, then a quarter of a second."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    n = 16
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(n):
            call()
    took = []
    while sum(took) < 400:
        from_, to = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        from_.record()
        graph.replay()
        to.record()
        torch.cuda.synchronize()
        took.append(from_.elapsed_time(to))
    return statistics.median(took[len(took) // 3:]) / n


def fastest(batch, hq, hkv, n, d):
    q = torch.randn(batch, hq, 1, d, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, hkv, n, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = None
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                ms = graph_ms(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
        except RuntimeError as error:  # a backend that cannot: say so and go on
            print(f"{name}: {str(error).splitlines()[0][:120]}")
            continue
        if best is None or ms < best[1]:
            best = name, ms
    return best


def main(ours, out=None):
    rows = {r["case"]: r for r in json.load(open(ours))}
    torch.set_grad_enabled(False)
    print(f"{'case':20} {'ms':>8} {'peer':>8} {'ms':>8} {'ratio':>6}")
    for name, shape in CASES.items():
        row = rows.get(name)
        best = fastest(*shape)
        torch.cuda.empty_cache()
        if row is None or "ms" not in row or best is None:
            continue
        row["peer"], row["peer_ms"] = best
        row["ratio"] = row["peer_ms"] / row["ms"]
        print(f"{name:20} {row['ms']:8.4f} {row['peer']:>8} {row['peer_ms']:8.4f} {row['ratio']:6.2f}")
    if out:
        with open(out, "w") as file:
            json.dump({"card": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
                       "cudnn": torch.backends.cudnn.version(), "cases": list(rows.values())}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
