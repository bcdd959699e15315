# SPDX-License-Identifier: Apache-2.0
"""lacuna compare --task from outside: built-in tasks and files of samples, with a small model at small lengths.

    test/e2e/cli_task_test.py LACUNA [MODELS [TEST...]]

Without the small model or the plug-in, what needs them is skipped.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LACUNA = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/release/lacuna").resolve()
MODELS = pathlib.Path(os.environ.get("LACUNA_MODELS") or (sys.argv[2] if len(sys.argv) > 2 else "models"))
MODEL = MODELS / "smollm2-135m-instruct.gguf"
NEEDED = (MODEL, LACUNA.with_name("liblacuna-ggml.so"))
NARROW = "streamingllm:sink=4:window=64"
# Sentences enough for the lengths below, with 160 different words for a list of them.
SYLLABLES = "ba ke lo mi nu ra so ti ve ga".split()
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES[:4] for c in SYLLABLES[4:8]]
TEXT = " ".join(f"The old {WORDS[i]} lies {i} miles from the {WORDS[i * 7 % 160]}." for i in range(160))


def lacuna(*arguments):
    return subprocess.run([LACUNA, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def bytes_of_child(pid):
    """What a process's child has written so far; 0 while there is none."""
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        return int(pathlib.Path(f"/proc/{child}/io").read_text().split("wchar: ")[1].split()[0])
    return 0


class Refusals(unittest.TestCase):
    """What needs no model."""

    def refused(self, arguments, *words):
        done = lacuna("compare", "-m", "no-model.gguf", *arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_tasks_are_listed_and_documented(self):
        tasks = json.loads(lacuna("list", "--tasks", "--json").stdout)["tasks"]
        out = lacuna("list", "--tasks").stdout
        documented = pathlib.Path(__file__).parents[2].joinpath("docs/compare.md").read_text(encoding="utf-8")
        self.assertEqual(len(tasks), 8)
        for task in tasks:
            self.assertIn(f"  {task['name']} ", out)
            self.assertIn(f"| `{task['name']}` |", documented)

    def test_words_that_do_not_fit(self):
        self.refused(["--task", "needel"], "did you mean 'needle'", "passkey", "perplexity", "*.jsonl")
        self.refused(["--task", "needle", "-p", "What?"], "-p")
        self.refused(["--task", "needle", "--runs", "2"], "--runs", "--samples")
        self.refused(["--task", "x.jsonl", "-f", "text"], "-f text", "x.jsonl")
        self.refused(["--task", "x.jsonl", "--lengths", "1k"], "--lengths", "x.jsonl")
        self.refused(["--task", "/no/such.jsonl"], "/no/such.jsonl")
        self.refused(["--samples", "3", "-p", "hi"], "--samples", "--task")
        self.refused(["--task", "needle", "-f", "/no/text"], "/no/text")


@unittest.skipUnless(all(f.exists() for f in NEEDED), "needs " + " and ".join(map(str, NEEDED)))
class Tasks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = self.folder / "text"
        self.text.write_text(TEXT)

    def compared(self, *arguments, code=0):
        """What ended, and the document."""
        report = self.folder / "report.json"
        done = lacuna("compare", "-m", MODEL, "-t", 1, "--json", report, *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return done, json.loads(report.read_text())

    def test_needle(self):
        page = self.folder / "page.html"
        done, document = self.compared("--task", "needle", "-f", self.text, "--samples", 3, "--lengths", "300,600", "--methods", NARROW,
                                       "--html", page)
        again = lacuna("compare", "--from", self.folder / "report.json")
        self.assertEqual(again.stdout.strip(), done.stdout.strip())
        self.assertLessEqual(max(len(l) for l in done.stdout.splitlines()[:-1]), 80)
        self.assertEqual((document["task"]["name"], document["methods"], document["partial"]), ("needle", ["dense", NARROW], None))
        for asked, length in zip((300, 600), document["lengths"]):
            self.assertEqual(length["text_tokens"], asked)
            self.assertTrue(0.9 * asked < length["prompt_tokens"] <= asked - 16, length["prompt_tokens"])
            self.assertEqual([s["depth"] for s in length["samples"]], [0, 0.5, 1])
            dense, sparse = length["runs"]
            for run in (dense, sparse):
                self.assertEqual((run["state"], len(run["samples"])), ("done", 3))
                self.assertEqual(run["score"], sum(s["score"] for s in run["samples"]) / 3)
                for sample, asked_for in zip(run["samples"], length["samples"]):
                    self.assertEqual(sample["score"], float(asked_for["turns"][0]["answers"][0] in sample["answers"][0]))
            self.assertEqual((dense["agreement"], dense["same_answers"]), (1, 1))
            self.assertGreater(dense["score"], sparse["score"])  # 64 keys do not reach a needle in the middle
            self.assertLess(sparse["agreement"], 1)
            self.assertLess(sparse["density"]["prefill"], 0.7)
            self.assertGreater(sparse["kl_mean"], dense["kl_mean"])
        html = page.read_text()
        self.assertEqual(html.count('<figure id="depth-'), 2)
        self.assertIn('<figure id="agreement"', html)

    def test_every_task_runs(self):
        for task in json.loads(lacuna("list", "--tasks", "--json").stdout)["tasks"]:
            with self.subTest(task=task["name"]):
                _, document = self.compared("--task", task["name"], "-f", self.text, "--samples", 1, "--lengths", 600, "--no-kl")
                length = document["lengths"][0]
                run = length["runs"][0]
                self.assertEqual((run["state"], run["agreement"]), ("done", 1))
                self.assertLessEqual(run["prompt_tokens"], 600)
                self.assertGreater(run["prompt_tokens"], 450)
                if task["score"] == "perplexity":
                    self.assertTrue(1 < run["score"] < 1000, run["score"])
                else:
                    self.assertTrue(0 <= run["score"] <= 1, run["score"])
                    self.assertEqual(len(run["samples"][0]["answers"]), 4 if task["name"] == "multi-turn" else 1)
                    self.assertLess(run["read_tokens"], 700)  # of several turns too: the document is read once

    def jsonl(self, *samples):
        file = self.folder / "mine.jsonl"
        file.write_text("".join(json.dumps(s) + "\n" for s in samples))
        return file

    def test_a_document_is_shared_and_nothing_changes(self):
        book, other = ({"context": text} for text in (TEXT[:1500], TEXT[1500:2000]))
        questions = [{"question": q, "answer": "x", "max_tokens": 8} for q in ("How far away is the first one?", "What lies 3 miles away?")]
        found = []
        for samples in ([book | q for q in questions], [book | questions[0], other | questions[0], book | questions[1]]):
            _, document = self.compared("--task", self.jsonl(*samples), "--no-kl")
            run = document["lengths"][0]["runs"][0]
            found.append(([run["samples"][i]["answers"] for i in (0, -1)], run["read_tokens"]))
        (shared, read_once), (apart, read_twice) = found
        self.assertEqual(shared, apart)
        self.assertLess(read_once * 1.6, read_twice)

    def test_a_file_of_ones_own(self):
        one = {"context": "The cat is red.", "question": "Which colour has the cat?", "prefix": "The cat is", "answers": "red", "max_tokens": 4}
        _, document = self.compared("--task", self.jsonl(one), "--no-kl")
        said = document["lengths"][0]["runs"][0]["samples"][0]["answers"][0]  # right or wrong, the same again
        done, document = self.compared("--task", self.jsonl(one | {"answers": ["qqq", said]}, one | {"answers": ["qqq"]}, one), "--samples", 2, "--no-kl")
        run = document["lengths"][0]["runs"][0]
        self.assertEqual(([s["score"] for s in run["samples"]], run["score"]), ([1, 0], 0.5))
        self.assertIn("Task mine", done.stdout)
        file = self.jsonl(one, one, {"question": "?"})
        refused = lacuna("compare", "-m", MODEL, "--task", file)
        self.assertEqual(refused.returncode, 2)
        self.assertIn(f"{file}:3: needs 'answer'", refused.stderr)

    def test_too_short_a_text(self):
        done = lacuna("compare", "-m", MODEL, "--task", "passkey", "-f", self.text, "--lengths", "300,8k")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"--task passkey at 8k tokens of .*: the text has \d+ tokens, \d+ are needed")
        done = lacuna("compare", "-m", MODEL, "--task", "passkey", "-f", self.text, "--lengths", "20")
        self.assertRegex(done.stderr, r"--task passkey at 20 tokens of .*: 20 tokens do not hold")

    def test_what_cannot_run_is_listed(self):
        done, document = self.compared("--task", "passkey", "-f", self.text, "--samples", 1, "--lengths", 300, "--no-kl", "--methods", "stock",
                                       "--kernel", "no.such.kernel", code=1)
        dense, stock = document["lengths"][0]["runs"]
        self.assertEqual((dense["state"], stock["state"], stock["agreement"]), ("refused", "done", None))
        self.assertIn("no.such.kernel", done.stdout)

    def test_interrupted(self):
        report = self.folder / "report.json"
        child = subprocess.Popen([LACUNA, "compare", "-m", MODEL, "--task", "passkey", "-f", self.text, "--samples", "200", "--lengths", "300,600",
                                  "-t", "1", "--json", report], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        while child.poll() is None and bytes_of_child(child.pid) < 500:  # some of the samples
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=120)
        self.assertEqual(child.returncode, 130, err)
        document = json.loads(report.read_text())
        self.assertEqual(document["partial"], {"why": "interrupted", "done": 0, "planned": 2})
        first, second = (length["runs"][0] for length in document["lengths"])
        self.assertEqual((first["state"], second["state"]), ("cut", "missing"))
        self.assertTrue(0 < len(first["samples"]) < 200, len(first["samples"]))
        self.assertTrue(0 <= first["score"] <= 1)
        self.assertIn("Partial (interrupted): 0 of 2 runs are whole.", out)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
