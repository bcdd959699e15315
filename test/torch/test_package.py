# SPDX-License-Identifier: Apache-2.0
"""What is installed: stubs that say what the code has, docstrings, a binary that needs nothing new, a README that runs."""
import ast
import inspect
import pathlib
import re
import subprocess

import lacuna
import pytest

PACKAGE = pathlib.Path(lacuna.__file__).parent
ROOT = pathlib.Path(__file__).parents[2]
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text())


def functions(body):
    return [node for node in body if isinstance(node, ast.FunctionDef)]


def signature_of(node):
    """Names of a stub's parameters, in order, with whether they must be named and the text of their defaults."""
    a = node.args
    plain = dict(zip([x.arg for x in a.args][::-1], [ast.unparse(d) for d in a.defaults][::-1]))
    named = {x.arg: ast.unparse(d) for x, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    names = [(x.arg, False) for x in a.args] + [(x.arg, True) for x in a.kwonlyargs]
    return [(name, only, {**plain, **named}.get(name)) for name, only in names if name not in ("self", "cls")]


def same(node, function):
    found = []
    for p in inspect.signature(function).parameters.values():
        if p.name == "self":
            continue
        default = None if p.default is p.empty else repr(p.default).replace('"', "'")
        found.append((p.name, p.kind is p.KEYWORD_ONLY, default))
    overloaded = any(getattr(d, "id", "") == "overload" for d in node.decorator_list)
    for mine, theirs in zip(signature_of(node), found, strict=True):
        assert mine[:2] == theirs[:2], (node.name, mine, theirs)
        if not (overloaded and mine[0] == "return_lse"):
            assert mine[2] == theirs[2] or ast.literal_eval(mine[2]) == ast.literal_eval(theirs[2]), (node.name, mine, theirs)


def test_the_stub_says_what_the_code_has():
    named = {node.name for node in STUB.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert named == set(lacuna.__all__)
    assert (PACKAGE / "py.typed").is_file()
    for node in functions(STUB.body):
        if node.name == "register_transformers":  # its options are Session's
            options = dict((name, default) for name, only, default in signature_of(node) if name not in ("method", "name"))
            found = inspect.signature(lacuna.Session).parameters
            assert set(options) | {"method"} == set(found)
            continue
        same(node, getattr(lacuna, node.name))
    for node in STUB.body:
        if isinstance(node, ast.ClassDef):
            kind = getattr(lacuna, node.name)
            for method in functions(node.body):
                same(method, kind if method.name == "__init__" else getattr(kind, method.name))
            listed = {x.target.id for x in node.body if isinstance(x, ast.AnnAssign)}
            if fields := getattr(kind, "__dataclass_fields__", None):
                assert listed == set(fields)


def test_everything_says_what_it_is():
    things = [getattr(lacuna, name) for name in lacuna.__all__]
    things += [getattr(lacuna.Plan, name) for name in vars(lacuna.Plan) if name.startswith("from_")]
    assert all(inspect.getdoc(thing) for thing in things)
    for function in (lacuna.attention, lacuna.plan, lacuna.attend):
        assert "ValueError" in function.__doc__ or "errors as there" in function.__doc__


def needs(what):
    library = PACKAGE / "_lacuna.so"
    return subprocess.run(["readelf", *what, str(library)], capture_output=True, text=True, check=True).stdout


def test_one_binary_for_all_versions_of_torch():
    """Of PyTorch the library asks for C functions of the stable interface only, and for no Python at all."""
    wanted = re.findall(r" UND (\S+)", needs(["-W", "--dyn-syms"]))
    theirs = [name for name in wanted if re.search(r"torch|c10|_ZN2at|caffe", name)]
    assert theirs and all(re.match(r"(aoti_torch|torch)_\w+(@\S+)?$", name) for name in theirs), theirs
    later = [name for name in theirs if name.startswith("torch_")]  # these came with 2.10
    assert not later, later
    assert not any(name.startswith("Py") for name in wanted)


def test_the_library_needs_what_a_machine_has():
    libraries = re.findall(r"NEEDED.*\[(.*)\]", needs(["-d", "-W"]))
    beside = {path.name for path in PACKAGE.iterdir()}
    ours = {"libtorch_cpu.so", "libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    assert set(libraries) <= ours | beside, libraries


README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text().split("## Use it from PyTorch")[1].split("\n## ")[0], re.S)


@pytest.mark.parametrize("block", range(len(README)))
def test_readme(block, capsys):
    pytest.importorskip("transformers")
    exec(compile("\n".join(README[:block + 1]), f"README.md, block {block}", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip() if "print" in README[block] else True


def test_the_readme_has_code():
    assert len(README) >= 3
