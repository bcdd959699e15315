# SPDX-License-Identifier: Apache-2.0
"""lacuna compare --from: the table and the page of documents made up here, the page in a real headless Chromium.

    test/e2e/compare_page.py LACUNA [FOLDER]

Without Chromium (variable CHROMIUM, or the PATH) what needs it is skipped. Pictures of the page go to FOLDER, if named.
"""
import html.parser
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from chromium import Browser

LACUNA = ""
PICTURES = None
METHODS = ["stock", "dense", "streamingllm", "trianglemix", "xattention", "minference", "flexprefill", "spargeattn:mass=0.95:smooth=off"]
LENGTHS = [500, 1024, 2048, 4096, 8192]
BY_LENGTH = ["speed-up", "attention", "kv-read", "kv-memory"]
OF_ONE = ["time", "steps", "loss", "density", "heads"] + [f"pattern-{i}" for i in range(1, len(METHODS))]
PARTS, LAYERS, HEADS = 32, 30, 9


def made_run(number, tokens):
    """Methods that take less and less of dense's attention, but pay for choosing: they cross it one after the other."""
    thousands = tokens / 1000
    run = {"model": "models/made-up.gguf", "prompt_tokens": tokens + 20, "method": METHODS[number], "host": "llama.cpp", "kernel": None,
           "decode_tok_s": 50.0, "text": f"<b>Answer</b> & \"{number}\"", "peak_rss_bytes": 300e6 + 1e5 * tokens, "kl_mean": 0.003,
           "same_top_share": 0.96, "state": "done", "error": None}
    if number == 0:
        return run | {"ttft_s": 0.6 * thousands + 0.4 * thousands**2, "kv_bytes_read_per_token": None, "side_bytes": None}
    keep = 1.0 if number == 1 else 1 - 0.12 * (number - 1)
    estimate = 0.0 if number == 1 else 0.01 * (number - 1) * thousands
    attend = 0.04 * keep * thousands**2
    steps = {"estimate": estimate, "budget": estimate / 4, "attend": attend, "correct": 0.0, "account": 0.002 * thousands}
    lost = {"mean": 0.0 if number == 1 else 10 ** -(5 - number / 2), "upper": 0.3, "rows": 400}
    return run | {"kernel": "cpu.amx", "ttft_s": 0.6 * thousands + sum(steps.values()), "attention_s": steps, "lost_mass": lost,
                  "attention_s_decode": dict.fromkeys(steps, 0.0), "density": {"prefill": keep, "decode": keep}, "lost_mass_decode": {"mean": 0.0, "rows": 0},
                  "kv_bytes_read_per_token": 23040.0 * tokens * keep, "side_bytes": 25000.0 * tokens * (1 + 0.05 * number),
                  "patterns": made_patterns(number, keep)}


def made_patterns(number, keep):
    """Maps of six heads: rows that keep a window and some of the keys before it, mass that fades with distance."""
    row = lambda r, digit: "".join(digit(r, c) for c in range(r + 1)) + " " * (PARTS - r - 1)
    maps = lambda digit: [row(r, digit) for r in range(PARTS)]
    kept = lambda r, c: "9" if number == 1 or r - c < 4 else str((r * 7 + c * number) % 10 if (c * number) % 5 < 3 else 0)
    mass = lambda r, c: str(max(0, 8 - (r - c) // 2) if c else 7)
    lost = lambda r, c: mass(r, c) if kept(r, c) == "0" else "0"
    return {"parts": PARTS, "density": [[min(1.0, keep * (0.5 + (l * h) % 7 / 6)) for h in range(HEADS)] for l in range(LAYERS)],
            "maps": [{"layer": l, "head": h, "kept": maps(kept), "mass": maps(mass), "lost": maps(lost)} for l in (7, 15, 22) for h in (2, 6)]}


def made_document(lengths=tuple(LENGTHS)):
    return {"format": "lacuna-compare", "version": 1, "lacuna": "0", "host": "llama.cpp", "machine": "made up", "model": "models/made-up.gguf",
            "rounds": 1, "partial": None, "methods": METHODS,
            "lengths": [{"text_tokens": n, "prompt_tokens": n + 20, "context_tokens": n + 256, "kv_cache_bytes": 23040.0 * (n + 256),
                         "floor": {"kl_mean": 0.003, "same_top_share": 0.96, "positions": 250}, "kl_error": None,
                         "runs": [made_run(m, n) for m in range(len(METHODS))]} for n in lengths]}


def made_task(name="needle", depths=(0, 0.25, 0.5, 0.75, 1), lengths=(512, 1024, 2048)):
    """A task in which every method but dense finds what stands in the text's last half only."""
    document = made_document(list(lengths))
    document["task"] = {"name": name, "summary": "something <hidden>", "paper": "arXiv:0", "file": None, "perplexity": name == "perplexity",
                        "samples": len(depths), "seed": 1}
    for length in document["lengths"]:
        length["samples"] = [{"depth": d, "score": "any", "turns": [{"question": f"Where & {d}?", "answers": ["<here>"]}]} for d in depths]
        for number, run in enumerate(length["runs"]):
            right = [float(number < 2 or d is None or d >= 0.5) for d in depths]
            run["samples"] = [{"answers": ["<here>" if r else "there"], "score": r, "agreement": r} for r in right]
            run["score"] = run["agreement"] = run["same_answers"] = sum(right) / len(right)
    return document


def shown(document, *arguments):
    """Exit code, stdout, stderr and the page of a document."""
    with tempfile.TemporaryDirectory() as folder:
        file, page = pathlib.Path(folder, "made.json"), pathlib.Path(folder, "page.html")
        file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        done = subprocess.run([LACUNA, "compare", "--from", file, "--html", page, *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr, page.read_text(encoding="utf-8") if page.exists() else ""


class Figures(html.parser.HTMLParser):
    """The ids of <figure>, and whether what was opened is closed."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.open, self.rings = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "figure":
            self.ids.append(dict(attributes)["id"])
        self.rings += ("class", "ring") in attributes

    def handle_startendtag(self, tag, attributes):
        self.rings += ("class", "ring") in attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class Text(unittest.TestCase):
    def test_several_lengths(self):
        code, out, err, page = shown(made_document())
        self.assertEqual(code, 0, err)
        lines = out.splitlines()
        self.assertLessEqual(max(map(len, lines[:-1])), 80)
        row = next(l for l in lines if l.startswith("xattention"))
        ttft = lambda m, n: made_run(m, n)["ttft_s"]
        self.assertEqual(row.split()[1:], [f"{ttft(0, n) / ttft(4, n):.2f}x" for n in LENGTHS])
        self.assertIn("At 8k tokens of text:", lines)
        self.assertTrue(lines[-1].endswith("."))
        figures = Figures(page)
        self.assertEqual(figures.ids, BY_LENGTH + OF_ONE)
        self.assertEqual(figures.open, [])

    def test_crossings_are_where_they_are(self):
        # dense: a t^2; a method: k a t^2 + c t. They meet at t = c / (a (1 - k)) thousand tokens: xattention, method 4,
        # at 2,600. Between 2,048 and 4,096 the drawn lines are straight, so they cross near there.
        meet = 0.01 * 3 * 1.25 / (0.04 * 0.36) * 1000
        _, _, _, page = shown(made_document())
        at = next(part for part in page.split("passes dense from about ")[1:] if part.startswith("2,"))
        self.assertAlmostEqual(int(at.split(" ")[0].replace(",", "")), meet, delta=300)
        self.assertGreaterEqual(Figures(page).rings, 3)

    def test_one_length(self):
        code, out, err, page = shown(made_document([2048]))
        self.assertEqual(code, 0, err)
        self.assertNotIn("By tokens", out)
        self.assertEqual(Figures(page).ids, OF_ONE)

    def test_many_lengths_fit(self):
        _, out, _, page = shown(made_document([100 * 2**i for i in range(12)]))
        self.assertLessEqual(max(map(len, out.splitlines()[:-1])), 80)
        self.assertLess(len(page), 2e6)

    def test_partial(self):
        document = made_document()
        last = document["lengths"][-1]["runs"]
        last[2] = {"method": METHODS[2], "state": "refused", "error": "minference: needs <a profile>"}
        last[3] = {"method": METHODS[3], "state": "died", "error": "killed (out of memory?)"}
        last[4]["state"], last[4]["error"] = "cut", "interrupted"
        last[5:] = [{"method": m, "state": "missing", "error": "interrupted before its turn"} for m in METHODS[5:]]
        document["partial"] = {"why": "interrupted", "done": 34, "planned": 40}
        code, out, err, page = shown(document)
        self.assertEqual(code, 0, err)
        self.assertEqual(out.splitlines()[-1], "Partial (interrupted): 34 of 40 runs are whole.")
        self.assertIn("Partial (interrupted): 34 of 40 runs are whole.", page)
        for words in ("did not run: minference: needs <a profile>", "died: killed (out of memory?)", "interrupted: figures up to there"):
            self.assertIn(words, out)
        self.assertIn("did not run: minference: needs &lt;a profile&gt;", page)
        self.assertEqual(Figures(page).ids, BY_LENGTH + [f for f in OF_ONE if not f.startswith("pattern") or f in ("pattern-1", "pattern-4")])
        self.assertLessEqual(max(map(len, [l for l in out.splitlines() if not l.startswith("xattention, the")])), 80)

    def test_maps_that_are_none(self):
        document = made_document([2048])
        runs = document["lengths"][0]["runs"]
        for run, broken in zip(runs[1:], (None, {"maps": 3, "density": 4}, {"maps": [{"layer": "x", "kept": [1, "9x9", None]}], "density": [[None, "9"], 3]},
                                          {"maps": [7, None], "density": [[0.5] * 5000] * 5000}, {"maps": [{}], "density": []}, [1], "maps")):
            run["patterns"] = broken
        code, out, err, page = shown(document)
        self.assertEqual(code, 0, err)
        self.assertLess(len(page), 2e6)
        self.assertNotIn("nan", page)
        del runs[1]["patterns"]
        for run in runs[2:]:
            del run["patterns"]
        self.assertNotIn("What was kept", shown(document)[3])

    def test_nothing_ran(self):
        document = made_document()
        for length in document["lengths"]:
            length["runs"] = [{"method": m, "state": "died", "error": "killed"} for m in METHODS]
        code, out, err, page = shown(document)
        self.assertEqual(code, 0, err)
        self.assertIn("nothing to compare", out)
        self.assertEqual(Figures(page).ids, [])

    def test_files_that_are_none(self):
        broken = made_document()
        del broken["lengths"][0]["runs"][0]["state"]
        odd = made_document()
        odd["lengths"][0]["runs"][0]["ttft_s"] = {"a": 1}
        odd["lengths"][0]["runs"][1]["method"] = "<i>"
        for text, words in (("", "no file of compare"), ("[1]", "no file of compare"), ('{"runs": []}', "no file of compare"),
                            (made_document() | {"version": 99}, "version 99"), (broken, "damaged"), (made_document() | {"lengths": []}, "damaged")):
            code, out, err, page = shown(text)
            self.assertEqual((code, out, page), (2, "", ""), err)
            self.assertIn(words, err)
            self.assertEqual(err.count("\n"), 1, err)
        self.assertEqual(shown(odd)[0], 0)  # of another kind where a figure may be missing: shown as missing
        done = subprocess.run([LACUNA, "compare", "--from", "/no/such.json"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("/no/such.json", done.stderr)


class Task(unittest.TestCase):
    def test_scores_and_map(self):
        code, out, err, page = shown(made_task())
        self.assertEqual(code, 0, err)
        self.assertLessEqual(max(map(len, out.splitlines()[:-1])), 80)
        row = next(l for l in out.splitlines() if l.startswith("xattention"))
        self.assertEqual(row.split()[1:], ["60", "%", "(60", "%)"] * 3)
        figures = Figures(page)
        self.assertEqual(figures.ids, ["score", "agreement"] + [f"depth-{m}" for m in range(len(METHODS))])
        self.assertEqual(figures.open, [])
        self.assertEqual(page.count('class="cell"'), len(METHODS) * 5 * 3)
        for words in ("xattention at 512, depth 25 %: 0 % of 1", "xattention at 2k, depth 50 %: 100 % of 1", "stock at 512, depth 0 %: 100 % of 1"):
            self.assertIn(f"<title>{words}</title>", page)
        self.assertNotIn("<here>", page)
        self.assertIn("something &lt;hidden&gt; (arXiv:0); 5 samples of each length, seed 1", page)

    def test_many_depths_are_fifths(self):
        _, _, _, page = shown(made_task(depths=[i / 19 for i in range(20)]))
        self.assertIn("<title>xattention at 512, depth 40-60 %: 50 % of 4</title>", page)
        self.assertEqual(page.count('class="cell"'), len(METHODS) * 5 * 3)

    def test_without_depths_there_is_no_map(self):
        self.assertEqual(Figures(shown(made_task(depths=[None] * 5))[3]).ids, ["score", "agreement"])
        self.assertEqual(Figures(shown(made_task(lengths=[512], depths=[None]))[3]).ids, [])

    def test_a_model_that_fails_is_told(self):
        document = made_task(lengths=[512])
        document["lengths"][0]["runs"][1]["score"] = 0.4
        self.assertIn("the model fails by itself", shown(document)[1])
        self.assertNotIn("the model fails by itself", shown(made_task(lengths=[512]))[1])

    def test_partial(self):
        document = made_task()
        runs = document["lengths"][-1]["runs"]
        runs[2] = {"method": METHODS[2], "state": "refused", "error": "needs <more>"}
        runs[3]["state"], runs[3]["samples"] = "cut", runs[3]["samples"][:2]
        document["partial"] = {"why": "interrupted", "done": 22, "planned": 24}
        code, out, err, page = shown(document)
        self.assertEqual(code, 0, err)
        for text in (out, page):
            self.assertIn("Partial (interrupted): 22 of 24 runs are whole.", text)
            self.assertIn("interrupted: figures up to there", text)
        self.assertIn("did not run: needs <more>", out)
        self.assertIn("did not run: needs &lt;more&gt;", page)

    def test_damaged(self):
        for damage in (lambda d: d["task"].pop("name"), lambda d: d["task"].update(samples="many"), lambda d: d["lengths"][0]["runs"].pop(),
                       lambda d: d["lengths"][0]["samples"][0].pop("turns"), lambda d: d["lengths"][1]["runs"][3]["samples"][0].pop("answers"),
                       lambda d: d["lengths"][1]["runs"][3]["samples"][0].update(answers=[])):
            document = made_task()
            damage(document)
            code, _, err, page = shown(document)
            self.assertEqual((code, page, err.count("\n")), (2, "", 1), err)
            self.assertIn("is damaged", err)


# Texts of a picture that leave it, or lie on each other.
MISPLACED = """[...document.querySelectorAll('figure > svg')].flatMap(svg => {
  const whole = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')], found = [];
  const box = t => t.getBoundingClientRect();
  texts.forEach((t, i) => {
    const a = box(t), name = svg.parentNode.id + ': ' + t.textContent;
    if (a.left < whole.left - 1 || a.right > whole.right + 1 || a.top < whole.top - 2 || a.bottom > whole.bottom + 2) found.push(name + ' leaves');
    for (const other of texts.slice(i + 1)) {
      const b = box(other);
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5)
        found.push(name + ' on ' + other.textContent);
    }
  });
  return found;
})"""
# Contrast of each fill and stroke in the pictures with the card behind them (WCAG 2's ratio).
CONTRAST = """(() => {
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const behind = light(getComputedStyle(document.querySelector('figure')).backgroundColor), seen = {};
  for (const e of document.querySelectorAll('figure svg path, figure svg rect, figure svg text, figure svg polyline, .keys i')) {
    const s = getComputedStyle(e), c = e.tagName == 'I' ? s.backgroundColor : e.tagName == 'polyline' ? s.stroke : s.fill, l = light(c);
    seen[c] = (Math.max(l, behind) + 0.05) / (Math.min(l, behind) + 0.05);
  }
  return seen;
})()"""
# Contrast of words with the strongest field of the map, laid over its card.
ON_CELLS = """(() => {
  const parts = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number), linear = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = v => { const l = v.map(x => linear(x / 255)); return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  return [...document.querySelectorAll('figure svg .cell')].map(cell => {
    const s = getComputedStyle(cell), over = parts(s.fill), card = parts(getComputedStyle(cell.closest('figure')).backgroundColor), a = Number(s.fillOpacity);
    const field = light(over.map((x, i) => a * x + (1 - a) * card[i])), words = light(parts(getComputedStyle(cell.nextElementSibling).fill));
    return (Math.max(field, words) + 0.05) / (Math.min(field, words) + 0.05);
  });
})()"""
# Each picture with its size and how much is drawn in it.
DRAWN = """Object.fromEntries([...document.querySelectorAll('figure')].map(f => { const s = f.querySelector('svg'), r = s.getBoundingClientRect();
  return [f.id, [r.width, r.height, s.querySelectorAll('path, rect').length]]; }))"""


@unittest.skipUnless(Browser.there(), "no Chromium")
class InChromium(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        partial = made_document()
        del partial["lengths"][-1]["runs"][3]["ttft_s"]
        partial["partial"] = {"why": "interrupted", "done": 39, "planned": 40}
        cls.pages = {}
        for name, document in (("whole", made_document()), ("partial", partial), ("close", made_document([900, 1000, 1024, 1100, 9000]))):
            cls.pages[name] = pathlib.Path(cls.folder.name, f"{name}.html")
            cls.pages[name].write_text(shown(document)[3], encoding="utf-8")
        cls.task = pathlib.Path(cls.folder.name, "task.html")
        cls.task.write_text(shown(made_task())[3], encoding="utf-8")
        cls.browser = Browser().__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.browser.__exit__()
        cls.folder.cleanup()

    def test_pictures(self):
        for name, page in self.pages.items():
            for width, dark, media in ((1200, False, ""), (1200, True, ""), (400, False, ""), (400, True, ""), (720, False, "print")):
                with self.subTest(page=name, width=width, dark=dark, media=media):
                    self.browser.show(f"file://{page}", width, dark, media)
                    drawn = self.browser.ask(DRAWN)
                    self.assertEqual(list(drawn), BY_LENGTH + [f for f in OF_ONE if name != "partial" or f != "pattern-3"])
                    for figure, (wide, high, shapes) in drawn.items():
                        self.assertGreater(min(wide, high), 150, figure)
                        self.assertGreaterEqual(shapes, len(METHODS) - 2, figure)
                    self.assertEqual(self.browser.ask(MISPLACED), [])
                    self.assertLessEqual(self.browser.ask("document.documentElement.scrollWidth"), width)  # nothing to scroll aside
                    self.assertEqual({c: r for c, r in self.browser.ask(CONTRAST).items() if r < 3}, {})
                    if PICTURES:
                        self.browser.picture(pathlib.Path(PICTURES, f"{name}-{width}{'-dark' if dark else ''}{media and '-' + media}.png"))
        self.assertEqual(self.browser.errors, [])

    def test_map(self):
        for width, dark in ((1200, False), (1200, True), (400, False), (400, True)):
            with self.subTest(width=width, dark=dark):
                self.browser.show(f"file://{self.task}", width, dark, "")
                self.assertEqual(self.browser.ask(MISPLACED), [])
                self.assertLessEqual(self.browser.ask("document.documentElement.scrollWidth"), width)
                self.assertGreaterEqual(min(self.browser.ask(ON_CELLS)), 4.5)
                if PICTURES:
                    self.browser.picture(pathlib.Path(PICTURES, f"task-{width}{'-dark' if dark else ''}.png"))

    def test_opens_at_once(self):
        self.assertLess(self.pages["whole"].stat().st_size, 2e6)
        took = []  # milliseconds; the machine may have other work
        for _ in range(5):
            self.browser.show(f"file://{self.pages['whole']}", 1200)
            took.append(self.browser.ask("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        self.assertLess(min(took), 1000)

    def test_nothing_is_fetched(self):
        self.browser.show(f"file://{self.pages['whole']}", 1200)
        self.assertEqual(self.browser.ask("performance.getEntriesByType('resource').map(r => r.name)"), [])
        self.assertEqual(self.browser.ask("document.scripts.length"), 0)

    def test_the_answers_are_no_markup(self):
        self.browser.show(f"file://{self.pages['whole']}", 1200)
        self.assertEqual(self.browser.ask("document.querySelectorAll('b').length"), 0)


if __name__ == "__main__":
    LACUNA = str(pathlib.Path(sys.argv.pop(1)).resolve())
    PICTURES = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    unittest.main(verbosity=2)
