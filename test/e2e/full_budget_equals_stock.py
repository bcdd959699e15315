# SPDX-License-Identifier: Apache-2.0
"""With nothing left out, the model's predictions are stock llama.cpp's, up to rounding."""
import os
import sys
import tempfile

from support import base_logits, check, divergence, exact_model, floor_of, model, read_report, text_of

CONTEXT = 1024
SHORT = "--short" in sys.argv  # under sanitizers
ALL_KEPT = ["xattention:mass=1", "streamingllm:window=1073741824", "trianglemix:layer_start=0:window=1073741824"]


def compare(gguf, chunks, runs, allowed):
    """`runs`: texts of LACUNA; `allowed`: (text, floor) -> most mean KLD, least share of same top tokens."""
    with tempfile.TemporaryDirectory() as folder:
        base = base_logits(gguf, text_of("demo.txt"), folder, CONTEXT, chunks)
        floor = floor_of(gguf, base, CONTEXT, chunks)
        print(f"{os.path.basename(gguf)}: stock against itself: mean KLD {floor[0]:.2e}, same top {floor[1]:.4f}")
        for lacuna in runs:
            report = f"{folder}/report.json"
            mean, top, error = divergence(gguf, base, CONTEXT, chunks, f"{lacuna} report={report}")
            most, least = allowed(lacuna, *floor)
            print(f"{lacuna}: mean KLD {mean:.2e} (allowed {most:.2e}), same top {top:.4f} +- {error:.4f} (need {least:.4f})")
            # Of 512 positions, one in a hundred is five: chance alone moves that by two and more.
            check(mean <= most and top + 3 * error >= least, f"{lacuna}: too far from stock")
            seen = read_report(report)
            check(seen["prefill"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
            check(seen["prefill"]["density"] == 1, f"something was left out: {seen}")


# On f32 weights. Rounding to bf16 (fast, where there are such units) was seen to cost 8e-5 and 0.8 %.
def by_arithmetic(lacuna, floor, _):
    return (max(2e-5, 2 * floor) if "precision=high" in lacuna else 5e-4), 0.99


# On the file as it is, no engine can be nearer to stock than stock is.
def by_floor(_, floor, floor_top):
    return 2 * floor, 1 - 2 * (1 - floor_top)


exact = exact_model("smollm2-135m-instruct.gguf")
if SHORT:
    compare(exact, 1, ["dense"], by_arithmetic)
else:
    high = [f"{method} precision=high" for method in ("dense", "dense device=accel", *ALL_KEPT)]
    compare(exact, 1, ["dense", *high], by_arithmetic)
    compare(model("smollm2-135m-instruct.gguf"), 2, ["dense"], by_floor)
