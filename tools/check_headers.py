#!/usr/bin/env python3
"""Compiles every header alone and twice over: each must include what it needs and guard itself.

    tools/check_headers.py [ROOT]      CXX=... chooses the compiler (g++)

Headers of a host are left out while that host's own headers are not on this machine.
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

# Flags of the machine-specific kernels, by folder.
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mavx512vnni -mavx512fp16".split()
AVX2 = "-mavx2 -mfma -mf16c".split()
ARCH_FLAGS = {
    "src/kernel/cpu/avx2/": AVX2,
    "src/kernel/cpu/avx512/": AVX2 + AVX512,
    "src/kernel/cpu/avx512bf16/": AVX2 + AVX512,
    "src/kernel/cpu/amx/": AVX2 + AVX512 + "-mamx-tile -mamx-int8 -mamx-bf16".split(),
}
# Headers that need an outside header to be there.
NEEDS = {"src/host/ggml/": "llama.h", "src/host/torch/": "torch/torch.h"}


def llama_include():
    """The include folder of the llama.cpp that the build would take (see cmake/FindLlama.cmake)."""
    if os.environ.get("LLAMA_DIR"):
        return [f"-isystem{os.environ['LLAMA_DIR']}/include"]
    cache = os.environ.get("LACUNA_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lacuna")
    copies = sorted(pathlib.Path(cache).glob("llama-*/STAMP"))
    return [f"-isystem{copies[-1].parent}/include"] if copies else []


def compile_text(text, flags):
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-x", "c++", *flags, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else __file__).resolve()
    root = root if arguments else root.parent.parent
    common = ["-Wall", "-Wextra", "-Werror", f"-I{root}/include", f"-I{root}/src", f"-I{root}",
              *llama_include()]
    absent = {where for where, header in NEEDS.items()
              if compile_text(f"#include <{header}>\n", common).returncode}

    headers, left_out = [], 0
    for path in sorted([*root.glob("include/**/*.h"), *root.glob("src/**/*.h")]):
        name = path.relative_to(root).as_posix()
        if any(name.startswith(where) for where in absent):
            left_out += 1
        else:
            headers.append(name)

    def alone(name):
        flags = next((f for where, f in ARCH_FLAGS.items() if name.startswith(where)), [])
        return name, compile_text(f'#include "{name}"\n#include "{name}"\n', common + flags)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, result in pool.map(alone, headers):
            if result.returncode:
                bad += 1
                print(f"{name} does not stand alone:\n{result.stderr[:1500]}")
    print(f"{len(headers)} headers, {bad} bad" + (f", {left_out} left out" if left_out else ""))
    return 1 if bad or not headers else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
