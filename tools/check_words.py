#!/usr/bin/env python3
"""Checks what must not be in the tree: machine paths, registry hosts, loose ends, tabs, big files.

    tools/check_words.py [--self-test] [ROOT]
    tools/check_words.py --columns [ROOT]      lines of code longer than 120 columns, nothing else

Looks at the files git tracks (or would track); outside a git checkout, at all but hidden and ignored
folders. This file and LICENSE are exempt from the words, not from the size.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

LIMIT_BYTES = 400_000
RULES = [
    ("a path of one machine", re.compile(r"(?<![\w.$}/*-])/(?:root|work|home|Users|mnt)/(?!\.\.\.)\w")),
    ("a package registry's host", re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|deb\.debian\.org|security\.debian\.org|huggingface\.co|"
        r"registry\.npmjs\.org|crates\.io|conda\.anaconda\.org|docker\.io|ghcr\.io|quay\.io)\b")),
    ("a loose end", re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")),
    ("a placeholder", re.compile(r"(?<![\w$@])@[A-Z][A-Z0-9_]+@(?!\w)")),
    ("a merge conflict", re.compile(r"^(?:<{7} |>{7} )", re.MULTILINE)),
]
# Only where tabs and blanks mean nothing.
LAYOUT_RULES = [
    ("a tab", re.compile(r"^.*\t.*$", re.MULTILINE)),
    ("blanks at the end of a line", re.compile(r"^.*[ \t]+$", re.MULTILINE)),
]
CODE = {".h", ".inc", ".cpp", ".c", ".cu", ".py", ".sh", ".cmake"}
COLUMNS = 120  # docs/decisions/013
EXEMPT = {"tools/check_words.py", "LICENSE"}
SKIPPED = {"build", "models"}


def tracked(root):
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True)
    if listing.returncode == 0:
        names = listing.stdout.split("\0")
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        names = [n for n in names if n.split("/")[0] not in SKIPPED
                 and not any(part.startswith(".") and part != ".ci" for part in n.split("/")[:-1])]
    return sorted({name for name in names if name and (root / name).is_file()})


def violations(root):
    for name in tracked(root):
        data = (root / name).read_bytes()
        if len(data) > LIMIT_BYTES:
            yield f"{name}: {len(data)} bytes, the limit is {LIMIT_BYTES}"
        if name in EXEMPT or b"\0" in data[:8000]:
            continue
        text = data.decode("utf-8", errors="replace")
        rules = RULES + (LAYOUT_RULES if pathlib.PurePath(name).suffix in CODE else [])
        for what, pattern in rules:
            for match in pattern.finditer(text):
                yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0].strip()}"


def long_lines(root):
    for name in tracked(root):
        if pathlib.PurePath(name).suffix in CODE and name not in EXEMPT:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.split("\n"), 1):
                if len(line) > COLUMNS:
                    yield f"{name}:{number}: {len(line)} columns"


SELF_TEST = [  # (text, violations expected)
    ("figures: @DE" + "MO@", 1),
    ("a line with \"$@\" and make's $@ and a@B.org", 0),
    ("int a;  \n\tint b;\n", 2),
    ("int a;\n  int b;\n", 0),
    ("cd /" + "root/x", 1),
    ("include </" + "home/someone/x.h>", 1),
    ("see $HOME/work/x and build/work/y", 0),
    ("zcat /usr/share/doc/x.gz", 0),
    ("index https://" + "pypi.org/simple", 1),
    ("from PyPI", 0),
    ("// TO" + "DO later", 1),
    ("a mastodon", 0),
    ("x" * (LIMIT_BYTES + 1), 1),
]


def self_test():
    wrong = 0
    for text, expected in SELF_TEST:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "a.c").write_text(text, encoding="utf-8")
            found = list(violations(pathlib.Path(folder)))
        if len(found) != expected:
            wrong += 1
            print(f"self-test: {text[:60]!r}: expected {expected}, got {found}")
    for text, expected in (("x" * COLUMNS, 0), ("x" * (COLUMNS + 1), 1)):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "a.c").write_text(text, encoding="utf-8")
            if len(list(long_lines(pathlib.Path(folder)))) != expected:
                wrong += 1
                print(f"self-test: a line of {len(text)} columns is judged wrongly")
    print(f"{len(SELF_TEST) + 2} small files, {wrong} judged wrongly")
    return wrong == 0


def main(arguments):
    if arguments[:1] == ["--self-test"]:
        return 0 if self_test() else 1
    columns = arguments[:1] == ["--columns"]
    arguments = arguments[1:] if columns else arguments
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).parent.parent).resolve()
    found = list(long_lines(root) if columns else violations(root))
    for text in found:
        print(text)
    what = f"lines longer than {COLUMNS} columns" if columns else "violations"
    print(f"{len(tracked(root))} files, {len(found)} {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
