#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lacuna bench --save, --against, --fail-above and --history.

    test/e2e/bench_saved_test.py LACUNA [FOLDER]

Files are made from one real run by changing its times. Pictures of the page go to FOLDER, if named.
"""
import copy
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

from chromium import Browser

LACUNA = ""
PICTURES = None
CASES = ["attend hq=4 hkv=2 nq=64 nkv=640 d=64 threads=1", "attend layout=block keep=0.3 block=32 hq=4 hkv=2 nq=64 nkv=640 d=64 threads=1"]


def run(*arguments):
    done = subprocess.run([LACUNA, "bench", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def slower(saved, factor, **fields):
    """The file of a run that took `factor` times as long."""
    made = copy.deepcopy(saved) | fields
    for case in made["cases"]:
        case["rounds"] = [factor * x for x in case["rounds"]]
    return made


class Saved(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.home.name)
        code, cls.out, err = run(*CASES, "-r", 9, "--save", cls.folder / "first.json")
        assert code == 0, err
        cls.saved = json.loads((cls.folder / "first.json").read_text())

    @classmethod
    def tearDownClass(cls):
        cls.home.cleanup()

    def file(self, name, document):
        path = self.folder / name
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return path

    def test_what_is_kept(self):
        self.assertEqual([len(c["rounds"]) for c in self.saved["cases"]], [9, 9])
        self.assertEqual((self.saved["format"], self.saved["version"]), ("lacuna-bench", 1))
        self.assertIn("cores", self.saved["machine"])
        self.assertRegex(self.saved["date"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        for case in self.saved["cases"]:  # the median that was printed is that of the rounds kept
            line = self.out.splitlines()[self.out.splitlines().index(case["case"]) + 1]
            self.assertAlmostEqual(float(line.split()[1]), sorted(case["rounds"])[4], delta=0.0006)

    def test_much_slower_and_much_faster(self):
        for factor, verdict, words in ((100, "faster", "2 faster, 0 SLOWER"), (0.01, "SLOWER", "0 faster, 2 SLOWER")):
            code, out, err = run(*CASES, "-r", 9, "--against", self.file("then.json", slower(self.saved, factor)))
            self.assertEqual((code, err), (0, ""))
            self.assertEqual(out.count(f"), {verdict}\n"), 2, out)
            self.assertIn(words, out)
            self.assertIn("geometric mean", out)

    def test_json(self):
        then = self.file("then.json", slower(self.saved, 10))
        code, out, err = run(*CASES[:1], "-r", 9, "--against", then, "--json")
        self.assertEqual((code, err), (0, ""))
        document = json.loads(out)
        case, whole = document["cases"][0]["against"], document["against"]
        self.assertLessEqual(case["low"], case["ratio"])
        self.assertLessEqual(case["ratio"], case["high"])
        self.assertEqual(case["verdict"], "faster")
        self.assertAlmostEqual(whole["geometric_mean"], case["ratio"])
        self.assertEqual([whole[k] for k in ("faster", "slower", "within_noise", "same_machine")], [1, 0, 0, True])
        self.assertEqual(whole["only_then"], [self.saved["cases"][1]["case"]])

    def test_fail_above(self):
        then = self.file("then.json", slower(self.saved, 0.01))
        code, out, err = run(*CASES, "-r", 9, "--against", then, "--fail-above", 2)
        self.assertEqual(code, 1)
        self.assertIn("2 cases take more than 2 times", err)
        self.assertIn("0 faster, 2 SLOWER", out)  # what was found is told all the same
        self.assertEqual(run(*CASES, "-r", 9, "--against", then, "--fail-above", 1e5)[0], 0)
        self.assertEqual(run(*CASES, "-r", 9, "--against", self.file("then.json", slower(self.saved, 100)), "--fail-above", 1)[0], 0)

    def test_another_machine(self):
        then = self.file("then.json", slower(self.saved, 0.01, machine="Abacus, 10 beads"))
        code, out, err = run(*CASES, "-r", 9, "--against", then)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("Warning: another machine. There: Abacus, 10 beads.", out.replace("\n", " "))
        self.assertIn("geometric mean", out)
        self.assertNotIn("SLOWER", out)
        code, out, err = run(*CASES, "-r", 9, "--against", then, "--fail-above", 2)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("another machine", err)

    def test_files_that_are_none(self):
        cases = self.saved["cases"]
        few = slower(self.saved, 1) | {"cases": [cases[0] | {"rounds": [1, 2, 3]}]}
        for text, words in (("", "no file of bench --save"), ("[1]", "no file of bench"), ('{"format": 3}', "no file of bench"),
                            (self.saved | {"version": 2}, "version 2"), (self.saved | {"cases": []}, "no cases"),
                            (self.saved | {"machine": 3}, "no machine"), (few, "case 1 has 3 rounds"),
                            (self.saved | {"cases": [cases[0], cases[1] | {"rounds": [1, 2, 3, -4]}]}, "case 2 has the round -4"),
                            (self.saved | {"cases": [cases[0] | {"figure": "furlongs"}]}, "neither ms nor"),
                            (self.saved | {"cases": [7]}, "case 1 is no object"), ("[" * 100000, "no file of bench")):
            for option in ("--against", "--history"):
                more = ["--html", self.folder / "none.html"] if option == "--history" else CASES[:1]
                code, out, err = run(*more, option, self.file("bad.json", text))
                self.assertEqual((code, out, err.count("\n")), (2, "", 1), err)
                self.assertIn(words, err)
                self.assertIn(f"{option} ", err)
        self.assertFalse((self.folder / "none.html").exists())

    def test_flags_that_do_not_go_together(self):
        first = self.folder / "first.json"
        for arguments, words in ((["--fail-above", 2, *CASES], "--against"), (["--history", first], "--html"), (["--html", "x.html", *CASES], "--history"),
                                 (["--history", first, "--html", self.folder / "x.html", "--against", first], "--history"),
                                 (["--save", self.folder / "few.json", "-r", 3, *CASES], "got 3"), (["--save", "/no/such/f.json", *CASES], "/no/such/f.json"),
                                 (["--against", "/no/such.json", *CASES], "/no/such.json")):
            code, out, err = run(*arguments)
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), err)
            self.assertIn(words, err)
        self.assertFalse((self.folder / "few.json").exists())

    def history(self):
        """Five runs, given out of order: the fourth is slower than the third; one more of another machine."""
        files = []
        for i in (3, 0, 1, 4, 2):
            factor = [1, 0.9, 0.8, 1.3, 1.15][i]
            made = slower(self.saved, factor, date=f"2026-11-0{i + 1}T00:00:00Z", commit=f"{i}abcdef")
            for case in made["cases"]:
                case["rounds"] = [5 * factor * (1 + 0.01 * math.sin(j + i)) for j in range(9)]
            files.append(self.file(f"h{i}.json", made))
        files.append(self.file("other.json", slower(self.saved, 1, machine="<i>Abacus</i>")))
        page = self.folder / "history.html"
        code, out, err = run("--history", *files, "--html", page)
        self.assertEqual((code, out, err), (0, "", ""))
        return page

    def test_history(self):
        text = self.history().read_text()
        self.assertEqual(text.count("<h2>"), 2)
        self.assertIn("&lt;i&gt;Abacus", text)
        self.assertEqual(text.count("<figure"), 2)  # a single run on a machine has no history
        self.assertEqual(text.count('class="ring"'), 2)
        self.assertLess(text.index("0abcdef"), text.index("4abcdef"))  # by date
        self.assertIn("SLOWER", text)

    @unittest.skipUnless(Browser.there(), "no Chromium")
    def test_history_in_chromium(self):
        page = self.history()
        with Browser() as browser:
            for width, dark in ((1200, False), (400, True)):
                browser.show(f"file://{page}", width, dark)
                self.assertEqual(browser.ask("document.querySelectorAll('figure svg path').length"), 10)
                self.assertLessEqual(browser.ask("document.documentElement.scrollWidth"), width)
                if PICTURES:
                    browser.picture(pathlib.Path(PICTURES, f"history-{width}.png"))
            self.assertEqual(browser.errors, [])


if __name__ == "__main__":
    LACUNA = str(pathlib.Path(sys.argv.pop(1)).resolve())
    PICTURES = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    unittest.main(verbosity=2)
