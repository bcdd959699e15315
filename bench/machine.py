# SPDX-License-Identifier: Apache-2.0
"""What a measurement says of where it was made, for the scripts in bench/ and bench/peers/."""
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def processor():
    """The processor's name, and the name of its folder in bench/results/."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", info)[1]
    slug = re.sub(r"\((r|tm)\)|@.*|\b(processor|cpu)\b", "", name.lower())
    return name, re.sub(r"[^a-z0-9]+", "-", slug).strip("-") + ("-amx" if "amx_bf16" in info else "")


def commit():
    return os.environ.get("LACUNA_COMMIT") or subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def results():
    """The folder for this processor's results; OUT_DIR names another parent."""
    folder = pathlib.Path(os.environ.get("OUT_DIR", ROOT / "bench/results")) / processor()[1]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
