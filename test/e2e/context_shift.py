# SPDX-License-Identifier: Apache-2.0
"""A full context drops its oldest part and rotates the remaining keys in place: the side copies follow."""
import tempfile

from support import Server, agree, check, model, read_report, text_of

PROMPT = text_of("demo.txt").read_text()[:900]
CONTEXT, MORE = 256, 100  # the prompt has about 200 tokens


def session(lacuna):
    with Server(model("smollm2-135m-instruct.gguf"), lacuna, "-c", str(CONTEXT), "-np", "1", "--context-shift",
                "-fit", "off") as server:
        steps, answer = server.complete(PROMPT, MORE)
        return steps, answer["timings"]["prompt_n"]


with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    stock, n = session(None)
    check(n < CONTEXT < n + MORE, f"the prompt has {n} tokens: no shift would happen, or one at once")
    ours, _ = session(f"dense precision=high report={report}")
    check(len(ours) == MORE, f"{len(ours)} tokens came, need {MORE}")
    agree(ours, stock, CONTEXT - n + 8, 0.15, f"shift after token {CONTEXT - n}")
    seen = read_report(report)
    check(seen["decode"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
