# SPDX-License-Identifier: Apache-2.0
"""With nothing left out, the model's predictions are stock llama.cpp's, up to rounding."""
import tempfile

from support import base_logits, check, divergence, model, read_report, text_of

CONTEXT, CHUNKS = 1024, 2

with tempfile.TemporaryDirectory() as folder:
    gguf = model("smollm2-135m-instruct.gguf")
    base = base_logits(gguf, text_of("demo.txt"), folder, CONTEXT, CHUNKS)
    # Stock differs from itself when it cuts the prompt elsewhere: activations are quantised per batch.
    floor, floor_top = divergence(gguf, base, CONTEXT, CHUNKS, None, ("-ub", "256"))
    print(f"stock against itself: mean KLD {floor:.2e}, same top {floor_top:.4f}")
    for precision in ("fast", "high"):
        report = f"{folder}/{precision}.json"
        mean, top = divergence(gguf, base, CONTEXT, CHUNKS, f"dense precision={precision} report={report}")
        most = 5e-4 if precision == "fast" else max(2e-5, 2 * floor)
        print(f"{precision}: mean KLD {mean:.2e} (allowed {most:.2e}), same top {top:.4f}")
        check(mean <= most, f"{precision}: mean KLD {mean:.2e}, need {most:.2e} or less")
        check(top >= 0.99, f"{precision}: same top token in {top:.4f} of the rows, need 0.99")
        seen = read_report(report)
        check(seen["prefill"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
