#!/usr/bin/env python3
"""Checks who includes whom, from the #include lines of src/, include/ and test/.

    tools/check_layers.py [--self-test] [ROOT]

The layers, low to high; a layer sees itself and what stands in its row of SEES, nothing else:

    base <- pattern <- kv <- op <- {kernel | block} <- method <- engine <- {host, cli}
                                                       account <- engine

and beyond that:
  * include/lacuna/ sees itself only; all layers see it, but the two doors (lacuna.h, lacuna_c.h)
    are for engine, host and cli;
  * kernel/list/ is for engine alone;
  * a method includes no other method: of method/<family>/ only its own header, of method/ the rest;
  * kernel/cpu/<arch>/ is compiled with flags of its own and may include only headers that carry the
    tag "// lacuna: pod" (plain data and inline-free, so no shared function is compiled with those
    flags), besides headers of its own folder; a tagged header includes tagged headers only;
  * kernel/cuda/<arch>/ is compiled by nvcc and may include only tagged headers, for the same reason
    and so that no other header has to please nvcc;
  * host/torch/cuda/ sees the tagged headers of kernel/cuda/ itself: those kernels have no engine
    above them yet (docs/decisions/033);
  * outside headers that belong to one place stay there (PRIVATE).

Tests (*_test.cpp) obey the layer of their folder, and may use test/ as well; test/ sees everything.
"""
import pathlib
import re
import sys
import tempfile

SEES = {
    "base": "",
    "pattern": "base",
    "kv": "base pattern",
    "op": "base pattern kv",
    "kernel": "base pattern kv op",
    "block": "base pattern kv op",
    "method": "base pattern kv op block",
    "account": "base pattern kv op block",
    "engine": "base pattern kv op kernel block method account",
    "host": "",
    "cli": "base kv op engine account",
}
DOORS = {"lacuna/lacuna.h", "lacuna/lacuna_c.h"}
DOOR_USERS = {"engine", "host", "cli"}
ARCH = re.compile(r"src/kernel/(cpu/(avx2|avx512|avx512vnni|avx512bf16|amx)|cuda/sm\d+a?)/")
CUDA_ENTRY = re.compile(r"src/kernel/cuda/[a-z_]+\.h")
POD = re.compile(r"^// lacuna: pod\b", re.MULTILINE)

# Outside headers by pattern -> (who may include them, the reason given).
PRIVATE = [
    (r"(ggml|gguf|llama)[\w-]*\.h", r"src/(host/ggml|cli)/|test/", "for host/ggml and the CLI"),
    (r"(torch|ATen|c10)/.*", r"src/host/torch/", "for host/torch"),
    (r"(cuda|cublas|mma|cooperative_groups)[\w.]*", r"src/kernel/(cuda/|list/)|test/cuda/", "for kernel/cuda"),
    (r"\w*mmintrin\.h|immintrin\.h", r"src/kernel/cpu/", "for kernel/cpu"),
    (r"CLI/.*", r"src/cli/", "for the CLI"),
    (r"(gtest|gmock)/.*", r"test/|src/.*_test\.cpp$", "for tests"),
]
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
SOURCES = {".h", ".hpp", ".inc", ".cpp", ".cc", ".c", ".cu", ".cuh"}


class Tree:
    """The files of a source tree and the texts of those asked for."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = sorted(
            path.relative_to(self.root).as_posix()
            for top in ("include", "src", "test")
            for path in (self.root / top).rglob("*")
            if path.suffix in SOURCES
        )
        self.known = set(self.files)

    def text(self, file):
        return (self.root / file).read_text(encoding="utf-8", errors="replace")

    def resolve(self, file, name):
        """The file of ours that `name`, included from `file`, stands for; None for an outside one."""
        beside = (pathlib.PurePosixPath(file).parent / name).as_posix()
        roots = [f"include/{name}", f"src/{name}", name, beside]
        if file.startswith("test/") or file.endswith("_test.cpp"):
            roots.append(f"test/{name}")
        for candidate in roots:
            if candidate in self.known:
                return candidate
        return None


def layer_of(file):
    """'public', 'test', or the name of a folder below src/."""
    parts = file.split("/")
    if parts[0] == "include":
        return "public"
    if parts[0] == "test":
        return "test"
    return parts[1] if len(parts) > 2 else "src"


def is_pod(tree, file):
    return bool(POD.search(tree.text(file)))


def refusal(tree, file, target):
    """Why `file` may not include `target` (both ours); empty when it may."""
    here, there = layer_of(file), layer_of(target)
    folder = lambda f: f.rsplit("/", 1)[0]

    if here != "test":
        if ARCH.match(file) and folder(file) != folder(target) and not is_pod(tree, target):
            return 'compiled with its own flags, and that header has no "// lacuna: pod" tag'
        if file.endswith((".h", ".hpp")) and is_pod(tree, file) and not is_pod(tree, target):
            return "a pod header includes pod headers only"

    if here == "test":
        return ""
    if here == "public":
        return "" if there == "public" else "include/lacuna/ sees itself only"
    if here not in SEES:
        return f"src/{here}/ is in no layer; add it to SEES in tools/check_layers.py"
    if there == "test":
        return "" if file.endswith("_test.cpp") else "only tests see test/"
    if there == "public":
        door = target[len("include/"):] in DOORS
        return "that door is for engine, host and cli" if door and here not in DOOR_USERS else ""
    if target.startswith("src/kernel/list/") and here != "engine" and folder(file) != "src/kernel/list":
        return "kernel/list/ is for engine alone"
    if file.startswith("src/host/torch/cuda/") and CUDA_ENTRY.fullmatch(target) and is_pod(tree, target):
        return ""
    if here != there and there not in SEES[here].split():
        sees = SEES[here] or "include/lacuna/ only"
        return f"{here} does not see {there} (it sees: {sees})"
    if here == there == "method" and target.count("/") > 2:  # src/method/<family>/...
        stem = lambda f: re.sub(r"(_test)?\.\w+$", "", f)
        return "" if stem(file) == stem(target) else "a method includes no other method"
    if here == there == "host" and file.split("/")[2] != target.split("/")[2]:
        return "a host includes no other host"
    return ""


def violations(tree):
    for file in tree.files:
        text = tree.text(file)
        for match in INCLUDE.finditer(text):
            quote, name = match.groups()
            target = tree.resolve(file, name)
            if target:
                why = refusal(tree, file, target)
            else:
                why = next((f"<{name}> is {reason}" for pattern, where, reason in PRIVATE
                            if re.fullmatch(pattern, name) and not re.match(where, file)), "")
                if not why and quote == '"' and not any(re.fullmatch(p[0], name) for p in PRIVATE):
                    why = "no such file of ours (outside headers are included with <>)"
            if why:
                yield f'{file}:{text.count(chr(10), 0, match.start()) + 1}: includes "{name}": {why}'


# Small trees: file -> text; the name says whether the last file offends.
SELF_TEST = [
    ("base must not see op", 1, {"src/op/a.h": "", "src/base/b.h": '#include "op/a.h"'}),
    ("op sees kv", 0, {"src/kv/a.h": "", "src/op/b.cpp": '#include "kv/a.h"'}),
    ("block must not see kernel", 1, {"src/kernel/a.h": "", "src/block/e/b.h": '#include "kernel/a.h"'}),
    ("kernel must not see block", 1, {"src/block/e/a.h": "", "src/kernel/b.h": '#include "block/e/a.h"'}),
    ("kernel must not see kernel/list", 1, {"src/kernel/list/a.h": "", "src/kernel/b.cpp": '#include "kernel/list/a.h"'}),
    ("engine sees kernel/list", 0, {"src/kernel/list/a.h": "", "src/engine/b.cpp": '#include "kernel/list/a.h"'}),
    ("a method sees its own header", 0, {"src/method/x/a.h": "", "src/method/x/a_test.cpp": '#include "method/x/a.h"'}),
    ("a method sees method/method.h", 0, {"src/method/method.h": "", "src/method/x/b.cpp": '#include "method/method.h"'}),
    ("a method must not see another", 1, {"src/method/x/a.h": "", "src/method/x/b.cpp": '#include "method/x/a.h"'}),
    ("a method must not see one beside it", 1, {"src/method/x/a.h": "", "src/method/x/b.cpp": '#include "a.h"'}),
    ("a host must not see engine", 1, {"src/engine/a.h": "", "src/host/ggml/b.cpp": '#include "engine/a.h"'}),
    ("a host sees the door", 0, {"include/lacuna/lacuna.h": "", "src/host/ggml/b.cpp": '#include "lacuna/lacuna.h"'}),
    ("op must not see the door", 1, {"include/lacuna/lacuna.h": "", "src/op/b.cpp": '#include "lacuna/lacuna.h"'}),
    ("op sees public types", 0, {"include/lacuna/dtype.h": "", "src/op/b.h": '#  include <lacuna/dtype.h>'}),
    ("public must not see src", 1, {"src/base/a.h": "", "include/lacuna/b.h": '#include "base/a.h"'}),
    ("cli sees engine", 0, {"src/engine/a.h": "", "src/cli/b.cpp": '#include "engine/a.h"'}),
    ("cli must not see kernel", 1, {"src/kernel/a.h": "", "src/cli/b.cpp": '#include "kernel/a.h"'}),
    ("account must not see engine", 1, {"src/engine/a.h": "", "src/account/b.cpp": '#include "engine/a.h"'}),
    ("arch code must not see plain headers", 1, {"src/base/a.h": "", "src/kernel/cpu/amx/b.cpp": '#include "base/a.h"'}),
    ("arch code sees pod headers", 0, {"src/base/a.h": "// lacuna: pod", "src/kernel/cpu/amx/b.cpp": '#include "base/a.h"'}),
    ("arch code sees its own folder", 0, {"src/kernel/cpu/amx/a.h": "", "src/kernel/cpu/amx/b.cpp": '#include "kernel/cpu/amx/a.h"'}),
    ("CUDA code must not see plain headers", 1, {"src/base/a.h": "", "src/kernel/cuda/sm80/b.cu": '#include "base/a.h"'}),
    ("CUDA code sees its folder's pod headers", 0, {"src/kernel/cuda/a.h": "// lacuna: pod", "src/kernel/cuda/sm80/b.cu": '#include "kernel/cuda/a.h"\n#include <cuda_runtime.h>'}),
    ("CUDA's headers stay in kernel/cuda", 1, {"src/engine/b.cpp": "#include <cuda_runtime.h>"}),
    ("PyTorch's CUDA operators see the kernels' entry points", 0, {"src/kernel/cuda/a.h": "// lacuna: pod", "src/host/torch/cuda/b.cpp": '#include "kernel/cuda/a.h"'}),
    ("but not what lies below them", 1, {"src/kernel/cuda/sm80/a.h": "// lacuna: pod", "src/host/torch/cuda/b.cpp": '#include "kernel/cuda/sm80/a.h"'}),
    ("nor do PyTorch's other operators", 1, {"src/kernel/cuda/a.h": "// lacuna: pod", "src/host/torch/b.cpp": '#include "kernel/cuda/a.h"'}),
    ("a pod header includes pod only", 1, {"src/base/a.h": "", "src/base/b.h": '// lacuna: pod\n#include "base/a.h"'}),
    ("ggml stays in its host", 1, {"src/engine/b.cpp": "#include <ggml-backend.h>"}),
    ("intrinsics stay in kernel/cpu", 1, {"src/op/b.cpp": "#include <immintrin.h>"}),
    ("a folder outside the layers", 1, {"src/base/a.h": "", "src/util/b.cpp": '#include "base/a.h"'}),
    ("a misspelt header", 1, {"src/base/b.cpp": '#include "base/missing.h"'}),
    ("standard headers are free", 0, {"src/base/b.cpp": "#include <vector>"}),
]


def self_test():
    wrong = 0
    for name, expected, files in SELF_TEST:
        with tempfile.TemporaryDirectory() as root:
            for file, text in files.items():
                path = pathlib.Path(root, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + "\n", encoding="utf-8")
            found = list(violations(Tree(root)))
        if len(found) != expected:
            wrong += 1
            print(f"self-test: {name}: expected {expected} violations, got {found}")
    print(f"{len(SELF_TEST)} small trees, {wrong} judged wrongly")
    return wrong == 0


def main(arguments):
    if arguments[:1] == ["--self-test"]:
        return 0 if self_test() else 1
    root = arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent
    tree = Tree(root)
    found = list(violations(tree))
    for text in found:
        print(text)
    print(f"{len(tree.files)} files, {len(found)} violations")
    return 1 if found or not tree.files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
