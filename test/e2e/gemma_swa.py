# SPDX-License-Identifier: Apache-2.0
"""Gemma 3: sliding-window layers with a cache of their own beside global ones, head_dim 256; and a long
context, where what a closed form keeps can be counted."""
import re
import tempfile

from support import base_logits, check, divergence, exact_model, model, read_report, run, text_of, tool

CONTEXT = 4096  # eight times the window, so that it slides
SLIDING, LAYERS, GLOBAL = 512, 18, 3
LONG, SINK, WINDOW = 24576, 4, 1024

with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    gguf = exact_model("gemma-3-270m.gguf")
    base = base_logits(gguf, text_of("long.txt"), folder, CONTEXT, 1)
    mean, top, _ = divergence(gguf, base, CONTEXT, 1, f"dense precision=high report={report}")
    most = 2e-5  # stock against itself: 1e-6 on f32 weights
    print(f"mean KLD {mean:.2e} (allowed {most:.2e}), same top {top:.4f}")
    check(mean <= most, f"mean KLD {mean:.2e}, need {most:.2e} or less")
    check(top >= 0.99, f"same top token in {top:.4f} of the rows, need 0.99")
    seen = read_report(report)
    check(seen["prefill"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")

    text = run([tool("llama-completion"), "-m", model("gemma-3-270m.gguf"), "-f", str(text_of("long.txt")), "-n", "1", "-t", "2",
                "-c", "32768", "-no-cnv", "-fa", "on"],
               f"streamingllm:sink={SINK}:window={WINDOW} audit=sample report={report}")
    n = int(re.search(r"prompt eval time =.*?/\s+(\d+) tokens", text)[1])
    check(n >= LONG, f"the text has {n} tokens, need {LONG}")
    seen = read_report(report)
    check(seen["windowed_layers"] == LAYERS - GLOBAL, f"{seen['windowed_layers']} layers are said to see a window")
    seen = seen["prefill"]
    # Sliding layers are dense and counted apart from the second micro-batch on: the first fills no more than a window.
    first = (LAYERS - GLOBAL) * SLIDING * (SLIDING + 1) / 2
    kept = GLOBAL * sum(min(i, SINK + WINDOW) for i in range(1, n + 1)) + first
    density = kept / (GLOBAL * n * (n + 1) / 2 + first)
    print(f"{n} tokens: density {seen['density']:.5f}, counted {density:.5f}; lost mass {seen['lost_mass']}")
    check(abs(seen["density"] / density - 1) < 1e-3, f"density {seen['density']:.5f}, need {density:.5f}")
    check(0 < seen["lost_mass"]["mean"] < 0.5 and seen["lost_mass"]["rows"] > 500, f"lost mass {seen['lost_mass']}")
