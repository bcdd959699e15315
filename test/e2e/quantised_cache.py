# SPDX-License-Identifier: Apache-2.0
"""Quantised caches (-ctk, -ctv) in the plug-in: no further from an f16 cache than stock llama.cpp with the same
cache, side data included, and a context shift through them."""
import sys
import tempfile

from support import Server, agree, base_logits, check, divergence, exact_model, read_report, text_of

CONTEXT, CHUNKS = 1024, 1
gguf = exact_model("smollm2-135m-instruct.gguf")


def cache(k, v):
    return ("-fa", "on", "-ctk", k, "-ctv", v)


# What the cache loses is stock's too; what is asked is that reading it loses no more.
with tempfile.TemporaryDirectory() as folder:
    base = base_logits(gguf, text_of("demo.txt"), folder, CONTEXT, CHUNKS)
    report = f"{folder}/report.json"
    for k, v in (("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q8_0", "q4_0"), ("f16", "q8_0")):
        stock, _, _ = divergence(gguf, base, CONTEXT, CHUNKS, None, cache(k, v))
        ours, _, _ = divergence(gguf, base, CONTEXT, CHUNKS, f"dense report={report}", cache(k, v))
        print(f"-ctk {k} -ctv {v}: mean KLD to an f16 cache: stock {stock:.2e}, ours {ours:.2e}")
        check(ours <= 1.25 * stock + 5e-4, f"{k}, {v}: further from f16 than stock")
        seen = read_report(report)
        check(seen["prefill"]["calls"] > 0 and not seen["declined"], f"attention did not run in the plug-in: {seen}")
        check(seen["side_bytes_by_kind"]["packed"] == 0 or k == "f16", f"a quantised cache was doubled: {seen}")

PROMPT = text_of("demo.txt").read_text()[:900]
SHIFT, MORE = 256, 100  # the prompt has about 200 tokens, so that the window shifts


def session(lacuna, context, *options):
    with Server(gguf, lacuna, "-c", str(context), "-np", "1", "-fit", "off", *options) as server:
        return server.complete(PROMPT, MORE)[0]


# Methods that read side data, against the reference kernel, and through a context shift. Positions are not known
# after one: only what needs none is compared there. Two kernels differ in last bits, which flip roundings of the cache,
# so agreement is asked for the first tokens, within what such flips cost; that side data equals a rebuild is
# side_property's to prove.
TOLERANCE, LEAST = 0.3, 5
with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    types = cache("q8_0", "q8_0")[2:]
    for method in ("quest:page=16:budget=64:layer_start=0", "streamingllm:sink=4:window=100"):
        want = session(f"{method} kernel=cpu.ref", 512, *types)
        ours = session(f"{method} precision=high report={report}", 512, *types)
        agree(ours, want, LEAST, TOLERANCE, method)
        seen = read_report(report)
        check(seen["decode"]["calls"] > 0 and seen["decode"]["density"] < 0.9 and not seen["declined"], f"{method}: {seen}")
    want = session("dense kernel=cpu.ref", SHIFT, "--context-shift", *types)
    ours = session(f"dense precision=high report={report}", SHIFT, "--context-shift", *types)
    agree(ours, want, LEAST, TOLERANCE, "context shift")
    check(not read_report(report)["declined"], "a context shift was declined")
sys.exit(0)
