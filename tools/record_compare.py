#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the picture of a compare report that README shows, and keeps the report's figures beside the other results.

    tools/record_compare.py [--again]      --again: takes the kept figures, runs nothing

It needs build/release/lacuna, models/ and a Chromium (CHROMIUM names another), and a minute or two on an idle machine.
"""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
for folder in ("bench", "test/e2e"):
    sys.path.insert(0, str(ROOT / folder))
from chromium import Browser  # noqa: E402
from machine import results  # noqa: E402

LACUNA = ROOT / "build/release/lacuna"
METHODS = "streamingllm,xattention,sampleattention"
FIGURES = ["speed-up", "loss", "heads", "pattern-4"]  # 4: sampleattention, after stock, dense and the two before it
PICTURE = ROOT / "docs/pictures/compare.png"
# Leaves nothing on the page but these figures, two beside each other.
ALONE = """(ids => { const grid = document.createElement('div'); grid.className = 'pictures';
for (const id of ids) grid.append(document.getElementById(id)); document.body.replaceChildren(grid); document.body.style.padding = '0.5rem'; })"""


def main():
    figures = results() / "compare-lengths.json"
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder, "page.html")
        if "--again" not in sys.argv:
            subprocess.run([LACUNA, "compare", "-m", "models/smollm2-135m-instruct.gguf", "-f", "models/texts/demo.txt", "-p",
                            (ROOT / "models/texts/demo_question.txt").read_text(), "--methods", METHODS, "--lengths", "1k,2k,4k",
                            "-n", "16", "--no-kl", "--json", figures, "--html", page], cwd=ROOT, check=True)
        else:
            subprocess.run([LACUNA, "compare", "--from", figures, "--html", page], check=True)
        with Browser() as browser:
            browser.show(f"file://{page}", 880)
            browser.ask(f"{ALONE}({FIGURES})")
            browser.picture(PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes, of {figures.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
