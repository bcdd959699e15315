#!/usr/bin/env python3
"""Looks for code that a machine-specific object file would share with the rest of the program.

    tools/check_weak_symbols.py BUILD_DIR
    tools/check_weak_symbols.py --self-test

Why: an inline function or template used by a file compiled with, say, AVX-512 is emitted there as a
weak symbol. The linker keeps one copy for the whole program, maybe that one, and the program dies
on a machine without AVX-512. So the objects of kernel/cpu/<arch>/ may define weak symbols only if
their name speaks of the namespace lacuna::kernel::<arch>, which nobody else uses.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

OBJECT = re.compile(r"kernel/cpu/(avx2|avx512|avx512vnni|avx512bf16|amx)/[^/]+\.o$")
SOURCE_GLOB = "src/kernel/cpu/*/*.cpp"
WEAK = set("WVuC")  # nm's letters for weak functions, weak data, unique globals, commons

# Weak, but without code of ours: the exception personality's address, clang's call to terminate.
HARMLESS = {"DW.ref.__gxx_personality_v0", "__clang_call_terminate"}


def shared_symbols(obj, arch):
    """The weak definitions of an object file outside its namespace, demangled, sorted."""
    listing = subprocess.run(["nm", "--demangle", "--defined-only", str(obj)],
                             check=True, capture_output=True, text=True).stdout
    ours = re.compile(rf"\blacuna::kernel::(cpu::)?{arch}::")
    found = set()
    for line in listing.splitlines():
        match = re.match(r"[0-9a-f]* +(\w) (.+)$", line)
        if match and match[1] in WEAK and match[2] not in HARMLESS and not ours.search(match[2]):
            found.add(match[2])
    return sorted(found)


def check(build):
    root = pathlib.Path(__file__).resolve().parent.parent
    objects = [(path, match[1]) for path in sorted(pathlib.Path(build).rglob("*.o"))
               if (match := OBJECT.search(path.as_posix()))]
    sources = [path for path in root.glob(SOURCE_GLOB) if not path.stem.endswith("_test")]
    if sources and not objects:
        print(f"no object files of kernel/cpu/<arch>/ in {build}: nothing could be checked")
        return False
    count = 0
    for path, arch in objects:
        for symbol in shared_symbols(path, arch):
            count += 1
            print(f"{path.name} ({arch}) would share: {symbol}")
    print(f"{len(objects)} object files, {count} shared symbols")
    return count == 0


def self_test():
    cases = [  # (what it is, shared symbols expected, source)
        ("an inline function of another namespace", 1,
         "namespace lacuna { inline int f(int x) { return x + 1; } }\n"
         "int (*volatile p)(int) = &lacuna::f;"),
        ("a template of the standard library", 1,
         "#include <algorithm>\nvoid g(int* a, int* b) { std::sort(a, b); }"),
        ("an inline variable", 1,
         "namespace lacuna { inline int state = 3; }\nint* get() { return &lacuna::state; }"),
        ("an inline function of its own namespace", 0,
         "namespace lacuna::kernel::avx2 { inline int f(int x) { return x + 1; } }\n"
         "int (*volatile p)(int) = &lacuna::kernel::avx2::f;"),
        ("a template over a type of its own", 0,
         "namespace lacuna::kernel::avx2 { struct T {}; template <class X> int f() { return 1; } }\n"
         "int (*volatile p)() = &lacuna::kernel::avx2::f<lacuna::kernel::avx2::T>;"),
        ("a strong function", 0, "namespace lacuna { int f(int x) { return x + 1; } }"),
        ("a static function", 0, "static int f() { return 1; }\nint (*volatile p)() = &f;"),
    ]
    compiler = shutil.which("g++") or shutil.which("c++")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        source, obj = pathlib.Path(folder, "a.cpp"), pathlib.Path(folder, "a.o")
        for name, expected, text in cases:
            source.write_text(text + "\n", encoding="utf-8")
            subprocess.run([compiler, "-std=c++20", "-O1", "-c", str(source), "-o", str(obj)], check=True)
            found = shared_symbols(obj, "avx2")
            if bool(found) != bool(expected):
                wrong += 1
                print(f"self-test: {name}: expected {expected}, found {found}")
    print(f"{len(cases)} small objects, {wrong} judged wrongly")
    return wrong == 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    good = self_test() if sys.argv[1] == "--self-test" else check(sys.argv[1])
    sys.exit(0 if good else 1)
