#!/usr/bin/env python3
"""lacuna run and compare from outside: exit codes, one-line errors, JSON fields.

    test/e2e/cli_run_test.py LACUNA [MODELS]

LACUNA is the program, MODELS the folder of `make models` (or $LACUNA_MODELS). Without the small
model or the plug-in, what needs them is skipped, with a line that says so.
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
PLUGIN = LACUNA.with_name("liblacuna-ggml.so")

FIELDS = """model prompt_tokens generated_tokens method host kernel ttft_s prefill_tok_s decode_tok_s
attention_s attention_s_windowed attention_s_decode contract_s audit_share windowed_layers density lost_mass lost_mass_decode
output_error output_error_decode top_recall top_recall_decode contract certificate
kv_bytes_read_per_token peak_rss_bytes side_bytes text""".split()
INNER = {
    "attention_s": ["estimate", "budget", "attend", "correct", "account"],
    "attention_s_decode": ["estimate", "budget", "attend", "correct", "account"],
    "density": ["prefill", "decode"],
    "audit_share": ["prefill", "decode"],
    **{f: ["mean", "lower", "rows"] for f in ("top_recall", "top_recall_decode")},
    **{f: ["mean", "upper", "p95", "max", "rows"] for f in ("lost_mass", "lost_mass_decode", "output_error", "output_error_decode")},
}
# About 600 tokens: more than a micro-batch, and rows with the 256 visible keys an audit wants.
TEXT = "".join(f"Box {i} holds {i * 7 % 13} red and {i * 5 % 11} blue marbles.\n" for i in range(40))


def lacuna(*arguments, stdin=None):
    return subprocess.run([LACUNA, *map(str, arguments)], capture_output=True, text=True,
                          stdin=stdin or subprocess.DEVNULL, timeout=300)


class Lines(unittest.TestCase):
    """Bad input: exit code 2, and one line on stderr that names the value and the mend."""

    def refused(self, arguments, *words):
        done = lacuna(*arguments)
        self.assertEqual(done.returncode, 2, f"{arguments}: {done.stderr}")
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("lacuna: "), lines[0])
        for word in words:
            self.assertIn(word, lines[0])
        self.assertEqual(done.stdout, "")


class Arguments(Lines):
    def test_verb(self):
        self.refused(["rnu"], "'rnu'", "run", "compare")

    def test_page(self):
        self.refused(["compare", "-m", MODEL, "-p", "x", "--html", "/nowhere/page.html"], "--html /nowhere/page.html", "cannot write")

    def test_lengths(self):
        command = ["compare", "-m", "x", "-f", "x", "--lengths"]
        for word in ("0", "-1", "2kk", "k", "1.5k", "many", "99999999k", "99999999999999999999"):
            self.refused([*command, f"1k,{word}"], "--lengths", f"'{word}'", "k = 1024")
        self.refused([*command, "1k,"], "--lengths", "''")
        self.refused(["compare", "-m", "x", "-p", "hi", "--lengths", "1k"], "--lengths", "-f FILE")
        self.refused(["compare", "-p", "hi"], "--model")
        self.refused(["compare", "-m", "x", "-f", "x", "--json", "/tmp/same", "--html", "/tmp/same"], "--html /tmp/same", "--json")

    def test_option(self):
        self.refused(["run", "-m", "x", "-p", "hi", "--frob"], "--frob")
        self.refused(["run", "-p", "hi"], "--model")
        self.refused(["run", "-m", "x", "-p", "hi", "-n", "-3"], "-3", "0")
        self.refused(["run", "-m", "x", "-p", "hi", "-ctk", "q9"], "q9", "f16")
        self.refused(["run", "-m", "x", "-p", "hi", "--audit", "some"], "some", "sample")
        self.refused(["run", "-m", "x"], "-f", "-p")
        for share in ("0", "1", "-1%", "lots", "1 %"):
            self.refused(["run", "-m", "x", "-p", "hi", f"--max-loss={share}"], "--max-loss", f"'{share}'", "1%")
            self.refused(["serve", "-m", "x", f"--max-error={share}"], "--max-error", f"'{share}'", "1%")
        self.refused(["run", "-m", "x", "-p", "hi", "--max-loss", "1%", "--max-error", "1%"], "one of them")
        self.refused(["run", "-m", "x", "-p", "hi", "--max-loss", "1%", "--certify", "5%"], "one of them")
        self.refused(["run", "-m", "x", "-p", "hi", "--certify=120%"], "--certify", "'120%'", "5%")

    def test_method(self):
        for verb, option in (("run", "--method"), ("compare", "--methods")):
            self.refused([verb, "-m", "x", "-p", "hi", option, "streamingllmm"], "streamingllmm", "'streamingllm'")
            self.refused([verb, "-m", "x", "-p", "hi", option, "streamingllm:snk=4"], "snk", "'sink'")
            self.refused([verb, "-m", "x", "-p", "hi", option, "streamingllm:sink=-1"], "sink", "-1", "..")

    def test_calibrate(self):
        whole = ["-m", "x", "-f", "x", "-o", "/tmp/p.json"]
        self.refused(["calibrate", "xattention", *whole], "xattention has nothing to calibrate", "methods that do")
        self.refused(["calibrate", "xatention", *whole], "'xattention'")
        self.refused(["calibrate", "xattention:stride=99", *whole], "xattention.stride", "99")
        self.refused(["calibrate", "xattention", "-m", "x", "-f", "x"], "--output")

    def test_unwritable_json(self):
        self.refused(["run", "-m", "x", "-p", "hi", "--json", "/no such folder/x.json"], "/no such folder/x.json")
        self.refused(["run", "-m", "x", "-p", "hi", "--json", "/tmp"], "/tmp", "folder")

    def test_help(self):
        for verb in ("run", "compare", "calibrate"):
            done = lacuna(verb, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("--model", done.stdout)
            self.assertIn("130 interrupted", done.stdout)


class Files(Lines):
    def test_no_model(self):
        self.refused(["run", "--method", "stock", "-m", "/no/model.gguf", "-p", "hi"], "/no/model.gguf")

    def test_no_gguf(self):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(b"hello, this is no model\n")
            f.flush()
            self.refused(["run", "--method", "stock", "-m", f.name, "-p", "hi"], f.name, "GGUF")

    def test_folder(self):
        self.refused(["run", "--method", "stock", "-m", "/tmp", "-p", "hi"], "folder")


def catches_interrupt(child):
    """Whether the process has said what Ctrl-C shall do (bit 2 of the caught signals)."""
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    return int(status.split("SigCgt:")[1].split()[0], 16) & 2


class Runs(Lines):
    def run_json(self, *arguments):
        done = lacuna("run", "-m", MODEL, "--json", "-", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        run = json.loads(done.stdout)
        self.assertEqual([k for k in run if k != "patterns"], FIELDS)
        for field, keys in INNER.items():
            self.assertEqual(list(run[field]), keys)
        return run


@unittest.skipUnless(MODEL.exists(), f"{MODEL} is not there: make models")
class Stock(Runs):
    def test_cut_off_model(self):
        data = MODEL.read_bytes()
        for share in (0.001, 0.5, 0.999):  # in the header, in the weights, in the last weight
            with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
                f.write(data[: int(len(data) * share)])
                f.flush()
                self.refused(["run", "--method", "stock", "-m", f.name, "-p", "hi"], f.name, "cut off")

    def test_prompt_longer_than_context(self):
        self.refused(["run", "--method", "stock", "-m", MODEL, "-p", TEXT, "-c", 256], "256", "-c ")

    def test_missing_text(self):
        self.refused(["run", "--method", "stock", "-m", MODEL, "-f", "/no/text.txt"], "/no/text.txt")

    def test_fields_of_stock(self):
        run = self.run_json("--method", "stock", "-p", "What is the capital of France?", "-n", 6)
        self.assertEqual(run["method"], "stock")
        self.assertIn("Paris", run["text"])
        self.assertGreater(run["prompt_tokens"], 6)
        self.assertLessEqual(run["generated_tokens"], 6)
        for field in ("ttft_s", "prefill_tok_s", "decode_tok_s"):
            self.assertGreater(run[field], 0)
        self.assertGreater(run["peak_rss_bytes"], 20e6)
        for field in INNER:
            self.assertTrue(all(x is None for x in run[field].values()))

    def test_chat_and_plain(self):
        chat = self.run_json("--method", "stock", "-p", "one two", "-n", 0)
        plain = self.run_json("--method", "stock", "-p", "one two", "-n", 0, "--no-chat")
        self.assertGreater(chat["prompt_tokens"], plain["prompt_tokens"])
        self.assertEqual(plain["prompt_tokens"], 2)
        self.assertEqual(plain["generated_tokens"], 0)
        self.assertIsNone(plain["decode_tok_s"])

    def test_micro_batches_change_nothing(self):
        one = self.run_json("--method", "stock", "-p", TEXT, "-n", 4)
        many = self.run_json("--method", "stock", "-p", TEXT, "-n", 4, "-ub", 100)
        self.assertGreater(one["prompt_tokens"], 512)
        self.assertEqual(one["text"], many["text"])

    def test_json_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "run.json"
            done = lacuna("run", "-m", MODEL, "--method", "stock", "-p", "hi", "-n", 1, "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(os.listdir(folder), ["run.json"])
            run = json.loads(path.read_text())
            self.assertTrue(done.stdout.startswith(run["text"]))
            self.assertIn("memory", done.stdout)


@unittest.skipUnless(MODEL.exists() and PLUGIN.exists(), f"{MODEL} or {PLUGIN} is not there: make models build")
class WithPlugin(Runs):
    def test_fields_of_dense(self):
        run = self.run_json("--method", "dense", "--precision", "high", "-p", TEXT, "-n", 4)
        stock = self.run_json("--method", "stock", "-p", TEXT, "-n", 4)
        self.assertEqual(run["text"], stock["text"])
        self.assertIsInstance(run["kernel"], str)
        self.assertEqual(run["density"], {"prefill": 1.0, "decode": 1.0})
        self.assertGreater(run["attention_s"]["attend"], 0)
        self.assertGreater(run["kv_bytes_read_per_token"], 0)

    def test_sparse_is_sparse(self):
        run = self.run_json("--method", "streamingllm:sink=4:window=128", "--audit", "full", "-p", TEXT, "-n", 3)
        self.assertLess(run["density"]["prefill"], 0.7)
        self.assertGreater(run["lost_mass"]["rows"], 0)
        self.assertTrue(0 < run["lost_mass"]["mean"] < 1)
        # Two steps after the prompt's own token, 30 layers of 9 heads; they lose mass as well.
        self.assertEqual(run["lost_mass_decode"]["rows"], 2 * 30 * 9)
        self.assertTrue(0 < run["lost_mass_decode"]["mean"] < 1)

    def test_certificate(self):
        run = self.run_json("--method", "quest:budget=64", "--certify", "5%", "--audit", "full", "--precision", "high", "-p", TEXT, "-n", 4)
        proved = run["certificate"]
        self.assertEqual((proved["limit"], proved["within"], proved["rows"] % 270), (0.05, 1.0, 0))
        self.assertGreater(proved["rows"], 0)
        self.assertLessEqual(proved["max"], 0.05)
        for figure in ("mean", "max"):  # but for the rounding of two log-sum-exps
            self.assertLessEqual(run["lost_mass_decode"][figure], proved[figure] + 1e-4)
        self.assertIsNone(self.run_json("--method", "quest", "-p", "hi", "-n", 1)["certificate"])

    def test_patterns(self):
        arguments = ("--method", "streamingllm:sink=4:window=128", "-p", TEXT, "-n", 1)
        self.assertNotIn("patterns", self.run_json(*arguments))
        run = self.run_json(*arguments, "--patterns")
        patterns = run["patterns"]
        self.assertEqual([len(layer) for layer in patterns["density"]], [9] * 30)
        mean = sum(map(sum, patterns["density"])) / 270
        self.assertAlmostEqual(mean, run["density"]["prefill"], places=2)
        self.assertEqual([(m["layer"], m["head"]) for m in patterns["maps"]], [(l, h) for l in (7, 15, 22) for h in (2, 6)])
        for m in patterns["maps"]:  # the last row sees four parts, keeps most of its own, and of the second nothing
            self.assertEqual(m["kept"][3][1], "0")
            self.assertIn(m["kept"][3][3], "6789")
            self.assertEqual(m["lost"][3][1], m["mass"][3][1])
        self.refused(["run", "-m", MODEL, "-p", "x", "--patterns", "--audit", "off"], "--patterns", "--audit sample")

    def test_contract(self):
        # 600 tokens are too few to show anything: all heads stay dense, and the contract is kept.
        run = self.run_json("--method", "streamingllm:sink=4:window=64", "--max-loss", "1%", "-p", TEXT, "-n", 2)
        contract = run["contract"]
        self.assertEqual((contract["limit"], contract["of"]), (0.01, "lost_mass"))
        self.assertEqual((contract["prefill"]["state"], contract["prefill"]["heads"]), ("held", 270))
        self.assertEqual(contract["prefill"]["dense_heads"], 270)
        self.assertEqual(run["density"]["prefill"], 1.0)
        # A loose one leaves room for some.
        run = self.run_json("--method", "streamingllm:sink=4:window=64", "--max-error=90%", "--ubatch-size", 64, "-p", TEXT, "-n", 2)
        self.assertEqual(run["contract"]["of"], "output_error")
        self.assertLess(run["density"]["prefill"], 1.0)
        self.assertIn(run["contract"]["prefill"]["state"], ("held", "open"))
        self.assertIsNone(self.run_json("--method", "dense", "-p", "hi", "-n", 1)["contract"])

    def interrupt(self, method, *arguments, begun):
        """Exit code, stdout and stderr of a long run that gets Ctrl-C when begun(child) says so."""
        child = subprocess.Popen([LACUNA, "run", "-m", MODEL, "--method", method, "-p", TEXT, "--no-chat", "-n", "4000",
                                  *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while child.poll() is None and not begun(child):
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=300)
        self.assertEqual(child.returncode, 130, err)
        self.assertRegex(err, r"\Alacuna: interrupted after \d+ tokens\n\Z")
        return int(err.split()[3]), out

    def test_interrupt(self):
        for method in ("stock", "streamingllm:window=128"):
            # As early as it can be: mostly while the model is loaded. With JSON, whole or not at all.
            tokens, out = self.interrupt(method, "--json", "-", begun=catches_interrupt)
            if out:
                self.assertEqual(list(json.loads(out)), FIELDS)
            # While writing: the first letter of the answer is out.
            tokens, out = self.interrupt(method, begun=lambda child: child.stdout.read(1))
            self.assertGreater(tokens, 512)
            self.assertIn("wrote", out)

    def test_unknown_kernel(self):
        self.refused(["run", "-m", MODEL, "-p", "hi", "--kernel", "no.such.kernel"], "no.such.kernel")

    def test_a_cache_not_taken_is_told(self):
        done = lacuna("run", "-m", MODEL, "-p", "hi", "-n", 1, "-ctk", "q5_0", "-ctv", "q5_0")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("q8_0 or q4_0", done.stderr)

    def test_quantised_caches_are_taken(self):
        for k, v in (("q8_0", "q8_0"), ("q4_0", "f16")):
            done = lacuna("run", "-m", MODEL, "-p", "hi", "-n", 1, "-ctk", k, "-ctv", v)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("left to llama.cpp", done.stderr)

    def test_kl_knows_no_order(self):
        # Every context knows where the prompt ends, whichever was made last.
        methods = ["trianglemix:layer_start=0:sink=4:window=64:last_rows=64", "streamingllm:sink=4:window=128"]
        found = []
        for order in (methods, methods[::-1]):
            done = lacuna("kl", "-m", MODEL, "-p", TEXT, "--no-chat", "-ub", 256, "--methods", ",".join(order))
            self.assertEqual(done.returncode, 0, done.stderr)
            found.append({m["method"]: m["kl_mean"] for m in json.loads(done.stdout)["methods"]})
        self.assertEqual(found[0], found[1])
        self.assertGreater(min(found[0].values()), 0)

    def test_compare(self):
        with tempfile.TemporaryDirectory() as folder:
            text, report, page = (pathlib.Path(folder, name) for name in ("text", "report.json", "page.html"))
            text.write_text(TEXT)
            done = lacuna("compare", "-m", MODEL, "-f", text, "-p", "How many?", "-n", 2, "--json", report, "--html", page,
                          "--methods", "streamingllm:sink=4:window=128", "--lengths", "500,300")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(sorted(p.name for p in pathlib.Path(folder).iterdir()), ["page.html", "report.json", "text"])
            document = json.loads(report.read_text())
            html = page.read_text()
            again = lacuna("compare", "--from", report)
        names = ["stock", "dense", "streamingllm:sink=4:window=128"]
        self.assertEqual((document["format"], document["version"], document["partial"]), ("lacuna-compare", 1, None))
        self.assertEqual(document["methods"], names)
        self.assertEqual(html.count("<figure id"), 11)  # maps of heads, of dense and of the method among them
        for method in names:
            self.assertIn(f"<tr><td>{method}</td>", html)
        for needs_more in ("http", "<script", "src=", "@import", "url("):
            self.assertNotIn(needs_more, html)
        lengths = document["lengths"]
        for asked, length in zip((300, 500), lengths):
            self.assertTrue(asked - 3 <= length["text_tokens"] <= asked, length["text_tokens"])
            # 30 layers of 3 KV heads with 64 channels of f16, K and V.
            self.assertEqual(length["kv_cache_bytes"], length["context_tokens"] * 30 * 3 * 64 * 2 * 2)
            self.assertEqual([run["method"] for run in length["runs"]], names)
            for run in length["runs"]:
                self.assertEqual([k for k in run if k in FIELDS], FIELDS)
                self.assertEqual((run["state"], run["error"]), ("done", None))
                self.assertEqual(run["prompt_tokens"], length["prompt_tokens"])
        extra = [length["prompt_tokens"] - length["text_tokens"] for length in lengths]
        self.assertLess(abs(extra[0] - extra[1]), 4)  # the question, and the template around both
        self.assertGreater(min(extra), 4)
        stock, dense, sparse = lengths[1]["runs"]
        floor = lengths[1]["floor"]["kl_mean"]
        self.assertEqual((stock["kl_mean"], stock["same_top_share"]), (0, 1))
        self.assertLess(dense["kl_mean"], 2 * floor + 5e-4)
        self.assertGreater(sparse["kl_mean"], dense["kl_mean"])
        self.assertLess(floor, sparse["kl_mean"])
        self.assertLessEqual(max(len(l) for l in done.stdout.splitlines()[:-1]), 80)
        self.assertTrue(done.stdout.strip().endswith("."))
        self.assertEqual(again.stdout.strip(), done.stdout.strip())

    def compare_and(self, disturb, *arguments):
        """compare of two lengths, disturbed at its second run: exit code, stdout, stderr, the document and the page."""
        with tempfile.TemporaryDirectory() as folder:
            text, report, page = (pathlib.Path(folder, name) for name in ("text", "report.json", "page.html"))
            text.write_text(TEXT)
            child = subprocess.Popen([LACUNA, "compare", "-m", MODEL, "-f", text, "-n", "2", "--no-kl", "--json", report, "--html", page,
                                      "--lengths", "300,500", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     start_new_session=True)
            self.assertIn("stock at 300: first token after", child.stderr.readline())
            meanwhile = json.loads(report.read_text())
            self.assertIn("still running", meanwhile["partial"]["why"])
            disturb(child)
            out, err = child.communicate(timeout=300)
            return child.returncode, out, err, json.loads(report.read_text()), page.read_text()

    def test_compare_interrupted(self):
        code, out, err, document, page = self.compare_and(lambda child: os.killpg(child.pid, signal.SIGINT))
        self.assertEqual(code, 130, err)
        self.assertIn("lacuna: interrupted after 1 runs", err)
        self.assertEqual(document["partial"], {"why": "interrupted", "done": 1, "planned": 4})
        states = [run["state"] for length in document["lengths"] for run in length["runs"]]
        self.assertEqual((states[0], states[2:]), ("done", ["missing", "missing"]))
        self.assertIn(states[1], ("cut", "missing"))
        for words in (out, page):
            self.assertIn("Partial (interrupted): 1 of 4 runs are whole.", words)

    def test_compare_of_a_run_that_dies(self):
        def kill_run(child):
            run = []
            while not run:
                run = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            os.kill(int(run[0]), signal.SIGKILL)

        code, out, err, document, page = self.compare_and(kill_run)
        self.assertEqual(code, 1, err)
        self.assertEqual(document["partial"], {"why": "a run died", "done": 3, "planned": 4})
        states = [run["state"] for length in document["lengths"] for run in length["runs"]]
        self.assertEqual(states, ["done", "died", "done", "done"])
        for words in (out, page):
            self.assertIn("died: killed (out of memory?)", words)

    def test_compare_of_what_cannot_run(self):
        code, out, err, document, page = self.compare_and(lambda child: None, "--kernel", "no.such.kernel")
        self.assertEqual(code, 1, err)
        self.assertIsNone(document["partial"])  # all that can be known is known
        for length in document["lengths"]:
            self.assertEqual([run["state"] for run in length["runs"]], ["done", "refused"])
            self.assertIn("no.such.kernel", length["runs"][1]["error"])
        for words in (out, page):
            self.assertIn("did not run", words)

    def test_lengths_that_cannot_be(self):
        with tempfile.NamedTemporaryFile("w") as text:
            text.write(TEXT * 30)
            text.flush()
            command = ["compare", "-m", MODEL, "-f", text.name, "--lengths"]
            self.refused([*command, "100,64k"], "--lengths 64k", text.name, "tokens")
            self.refused([*command, "9k"], "--lengths 9k", "trained on 8192")
            self.refused([*command, "400", "-c", "256"], "--lengths 400", "-c")
            self.refused(["compare", "-m", text.name, "-f", text.name, "--lengths", "10"], text.name, "GGUF")
            self.refused(["compare", "-m", MODEL, "-f", "/no/text", "--lengths", "10"], "/no/text")


if __name__ == "__main__":
    for needed in (MODEL, PLUGIN):
        if not needed.exists():
            print(f"skip: {needed} is not there")
    unittest.main(argv=sys.argv[:1], verbosity=2)
