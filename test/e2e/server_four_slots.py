# SPDX-License-Identifier: Apache-2.0
"""Four requests of different lengths at once, in one unified cache and in one of four streams, then
again with a common beginning. Dense is compared with stock, sparse methods with a server of one slot."""
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from support import AGAINST_OURS, AGAINST_STOCK, Server, agree, check, exact_model, read_report, text_of

TEXT = text_of("demo.txt").read_text()
PROMPTS = [TEXT[start:start + length] for start, length in ((0, 400), (3000, 1100), (6000, 150), (9000, 2000))]
TOKENS = 8
# No prompt is cut into micro-batches, so that a method sees the same rows together in every server; and
# idle slots keep their cells, whichever request is done first.
COMMON = ("-c", "4096", "-b", "2048", "-ub", "2048", "--cache-ram", "0")
UNIFIED, STREAMS, ONE = ("-np", "4", "--kv-unified"), ("-np", "4", "--no-kv-unified"), ("-np", "1")
SHORT = "--short" in sys.argv  # under sanitizers


def session(lacuna, slots):
    """Per prompt: its answer, and the answer to a longer one whose beginning is in the cache."""
    def ask(slot, prompt):
        return server.complete(prompt, TOKENS, id_slot=slot, cache_prompt=True)

    with Server(exact_model("smollm2-135m-instruct.gguf"), lacuna, *COMMON, *slots) as server:
        longer = [p + " In short:" for p in PROMPTS]
        if slots == ONE:
            both = [(ask(0, p), ask(0, q)) for p, q in zip(PROMPTS, longer)]
        else:
            with ThreadPoolExecutor(4) as pool:
                first = list(pool.map(ask, range(4), PROMPTS))
                both = list(zip(first, pool.map(ask, range(4), longer)))
    for _, (_, answer) in both:
        check(answer["timings"]["cache_n"] > 0, f"no cached prompt: {answer['timings']}")
    return [steps for pair in both for steps, _ in pair]


def compare(lacuna, want, slots, tolerance):
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.json"
        ours = session(f"{lacuna} precision=high report={report}", slots)
        for i, (a, b) in enumerate(zip(ours, want)):
            agree(a, b, TOKENS, tolerance, f"{lacuna} {' '.join(slots)} request {i // 2}{' again' * (i % 2)}")
        seen = read_report(report)
        check(seen["decode"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
        return seen["prefill"]["density"]


stock = session(None, UNIFIED)
compare("dense", stock, UNIFIED, AGAINST_STOCK)
if not SHORT:
    compare("dense", stock, STREAMS, AGAINST_STOCK)
    for method in ("streamingllm:window=128", "xattention:mass=0.9"):
        alone = session(f"{method} precision=high", ONE)
        for slots in (UNIFIED, STREAMS) if method.startswith("stream") else (UNIFIED,):
            density = compare(method, alone, slots, AGAINST_OURS)
            check(density < 0.95, f"{method} left nothing out: density {density}")
