# SPDX-License-Identifier: Apache-2.0
"""Four requests of different lengths at once in one unified cache, then again with a common beginning."""
import tempfile
from concurrent.futures import ThreadPoolExecutor

from support import Server, agree, check, model, read_report, text_of

TEXT = text_of("demo.txt").read_text()
PROMPTS = [TEXT[start:start + length] for start, length in ((0, 400), (3000, 1100), (6000, 150), (9000, 2400))]
OPTIONS = ("-c", "4096", "-np", "4", "--kv-unified")


def ask(server, prompts):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(server.complete, p, 12, id_slot=i, cache_prompt=True) for i, p in enumerate(prompts)]
        return [job.result() for job in jobs]


def session(lacuna):
    with Server(model("smollm2-135m-instruct.gguf"), lacuna, *OPTIONS) as server:
        first = ask(server, PROMPTS)
        again = ask(server, [p + " In short:" for p in PROMPTS])  # the beginning comes from the cache
        for _, answer in again:
            check(answer["timings"]["cache_n"] > 0, f"no cached prompt: {answer['timings']}")
    return [steps for steps, _ in first + again]


with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    stock = session(None)
    ours = session(f"dense precision=high report={report}")
    for i, (a, b) in enumerate(zip(ours, stock)):
        agree(a, b, 1, 0.15, f"request {i}")
    seen = read_report(report)
    check(seen["decode"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
