# SPDX-License-Identifier: Apache-2.0
"""What the plug-in refuses when it is loaded: an unknown ggml, a bad LACUNA. One line, and score 0."""
import os
import pathlib
import subprocess
import sys

from support import check, plugin, tool

SCORE = """
import ctypes, sys
for path in sys.argv[1:]: last = ctypes.CDLL(path)
print(last.ggml_backend_score())
"""


def score(library, lacuna=""):
    """(score, lines of stderr) of the plug-in in a process that has loaded a ggml library."""
    libraries = [library] if library else []
    done = subprocess.run([sys.executable, "-c", SCORE, *libraries, str(plugin())], capture_output=True, text=True,
                          env={**os.environ, "LACUNA": lacuna, "LD_PRELOAD": os.environ.get("LACUNA_PRELOAD", "")}, timeout=60)
    check(done.returncode == 0, f"the process died: {done.stderr}")
    return int(done.stdout), done.stderr.splitlines()


def refused(library, lacuna, *words):
    got, lines = score(library, lacuna)
    check(got == 0 and len(lines) == 1 and lines[0].startswith("lacuna: "), f"{lacuna!r}: score {got}, {lines}")
    for word in words:
        check(word in lines[0], f"{lacuna!r}: no {word!r} in {lines[0]!r}")
    check(lines[0].endswith("llama.cpp runs without Lacuna"), lines[0])


refused(os.environ["LACUNA_GGML_STUB"], "", "0.99.0", "need 0.25.x")
refused(None, "", "ggml_version")

ggml = str(pathlib.Path(tool("llama-bench")).with_name("libggml-base.so"))
if not pathlib.Path(ggml).exists():
    ggml = str(pathlib.Path(tool("llama-bench")).parents[1] / "lib" / "libggml-base.so")
check(score(ggml) == (1, []), "the ggml that is supported is refused")
check(score(ggml, "streamingllm:window=64 audit=sample quiet=1 log=30s device=accel machine=none") == (1, []), "good settings are refused")
refused(ggml, "dens", "did you mean 'dense'")
refused(ggml, "dense reprot=x", "'reprot'", "did you mean 'report'")
refused(ggml, "dense precison=high", "did you mean 'precision'")
refused(ggml, "dense audit=some", "some", "sample")
refused(ggml, "dense quiet=yes", "quiet", "0 or 1")
for time in ("soon", "", "s", "-1s", "1.5s", "60m", "90000"):
    refused(ggml, f"dense log={time}", f"log: got '{time}'", "60s", "86400")
refused(ggml, "dense device=tpu", "tpu", "accel")
refused(ggml, "dense threads=4", "-t")
refused(ggml, "dense machine=avx9", "avx9", "none, avx2")
refused(ggml, "dense streamingllm", "streamingllm", "dense")
refused(ggml, "dense kernel=cpu.avx2.decode", "cpu.avx2.decode")
