# SPDX-License-Identifier: Apache-2.0
"""A slot saved, overwritten and restored gives the same predictions: restored cells are packed anew."""
import sys
import tempfile

from support import AGAINST_OURS, Server, agree, check, exact_model, text_of

TEXT = text_of("demo.txt").read_text()
PROMPT, OTHER, MORE = TEXT[:1500], TEXT[8000:10500], " To sum up,"


def compare(lacuna):
    with tempfile.TemporaryDirectory() as folder, \
            Server(exact_model("smollm2-135m-instruct.gguf"), f"{lacuna} precision=high", "-c", "2048", "-np", "1",
                   "--cache-ram", "0", "--slot-save-path", folder) as server:
        server.complete(PROMPT, 1, cache_prompt=True)
        saved = server.call("/slots/0?action=save", {"filename": "slot"})
        fresh, answer = server.complete(PROMPT + MORE, 12, cache_prompt=True)
        check(answer["timings"]["cache_n"] > 100, f"the first cells were not used: {answer['timings']}")
        server.call("/slots/0?action=erase", {})
        server.complete(OTHER, 8, cache_prompt=False)
        server.call("/slots/0?action=erase", {})
        restored = server.call("/slots/0?action=restore", {"filename": "slot"})
        check(restored["n_restored"] == saved["n_saved"] > 100, f"saved {saved}, restored {restored}")
        after, answer = server.complete(PROMPT + MORE, 12, cache_prompt=True)
        check(answer["timings"]["cache_n"] > 100, f"the restored cells were not used: {answer['timings']}")
        agree(after, fresh, 12, AGAINST_OURS, f"{lacuna} after restore")


compare("dense")
if "--short" not in sys.argv:
    compare("streamingllm:sink=4:window=100")
