# SPDX-License-Identifier: Apache-2.0
"""Gemma 3: sliding-window layers with a cache of their own beside global ones, head_dim 256."""
import tempfile

from support import base_logits, check, divergence, model, read_report, text_of

CONTEXT = 1024  # twice the window, so that it slides

with tempfile.TemporaryDirectory() as folder:
    gguf = model("gemma-3-270m.gguf")
    base = base_logits(gguf, text_of("demo.txt"), folder, CONTEXT, 1)
    floor, _ = divergence(gguf, base, CONTEXT, 1, None, ("-ub", "256"))
    report = f"{folder}/report.json"
    mean, top = divergence(gguf, base, CONTEXT, 1, f"dense precision=high report={report}")
    print(f"mean KLD {mean:.2e}, same top {top:.4f}; stock against itself {floor:.2e}")
    most = max(2e-5, 2 * floor)
    check(mean <= most, f"mean KLD {mean:.2e}, need {most:.2e} or less")
    check(top >= 0.98, f"same top token in {top:.4f} of the rows, need 0.98")
    seen = read_report(report)
    check(seen["prefill"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
