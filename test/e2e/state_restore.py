# SPDX-License-Identifier: Apache-2.0
"""A slot saved, overwritten and restored gives the same predictions: restored cells are packed anew."""
import tempfile

from support import Server, agree, check, model, text_of

TEXT = text_of("demo.txt").read_text()
PROMPT, OTHER, MORE = TEXT[:1500], TEXT[8000:10500], " To sum up,"

with tempfile.TemporaryDirectory() as folder:
    with Server(model("smollm2-135m-instruct.gguf"), "dense precision=high", "-c", "2048", "-np", "1",
                "--slot-save-path", folder) as server:
        fresh, _ = server.complete(PROMPT + MORE, 12, cache_prompt=True)
        server.call("/slots/0?action=erase", {})
        server.complete(PROMPT, 1, cache_prompt=True)
        saved = server.call("/slots/0?action=save", {"filename": "slot"})
        server.call("/slots/0?action=erase", {})
        server.complete(OTHER, 8, cache_prompt=False)
        server.call("/slots/0?action=erase", {})
        restored = server.call("/slots/0?action=restore", {"filename": "slot"})
        check(restored["n_restored"] == saved["n_saved"] > 100, f"saved {saved}, restored {restored}")
        after, answer = server.complete(PROMPT + MORE, 12, cache_prompt=True)
        check(answer["timings"]["cache_n"] > 100, f"the restored cells were not used: {answer['timings']}")
        agree(after, fresh, 1, 0.15, "after restore")
