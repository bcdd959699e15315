#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Figures from whole runs of real models, as tables and as JSON, in bench/results/<processor>/:

  bench/study.py methods smollm2|gemma   every method from narrow to wide: density, loss, attention time by step beside
                                         dense, KV read; which of its runs is the fastest within 1 % of lost mass
  bench/study.py lengths smollm2|gemma   dense, xattention and auto at lengths from 256 tokens up, in turn
  bench/study.py hosting                 what a decoded token costs beside its attention, in llama-bench

LACUNA_BUILD (build/release), LACUNA_MODELS (models), LLAMA_DIR, OUT_DIR (bench/results) and THREADS (2) say where and how;
JOBS (1) how many runs of `methods` go side by side, ROUNDS how often the others repeat, LENGTHS (256,512,...) other lengths.
Methods that need a profile are calibrated first, on licences that every Debian has (CALIBRATION: another text).
"""
import concurrent.futures
import datetime
import glob
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from machine import ROOT, commit, processor, results

BUILD = pathlib.Path(os.environ.get("LACUNA_BUILD", ROOT / "build/release"))
MODELS = pathlib.Path(os.environ.get("LACUNA_MODELS", ROOT / "models"))
THREADS, JOBS = os.environ.get("THREADS", "2"), int(os.environ.get("JOBS", "1"))
MAX_LOSS = 0.01

# The model, the text it reads, and the share of it that makes each length.
SETS = {"smollm2": ("smollm2-135m-instruct.gguf", "demo.txt", [256, 512, 1024, 2048, 4096, 7000]),
        "gemma": ("gemma-3-270m.gguf", "long.txt", [2048, 4096, 8192, 16384, 26000])}

# Each method from narrow to wide; the first is its preset. PROFILE: as calibrated on another text. STUDY, a regular
# expression, takes only the specs in which it is found.
PREFILL = {
    "streamingllm": ["", "window=4096"],
    "trianglemix": [""],
    "xattention": ["", "mass=0.9:block=128", "mass=0.99", "mass=0.995", "mass=0.998", "mass=0.9995"],
    "minference": ["", "keep=0.2", "keep=0.6", "keep=0.8", "PROFILE"],
    "flexprefill": ["", "mass=0.97", "mass=0.99", "mass=0.997"],
    "spargeattn": ["", "mass=0.98", "mass=0.99", "mass=0.995", "PROFILE"],
}
DECODE = {
    "quest": ["", "keep=0.06", "keep=0.125", "keep=0.25", "keep=0.7"],
    "double-sparsity": ["PROFILE", "PROFILE:keep=0.125", "PROFILE:keep=0.25", "PROFILE:keep=0.5", "PROFILE:channels=32:keep=0.25"],
    "dense+twilight": ["", "mass=0.95", "mass=0.97", "mass=0.98", "mass=0.995"],
    "quest:keep=0.7+twilight": ["", "mass=0.98"],
}


def write(name, lines, document):
    out = results()
    given = [f"{key}='{os.environ[key]}'" for key in ("STUDY", "LENGTHS", "ROUNDS", "JOBS", "MAX_LOSS") if key in os.environ]
    head = [" ".join([*given, f"bench/{pathlib.Path(sys.argv[0]).name}", *sys.argv[1:]]), f"commit {commit()}; {datetime.date.today()}; {os.cpu_count()} cores, {THREADS} threads; {processor()[0]}", ""]
    (out / f"{name}.txt").write_text("\n".join(head + lines) + "\n")
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(head + lines), flush=True)


def lacuna(*arguments):
    done = subprocess.run([str(BUILD / "lacuna"), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"lacuna {' '.join(map(str, arguments))}: {done.stderr.strip()[-500:]}")
    return done.stdout


def run(which, method, text, predict, audit="sample"):
    model = SETS[which][0]
    return json.loads(lacuna("run", "-m", MODELS / model, "-f", text, "-n", predict, "--no-chat", "-t", THREADS,
                             "--audit", audit, "--method", method, "--json=-"))


def seconds(run, key="attention_s"):
    s = run[key]
    return {"select": (s["estimate"] or 0) + (s["budget"] or 0), "attend": (s["attend"] or 0), "account": (s["account"] or 0)}


def calibrated(which, slug, folder):
    text = os.environ.get("CALIBRATION")
    if not text:
        text = folder / "calibration.txt"
        if not text.exists():
            text.write_text("".join(pathlib.Path(p).read_text() for p in sorted(glob.glob("/usr/share/common-licenses/*-[0-9]*"))
                                    if not pathlib.Path(p).is_symlink()))
    profile = folder / f"{which}-{slug}.json"
    lacuna("calibrate", slug, "-m", MODELS / SETS[which][0], "-f", text, "-o", profile, "-t", THREADS, "--max-tokens", 8192)
    return profile


def label(spec):
    return re.sub(r"profile=[^:+]*", "profile", spec)


def with_fastest(rows, show):
    """All rows, then of each method the fastest that is within the loss."""
    lines = [*map(show, rows), "", f"the fastest within {MAX_LOSS:.0%} of lost mass"]
    for base in dict.fromkeys(r["base"] for r in rows):
        good = [r for r in rows if r["base"] == base and r["lost"] is not None and r["lost"] <= MAX_LOSS]
        lines.append(show(min(good, key=lambda r: r["ratio"])) if good else f"{base:<44} none of these runs")
    return lines


def methods(which):
    text = MODELS / "texts" / SETS[which][1]
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        folder = pathlib.Path(name)
        slugs = [slug for table in (PREFILL, DECODE) for slug, specs in table.items()
                 if any("PROFILE" in s and re.search(os.environ.get("STUDY", ""), f"{slug}:{s}") for s in specs)]
        profiles, troubles = {}, []
        for slug, future in [(s, pool.submit(calibrated, which, s, folder)) for s in slugs]:
            try:
                profiles[slug] = future.result()
            except RuntimeError as e:
                troubles.append(str(e).replace(name, "").replace(str(MODELS), "models").replace(str(BUILD), "build/release"))
        jobs = [("dense", "dense", "sample")]
        for table, audit in ((PREFILL, "sample"), (DECODE, "full")):
            for i, (base, specs) in enumerate(table.items()):
                for spec in specs:
                    whole = ":".join(filter(None, [base, spec]))
                    if re.search(os.environ.get("STUDY", ""), whole) and ("PROFILE" not in spec or base in profiles):
                        jobs.append((base, whole.replace("PROFILE", f"profile={profiles.get(base)}"), audit))
                if i % 3 == 2:  # dense again in every stretch of the work
                    jobs.append(("dense", "dense", audit))
        results = list(pool.map(lambda job: (job[0], job[2], run(which, job[1], text, 64, job[2])), jobs))

    middle = lambda values: statistics.median(list(values))
    dense = [r for base, _, r in results if base == "dense"]
    whole = middle(seconds(r)["attend"] - seconds(r, "attention_s_decode")["attend"] for r in dense)
    first = middle(r["ttft_s"] for r in dense)
    rate = lambda r: 1 / (1 / r["decode_tok_s"] - seconds(r, "attention_s_decode")["account"] / max(1, r["generated_tokens"] - 1))
    per_token = lambda r, step: 1e3 * seconds(r, "attention_s_decode")[step] / max(1, r["generated_tokens"] - 1)
    step = middle(per_token(r, "attend") for r in dense)

    rows = {"prefill": [], "decode": []}
    for base, audit, r in results:
        if base == "dense":
            continue
        if audit == "sample":
            s, d = seconds(r), seconds(r, "attention_s_decode")
            select, attend = s["select"] - d["select"], s["attend"] - d["attend"]
            rows["prefill"].append({"base": base, "spec": label(r["method"]), "density": r["density"]["prefill"],
                                    "lost": r["lost_mass"]["mean"], "select": select, "attend": attend,
                                    "ratio": (select + attend) / whole, "ttft": r["ttft_s"], "ttft_ratio": r["ttft_s"] / first})
        else:
            select, attend = per_token(r, "select"), per_token(r, "attend")
            rows["decode"].append({"base": base, "spec": label(r["method"]), "density": r["density"]["decode"],
                                   "lost": r["lost_mass_decode"]["mean"], "select": select, "attend": attend,
                                   "ratio": (select + attend) / step, "mb": r["kv_bytes_read_per_token"] / 1e6, "rate": rate(r)})

    lines = [f"{dense[0]['prompt_tokens']} tokens read, then 64 written. Attention time is that of the layers that see all keys, kernels only;",
             "x dense: select + attend over dense's attention time of the same batch of runs; share: select of both. Lost mass over audited rows.",
             f"dense ({len(dense)} runs): attention {whole:.2f} s, first token after {first:.2f} s", "",
             f"{'reading':<44} {'density':>8} {'lost':>7} {'select s':>8} {'attend s':>8} {'share':>6} {'x dense':>7} {'TTFT s':>7} {'x dense':>7}"]
    show = lambda r: (f"{r['spec']:<44} {r['density']:8.2%} {r['lost']:7.2%} {r['select']:8.2f} {r['attend']:8.2f} "
                      f"{r['select'] / max(r['select'] + r['attend'], 1e-9):6.1%} {r['ratio']:7.2f} {r['ttft']:7.2f} {r['ttft_ratio']:7.2f}")
    lines += with_fastest(rows["prefill"], show)
    lines += ["", "Writing. ms per token, the audit (every row) taken off; tokens/s likewise.",
              f"dense: attention {step:.2f} ms per token, {middle(map(rate, dense)):.1f} tokens/s, {middle(r['kv_bytes_read_per_token'] for r in dense) / 1e6:.1f} MB of K and V per token", "",
              f"{'writing':<44} {'density':>8} {'lost':>7} {'select ms':>9} {'attend ms':>9} {'share':>6} {'x dense':>7} {'MB/token':>8} {'tokens/s':>8}"]
    show_decode = lambda r: (f"{r['spec']:<44} {r['density']:8.2%} {r['lost']:7.2%} {r['select']:9.3f} {r['attend']:9.3f} "
                             f"{r['select'] / max(r['select'] + r['attend'], 1e-9):6.1%} {r['ratio']:7.2f} {r['mb']:8.1f} {r['rate']:8.1f}")
    lines += with_fastest(rows["decode"], show_decode)
    lines += [""] * bool(troubles) + troubles
    write(f"methods-{which}", lines,
          {"dense": {"attention_s": whole, "ttft_s": first, "decode_ms": step}, **rows, "troubles": troubles})


def lengths(which):
    _, name, sizes = SETS[which]
    if "LENGTHS" in os.environ:
        sizes = [int(n) for n in os.environ["LENGTHS"].split(",")]
    rounds = int(os.environ.get("ROUNDS", "5" if which == "smollm2" else "3"))
    text = (MODELS / "texts" / name).read_text()
    whole = run(which, "dense", MODELS / "texts" / name, 1)["prompt_tokens"]
    specs = ["dense", "xattention", "auto"]
    lines = [f"{rounds} runs of each in turn (more under 2048 tokens), medians. x dense: of two runs that followed each other, the middle",
             "of their ratios. attention: layers that see all keys, kernels only; account: the audit's share of the first token's time.", "",
             f"{'tokens':>7} {'method':<11} {'density':>8} {'lost':>7} {'attention s':>11} {'x dense':>7} {'TTFT s':>7} {'x dense':>7} {'account':>8}"]
    document = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "text.txt"
        path.write_text(text)
        run(which, "auto", path, 1)  # measures this machine's costs, once
        for size in sizes:
            path.write_text(text[: len(text) * min(size, whole) // whole])
            runs = {s: [] for s in specs}
            repeat = rounds * max(1, 2048 // size) if size < 16000 else min(rounds, 3)  # a short run's time is mostly noise
            for _ in range(repeat):
                for s in specs:
                    runs[s].append(run(which, s, path, 1))
            time = lambda r: sum(v or 0 for v in r["attention_s"].values()) - (r["attention_s"]["account"] or 0)
            for s in specs:
                ratio = lambda f: statistics.median(f(a) / f(b) for a, b in zip(runs[s], runs["dense"]))
                middle = lambda f: statistics.median(map(f, runs[s]))
                row = {"tokens": runs[s][0]["prompt_tokens"], "method": s, "density": middle(lambda r: r["density"]["prefill"]),
                       "lost": middle(lambda r: r["lost_mass"]["mean"] or 0), "attention_s": middle(time), "attention_ratio": ratio(time),
                       "ttft_s": middle(lambda r: r["ttft_s"]), "ttft_ratio": ratio(lambda r: r["ttft_s"]),
                       "account": middle(lambda r: (r["attention_s"]["account"] or 0) / r["ttft_s"])}
                document.append(row)
                lines.append(f"{row['tokens']:>7} {s:<11} {row['density']:8.2%} {row['lost']:7.2%} {row['attention_s']:11.3f} {row['attention_ratio']:7.3f} "
                             f"{row['ttft_s']:7.3f} {row['ttft_ratio']:7.3f} {row['account']:8.2%}")
    write(f"lengths-{which}", lines, document)


def hosting():
    """T = L + A: a token costs its attention and the rest. Hosting is what Lacuna's rest (its time less the attention it clocked
    itself) has more than stock's. Stock clocks no attention, so both are taken at an empty context, where stock's is next to
    nothing. The last line takes Lacuna's rest at 2048 instead: it holds what reading the KV cache evicts from the processor's,
    too, which stock's token at 2048 pays likewise."""
    cache = pathlib.Path(os.environ.get("LACUNA_CACHE") or os.path.expanduser("~/.cache/lacuna"))
    folder = os.environ.get("LLAMA_DIR") or next(cache.glob("llama-*/bin"), cache / "bin").parent
    bench = pathlib.Path(folder) / "bin/llama-bench"
    rounds = int(os.environ.get("ROUNDS", "9"))
    middle = statistics.median

    def token(depth, report=None):
        """ms per token, and of it attention if Lacuna clocks it."""
        environment = dict(os.environ)
        if report:
            environment |= {"GGML_BACKEND_PATH": str(BUILD / "liblacuna-ggml.so"), "LACUNA": f"dense quiet=1 report={report}"}
        out = subprocess.run([str(bench), "-m", str(MODELS / SETS["smollm2"][0]), "-p", "0", "-n", "64", "-d", str(depth), "-r", "4",
                              "-fa", "on", "-t", THREADS, "-o", "json"], capture_output=True, text=True, check=True, env=environment).stdout
        whole = 1e3 / middle(json.loads(out)[0]["samples_ts"])
        if not report:
            return whole, 0.0
        d = json.loads(report.read_text())["decode"]
        return whole, 1e3 * sum(d["attention_s"].values()) / (d["calls"] / 30)  # 30 layers, a call in each

    rows = {key: [] for key in ("stock, empty context", "Lacuna dense, empty", "of it attention", "stock, 2048",
                                "Lacuna dense, 2048", "of it attention, 2048", "hosting", "the same, 2048")}
    with tempfile.TemporaryDirectory() as name:
        report = pathlib.Path(name) / "report.json"
        for _ in range(rounds):
            (empty, _), (ours, a), (deep, _), (ours_deep, b) = token(0), token(0, report), token(2048), token(2048, report)
            for key, value in zip(rows, (empty, ours, a, deep, ours_deep, b, ours - a - empty, ours_deep - b - empty)):
                rows[key].append(value)
    lines = [hosting.__doc__.replace("\n    ", "\n"), "", f"SmolLM2-135M, ms per token, {rounds} rounds in turn: median (least .. most)"]
    lines += [f"{key:<22} {middle(v):7.3f} ({min(v):.3f} .. {max(v):.3f})" for key, v in rows.items()]
    share = {key: middle(h / t for h, t in zip(rows["hosting"], rows[key])) for key in ("stock, 2048", "Lacuna dense, 2048")}
    lines.append(f"hosting is {share['stock, 2048']:.1%} of stock's token at 2048, {share['Lacuna dense, 2048']:.1%} of Lacuna's")
    write("hosting", lines, rows)


def main(arguments):
    if arguments == ["hosting"]:
        return hosting()
    if len(arguments) == 2 and arguments[0] in ("methods", "lengths") and arguments[1] in SETS:
        return (methods if arguments[0] == "methods" else lengths)(arguments[1])
    sys.exit(f"error: {' '.join(arguments) or 'nothing'}: need hosting, or methods or lengths with one of {', '.join(SETS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
