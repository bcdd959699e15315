# SPDX-License-Identifier: Apache-2.0
"""A full context drops its oldest part and rotates the remaining keys in place: the side copies follow.
Dense is compared with stock; a sparse method with the reference kernel, which reads no side copies."""
import tempfile

from support import AGAINST_OURS, AGAINST_STOCK, Server, agree, check, exact_model, read_report, text_of

PROMPT = text_of("demo.txt").read_text()[:900]
CONTEXT, MORE = 256, 100  # the prompt has about 200 tokens


def session(lacuna):
    with Server(exact_model("smollm2-135m-instruct.gguf"), lacuna, "-c", str(CONTEXT), "-np", "1", "--context-shift",
                "-fit", "off") as server:
        steps, answer = server.complete(PROMPT, MORE)
        return steps, answer["timings"]["prompt_n"]


def compare(lacuna, other, tolerance):
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.json"
        want, n = session(other)
        check(n < CONTEXT < n + MORE, f"the prompt has {n} tokens: no shift would happen, or one at once")
        ours, _ = session(f"{lacuna} precision=high report={report}")
        check(len(ours) == MORE, f"{len(ours)} tokens came, need {MORE}")
        agree(ours, want, MORE, tolerance, f"{lacuna}: shift after token {CONTEXT - n}")
        seen = read_report(report)
        check(seen["decode"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
        return seen


compare("dense", None, AGAINST_STOCK)
sparse = "streamingllm:sink=4:window=100"
seen = compare(sparse, f"{sparse} kernel=cpu.ref", AGAINST_OURS)
check(seen["decode"]["density"] < 0.6, f"nothing was left out: {seen}")
