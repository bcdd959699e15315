#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cuDNN's dense attention beside lacuna-cuda-bench choose: what choosing blocks costs, and what it saves.

    bench/peers/gpu_choose.py LACUNA.json [OUT.json]

LACUNA.json is what lacuna-cuda-bench choose wrote a moment ago on the same card. Prints for every case the milliseconds of
estimate and budget and their share of cuDNN's dense causal attention, and how many times as fast all of it is, from the
estimate to the output; OUT.json has both sides.
"""
import json
import sys

import torch
from gpu_attention import dense


def main(ours, out=None):
    rows = json.load(open(ours))
    torch.manual_seed(1)
    peers = {}
    for row in rows:
        shape = (row["hq"], row["hkv"], row["n"], row["d"], row["d"], True)
        if shape not in peers:
            try:
                peers[shape] = dense(*shape, False)[0]
            except Exception as error:  # a peer that cannot: say so and go on
                peers[shape] = None
                row["peer_error"] = str(error).splitlines()[0][:200]
            torch.cuda.empty_cache()
        ms = peers[shape]
        if ms and "choose_ms" in row:
            row["peer"], row["peer_ms"] = "cuDNN", ms
            row["choose_share"] = row["choose_ms"] / ms
            if "all_ms" in row:
                row["times"] = ms / row["all_ms"]
    print(f"{'case':40} {'choose ms':>9} {'of dense':>8} {'density':>8} {'all ms':>8} {'cuDNN ms':>8} {'times':>6}")
    for r in rows:
        print(f"{r['case']:40} {r.get('choose_ms', 0):9.3f} {100 * r.get('choose_share', 0):6.1f} % "
              f"{100 * r.get('density', 0):6.1f} % {r.get('all_ms', 0):8.3f} {r.get('peer_ms', 0):8.3f} "
              f"{r.get('times', 0):6.2f} {r.get('refused', r.get('peer_error', ''))}")
    if out:
        with open(out, "w") as file:
            json.dump({"card": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
                       "cudnn": torch.backends.cudnn.version(), "cases": rows}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
