#!/usr/bin/env python3
"""The verbs of `lacuna` that need no model: exit codes, messages, JSON fields, width of the output.

    test/e2e/cli_verbs_test.py build/release/lacuna
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

LACUNA = ""
SMALL = "attend hq=4 hkv=2 nq=9 nkv=70 d=64 threads=2"


def run(*args, **variables):
    done = subprocess.run([LACUNA, *args], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, **variables})
    return done.returncode, done.stdout, done.stderr


class BadInput(unittest.TestCase):
    """Exit code 2, one line on stderr that holds what helps, nothing on stdout."""

    CASES = [
        (["benhc"], ["did you mean 'bench'"]),
        (["list", "--bogus"], ["--bogus"]),
        (["show", "xatention"], ["did you mean 'xattention'"]),
        (["show", "xattention:strid=8"], ["did you mean 'stride'"]),
        (["show", "xattention:stride=7"], ["xattention.stride", "7", "8"]),
        (["explain", "--shape", "hq=3,hkv=2"], ["hq=3 hkv=2", "multiple"]),
        (["explain", "--shape", "hq=2,hkv=2,nq=4,nkv=8", "--machine", "avx3"], ["avx3", "none, avx2, avx512"]),
        (["explain", "--shape", "hq=2,hkv=2,nq=4,nkv=8,keep=0.5"], ["keep", "method"]),
        (["explain", "--shape", "hq=2,hkv=2,nq=4,nkv=8", "--layers", "4", "--layer", "4"], ["--layer", "0..3"]),
        (["explain", "--shape", "hq=2,hkv=2,nq=4,nkv=8", "--method", "trianglemix:layer_start=9", "--layers", "4"], ["layer_start", "9"]),
        (["explain", "--shape", "hq=2,hkv=2,nq=4,nkv=8", "--data", "/nowhere/x"], ["/nowhere/x"]),
        (["check", "no_such_file.txt"], ["no_such_file.txt"]),
        (["check", "attend hqq=3 nq=2"], ["did you mean 'hq'"]),
        (["check", "atend nq=2 nkv=3"], ["did you mean 'attend'"]),
        (["check", "attend nq=9 nkv=8"], ["nq=9 nkv=8"]),
        (["check", "attend keep=0 nq=9"], ["keep=0", "above 0"]),
        (["check", "attend keep=nan nq=9"], ["keep=nan"]),
        (["check", "attend nq=99999999999999999999 nkv=8"], ["nq=99999999999999999999"]),
        (["check", "attend nkv=4194304 hkv=512 hq=512 d=1024 nq=1"], ["TiB"]),
        (["check", "attend kernel=cpu.reff nq=4"], ["did you mean 'cpu.ref'"]),
        (["check", "attend window=3 keep=0.5 nq=4"], ["window and keep"]),
        (["bench", "--peer", "foo", SMALL], ["foo"]),
        (["check", "choose nq=64 nkv=64"], ["for bench"]),
        (["bench", "choose method=xatention nq=64 nkv=64"], ["did you mean 'xattention'"]),
        (["bench", "choose chunk=1 nq=64 nkv=64"], ["chunk=1", "2 to"]),
        (["check", "attend kv=q8_0 d=80 nq=4 nkv=8"], ["d=80", "multiple of 32"]),
        (["check", "attend kv=f16 v=f32 nq=4 nkv=8"], ["kv=f16 v=f32"]),
        (["list", "--json", "/nowhere/at/all"], ["/nowhere/at/all"]),
        (["serve", "-m", "x", "--method", "xatention"], ["did you mean 'xattention'"]),
        (["serve", "--method=streamingllm:sink=-1"], ["streamingllm.sink", "-1", "0.."]),
        (["serve", "--audit", "some"], ["some", "sample"]),
        (["serve", "--precision"], ["--precision", "missing"]),
        (["list", "--json", "/tmp"], ["/tmp", "folder"]),
    ]

    def test_each(self):
        for args, parts in self.CASES:
            with self.subTest(args=args):
                code, out, err = run(*args)
                self.assertEqual(code, 2, err)
                self.assertEqual(out, "")
                self.assertEqual(err.count("\n"), 1, err)
                for part in parts:
                    self.assertIn(part, err)

    def test_the_line_of_a_file_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "cases.txt")
            file.write_text(f"# remark\n\n{SMALL}\nattend nq=x\n", encoding="utf-8")
            code, _, err = run("check", str(file))
        self.assertEqual(code, 2)
        self.assertIn("cases.txt:4: nq=x", err)


class Serve(unittest.TestCase):
    """A server that writes down what it was given stands in for llama-server."""

    SCRIPT = """#!/bin/sh
printf '%s\\n' "LACUNA=$LACUNA" "PLUGIN=$GGML_BACKEND_PATH" "$@"
"""

    def test_no_server(self):
        with tempfile.TemporaryDirectory() as folder:
            code, out, err = run("serve", "-m", "x.gguf", LLAMA_DIR=folder)
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(f"LLAMA_DIR={folder}", err)
            self.assertIn("llama-server", err)
            self.assertEqual(err.count("\n"), 1, err)
            code, out, _ = run("serve", "--help", LLAMA_DIR=folder)  # our half of the help needs no server
            self.assertEqual(code, 0)
            self.assertIn("--method SPEC", out)
            self.assertIn("no llama-server", out)

    def served(self, *args):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "llama-server")
            script.write_text(self.SCRIPT, encoding="utf-8")
            script.chmod(0o755)
            code, out, err = run("serve", *args, LLAMA_DIR=folder, LACUNA="", GGML_BACKEND_PATH="")
        if code == 2 and "plug-in is not there" in err:
            self.skipTest(err)
        self.assertEqual(code, 0, err)
        lines = out.splitlines()
        return lines[0], lines[1], lines[2:]

    def test_everything_else_passes_through(self):
        theirs = ["-m", "model.gguf", "-md", "draft.gguf", "-c", "4096", "--host", "0.0.0.0", "-ot", "a b=CPU", ""]
        spec, plugin, rest = self.served(*theirs[:4], "--method", "streamingllm:sink=4", *theirs[4:], "--audit=off")
        self.assertEqual(spec, "LACUNA=streamingllm:sink=4 audit=off precision=fast windowed=dense log=60s")
        self.assertTrue(plugin.endswith("/liblacuna-ggml.so"), plugin)
        self.assertEqual(rest, theirs)

    def test_behind_two_dashes_nothing_is_ours(self):
        spec, _, rest = self.served("--precision", "high", "--", "--method", "x", "--help")
        self.assertEqual(spec, "LACUNA=dense audit=sample precision=high windowed=dense log=60s")
        self.assertEqual(rest, ["--method", "x", "--help"])

    def test_stock_has_no_plugin(self):
        self.assertEqual(self.served("--method", "stock", "-m", "x"), ("LACUNA=", "PLUGIN=", ["-m", "x"]))

    def test_help_is_both(self):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "llama-server")
            script.write_text(self.SCRIPT, encoding="utf-8")
            script.chmod(0o755)
            code, out, _ = run("serve", "-m", "x", "--help", LLAMA_DIR=folder)
        self.assertEqual(code, 0)
        self.assertIn("--method SPEC", out)
        self.assertEqual(out.splitlines()[-1], "--help")  # what the server was asked for


class Json(unittest.TestCase):
    def document(self, *args, code=0):
        got, out, err = run(*args)
        self.assertEqual(got, code, err)
        return json.loads(out)

    def test_list(self):
        slugs = [m["slug"] for m in self.document("list", "--json")["methods"]]
        self.assertEqual(slugs[0], "dense")
        self.assertEqual(len(slugs), len(set(slugs)))

    def test_show_every_method(self):
        for method in self.document("list", "--json")["methods"]:
            shown = self.document("show", method["slug"], "--json")
            self.assertEqual(shown["title"], method["title"])
            # The spec with every parameter written out makes the same method.
            self.assertEqual(self.document("show", shown["spec"], "--json")["spec"], shown["spec"])

    def test_explain(self):
        shape = "hq=4,hkv=2,nq=64,nkv=1000,d=64"
        dense = self.document("explain", "--shape", shape, "--json")
        self.assertEqual(dense["density"], 1)
        self.assertEqual(dense["allowed_pairs"], 4 * (64 * 1000 - 63 * 64 // 2))
        sparse = self.document("explain", "--method", "streamingllm:sink=4:window=100", "--shape", shape, "--json")
        self.assertLess(sparse["density"], 0.2)
        self.assertEqual([k["kernel"] for k in sparse["kernels"] if k["refused"] is None], [sparse["kernel"]])
        self.assertEqual(sparse["kernels"][-1]["kernel"], "cpu.ref")  # the whole list, those behind the chosen too
        forced = self.document("explain", "--shape", shape, "--kernel", "cpu.ref", "--json")
        self.assertEqual(forced["kernel"], "cpu.ref")
        deep = "trianglemix:sink=4:window=64:last_rows=0"
        for layer, less in ((14, False), (15, True)):
            got = self.document("explain", "--method", deep, "--shape", shape, "--layers", "30", "--layer", str(layer), "--json")
            self.assertEqual(got["density"] < 1, less)
        self.assertEqual(self.document("explain", "--method", deep, "--shape", shape, "--json")["density"], 1)

    def test_check(self):
        got = self.document("check", SMALL, "--json")
        case = got["cases"][0]
        self.assertTrue(case["ok"])
        self.assertEqual(got["failed"], 0)
        for k in case["kernels"]:
            if k["ok"] is None:
                self.assertTrue(k["refused"])
            else:
                self.assertEqual(k["rows"], 4 * 9)
                self.assertLessEqual(k["error"], k["allowed"])
        # The line of the answer is a case that makes the same line.
        self.assertEqual(self.document("check", case["case"], "--json")["cases"][0]["case"], case["case"])

    def test_forced_kernel_of_any_cache(self):
        for kernel in ("cpu.avx2", "cpu.ref"):
            for kv in ("f16", "bf16", "f32"):
                line = f"{SMALL} kv={kv} kernel={kernel}"
                if kernel == "cpu.avx2" and "AVX2" not in self.document("doctor", "--json", code=run("doctor", "--json")[0])["features"].split():
                    self.skipTest("no AVX2")
                self.assertTrue(self.document("check", line, "--json")["cases"][0]["ok"])
                self.assertEqual(self.document("bench", line, "-r", "3", "--json")["cases"][0]["kernel"], kernel)

    def test_bench(self):
        line = "attend layout=block keep=0.3 block=32 hq=4 hkv=2 nq=64 nkv=640 d=64 threads=1"
        case = self.document("bench", line, "-r", "3", "--json")["cases"][0]
        self.assertLessEqual(case["ms"]["min"], case["ms"]["median"])
        self.assertLessEqual(case["ms"]["median"], case["ms"]["max"])
        self.assertGreater(case["gflops"], 0)
        self.assertAlmostEqual(case["density"], 0.3, delta=0.1)
        self.assertNotIn("peer", case)
        if case["kernel"] == "cpu.ref":
            self.assertNotIn("roofline_ms", case)
        else:  # nothing is quicker than what its products alone would take
            self.assertLess(0, case["roofline_ms"]["products"])
            self.assertLess(case["roofline_ms"]["products"], case["ms"]["max"])
            self.assertLess(0, case["roofline_ms"]["memory"])

    def test_choose(self):
        line = "choose method=xattention:mass=0.5 chunk=128 hq=4 hkv=2 nq=512 nkv=512 d=64 threads=1"
        if "AVX2" not in self.document("doctor", "--json", code=run("doctor", "--json")[0])["features"].split():
            self.skipTest("no AVX2: nothing is left out")
        case = self.document("bench", line, "-r", "2", "--json")["cases"][0]
        self.assertEqual(case["rounds"], 2)
        self.assertLess(case["density"], 1)
        self.assertGreater(case["share_of_dense"]["median"], 0)

    def test_peer(self):
        code, out, err = run("bench", SMALL.replace("nq=9 nkv=70", "nq=65 nkv=700"), "-r", "3", "--peer", "llama", "--json")
        if code == 2 and "no llama.cpp" in err:
            self.skipTest(err)
        self.assertEqual(code, 0, err)
        case = json.loads(out)["cases"][0]
        self.assertLess(case["peer"]["max_difference"], 0.02)  # both computed the same thing
        self.assertAlmostEqual(case["ratio"], case["peer"]["ms"] / case["ms"]["median"], places=6)

    @staticmethod
    def cores():
        siblings = lambda cpu: pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        return len({siblings(c).read_text() if siblings(c).exists() else c for c in os.sched_getaffinity(0)})

    def test_doctor_judges_the_llama_it_found(self):
        # A folder with a ggml of an unknown version, built by an old GCC without our flags.
        stub = os.environ.get("LACUNA_GGML_STUB")
        if not stub:
            self.skipTest("no stub of ggml")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("libggml-base.so", "libggml.so", "libllama.so", "libggml-cpu.so"):
                shutil.copy(stub, pathlib.Path(folder, name))
            with open(pathlib.Path(folder, "libggml-cpu.so"), "ab") as f:
                f.write(b"GCC: (Debian 12.2.0-14) 12.2.0\0")
            done = subprocess.run([LACUNA, "doctor", "--json"], capture_output=True, text=True, check=False,
                                  env={**os.environ, "LLAMA_DIR": folder})
        found = {f["what"]: f for f in json.loads(done.stdout)["findings"]}
        self.assertEqual(done.returncode, 1)
        self.assertEqual(found["its ggml"]["state"], "missing")
        self.assertIn("0.99.0", found["its ggml"]["detail"])
        self.assertIn("GCC 12", found["its compiler"]["detail"])
        self.assertEqual(found["its compiler"]["state"], "note")

    def test_doctor(self):
        got = self.document("doctor", "--json", code=run("doctor", "--json")[0])
        self.assertTrue(got["features"])
        for finding in got["findings"]:
            self.assertIn(finding["state"], ("ok", "note", "missing"))
            if finding["state"] == "missing":
                self.assertTrue(finding["mend"], finding)
        self.assertEqual(got["cores"], self.cores())
        self.assertEqual(got["missing"], sum(f["state"] == "missing" for f in got["findings"]))

    def test_json_file_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "out.json")
            code, _, err = run("list", "--json", str(file))
            self.assertEqual(code, 0, err)
            self.assertIn("methods", json.loads(file.read_text(encoding="utf-8")))
            self.assertEqual([p.name for p in pathlib.Path(folder).iterdir()], ["out.json"])


class Docs(unittest.TestCase):
    def test_stale_page_and_stranger(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(run("docs", "--check", "--out", folder)[0], 1)
            self.assertEqual(run("docs", "--out", folder)[0], 0)
            self.assertEqual(run("docs", "--check", "--out", folder)[0], 0)
            self.assertEqual([p for p in pathlib.Path(folder).rglob("*") if p.suffix == ".part"], [])
            page = pathlib.Path(folder, "methods", "dense.md")
            page.write_text(page.read_text(encoding="utf-8") + "x", encoding="utf-8")
            code, out, _ = run("docs", "--check", "--out", folder)
            self.assertEqual(code, 1)
            self.assertIn("methods/dense.md", out)
            self.assertEqual(run("docs", "--out", folder)[0], 0)
            pathlib.Path(folder, "methods", "gone.md").write_text("old", encoding="utf-8")
            self.assertEqual(run("docs", "--check", "--out", folder)[0], 1)


    def test_pages_say_what_is_there(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(run("docs", "--out", folder)[0], 0)
            for page in pathlib.Path(folder).rglob("*.md"):
                text = page.read_text(encoding="utf-8")
                for link in re.findall(r"\]\(([^):]+)\)", text):
                    there = (page.parent / link).exists() or link == "../../laws.md"
                    self.assertTrue(there, f"{page.name} links {link}")
                for source in re.findall(r"^Source: `(.+)`", text, re.MULTILINE):
                    self.assertTrue((root / source).is_file(), source)
            kernels = pathlib.Path(folder, "kernels.md").read_text(encoding="utf-8")
            for kernel in ("cpu.avx2", "cpu.avx2.decode", "cpu.avx512"):  # lane16 takes every cache type
                self.assertIn(f"| `{kernel}` | high | 1 | 16-256 | 16-256 | 16-256 |", kernels)


class Width(unittest.TestCase):
    def test_80_columns_and_no_colour_in_a_pipe(self):
        for args in (["list"], ["show", "xattention"], ["--help"],
                     ["explain", "--method", "xattention", "--shape", "hq=4,hkv=2,nq=128,nkv=1024,d=64"]):
            _, out, _ = run(*args)
            self.assertNotIn("\033", out)
            for line in out.splitlines():
                self.assertLessEqual(len(line), 80, line)


if __name__ == "__main__":
    LACUNA = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
