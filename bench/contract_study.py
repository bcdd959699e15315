#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether contracts are kept, and what they cost, on real texts that no tuning has seen, in bench/results/<processor>/:

  bench/contract_study.py kept    20 texts x 4 methods x 3 lengths with a limit of 1 % lost mass: the truth of every run, by a full
                                  audit, beside what the run said of itself
  bench/contract_study.py cost    what the audit and the contract take of a run's time, by sampled audits; wants an idle machine

LACUNA_BUILD (build/release), LACUNA_MODELS (models), OUT_DIR (bench/results) and THREADS (2) say where and how. `kept` goes on
where it was stopped: its runs are kept in RUNS (<build>/contract-study.jsonl); SECONDS stops it by itself, and the tables are of what
there is. JOBS (1): runs of `kept` side by side; so it tells of losses, never of times. ROUNDS (5): of `cost`.
"""
import concurrent.futures
import datetime
import functools
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT, commit, processor, results

sys.path.insert(0, str(ROOT / "tools"))
import debian_text  # noqa: E402

BUILD = pathlib.Path(os.environ.get("LACUNA_BUILD", ROOT / "build/release"))
MODEL = pathlib.Path(os.environ.get("LACUNA_MODELS", ROOT / "models")) / "smollm2-135m-instruct.gguf"
RUNS = pathlib.Path(os.environ.get("RUNS", BUILD / "contract-study.jsonl"))
THREADS = os.environ.get("THREADS", "2")
LIMIT, WRITTEN = 0.01, 32
METHODS = ["streamingllm", "trianglemix", "xattention", "minference"]
LENGTHS = [1000, 2000, 4000]

# Manuals, lectures, verse, jokes, quotations, a game's data, programs. Not the policy manual and the licences: presets were
# chosen by these.
TEXTS = [("debian-faq", "usr/share/doc/debian/FAQ/debian-faq.en.txt.gz"),
         ("developers-reference", "usr/share/developers-reference/developers-reference.txt.gz"),
         ("jargon-text", "usr/share/doc/jargon-text/jargon.txt.gz"),
         ("git-doc", "usr/share/doc/git-doc/user-manual.txt"),
         ("git-doc", "usr/share/doc/git-doc/gitcore-tutorial.txt"),
         ("git-doc", "usr/share/doc/git-doc/MyFirstContribution.txt"),
         ("git-doc", "usr/share/doc/git-doc/git-bisect-lk2009.txt"),
         ("git-doc", "usr/share/doc/git-doc/technical/sparse-checkout.txt"),
         ("exim4-base", "usr/share/doc/exim4-base/spec.txt.gz"),
         ("exim4-base", "usr/sbin/eximstats"),
         ("mutt", "usr/share/doc/mutt/manual.txt.gz"),
         ("nethack-common", "usr/share/doc/nethack-common/Guidebook.txt.gz"),
         ("crawl-common", "usr/share/crawl/docs/crawl_manual.txt"),
         ("crawl-common", "usr/share/crawl/dat/descript/quotes.txt"),
         ("crawl-common", "usr/share/crawl/dat/database/monspeak.txt"),
         ("crawl-common", "usr/share/crawl/dat/des/variable/float.des"),
         ("fortunes", "usr/share/games/fortunes/songs-poems"),
         ("fortunes", "usr/share/games/fortunes/people"),
         ("vim-runtime", "usr/share/vim/vim90/doc/usr_41.txt"),
         ("vim-runtime", "usr/share/vim/vim90/autoload/netrw.vim")]
PIECE, SAMPLE = 36_000, 12_000  # characters: more than the longest length has; what tells how many make a token


@functools.cache
def text_of(package, path):
    """A stretch of a text, from the first paragraph after a tenth of it on: past the table of contents."""
    whole = debian_text.member(package, path)
    if whole is None:
        sys.exit(f"error: {path} is not here and cannot be fetched; install the package {package}")
    start = max(whole.find("\n\n", len(whole) // 10), 0)
    return whole[start:start + PIECE].strip()


def lacuna(text, predict, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        command = [str(BUILD / "lacuna"), "run", "-m", str(MODEL), "-f", file.name, "-n", str(predict), "--no-chat", "-t", THREADS,
                   "--json=-", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


@functools.cache
def characters_per_token(text):
    return SAMPLE / lacuna(text[:SAMPLE], 1, "--method", "dense", "--audit", "off")["prompt_tokens"]


def cut(text, tokens):
    return text[:int(tokens * characters_per_token(text))]


def write(name, lines, document):
    out = results()
    head = [f"bench/contract_study.py {name}", f"commit {commit()}; {datetime.date.today()}; {os.cpu_count()} cores, {THREADS} threads; {processor()[0]}", ""]
    (out / f"contract-{name}.txt").write_text("\n".join(head + lines) + "\n")
    (out / f"contract-{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(head + lines), flush=True)


# --- kept --------------------------------------------------------------------------------------

def figures(run):
    """Of one run: by phase the truth, and what the run itself knew and said."""
    row = {"tokens": run["prompt_tokens"]}
    for phase, lost in (("prefill", "lost_mass"), ("decode", "lost_mass_decode")):
        said = run["contract"][phase]
        row[phase] = {"truth": run[lost]["mean"], "said": said["state"], "mean": said["mean"], "upper": said["upper"],
                      "density": run["density"][phase]}
    return row


def missing_runs():
    """Makes the runs that RUNS does not have yet, as many as SECONDS allow."""
    done = set()
    if RUNS.exists():
        done = {(r["text"], r["method"], r["length"]) for r in map(json.loads, RUNS.read_text().splitlines())}
    until = time.monotonic() + float(os.environ.get("SECONDS", "inf"))
    todo = [(package, path, method, length) for length in LENGTHS for package, path in TEXTS for method in METHODS
            if (name_of(package, path), method, length) not in done]

    def one(plan):
        if time.monotonic() < until:
            row = json.dumps(one_run(*plan))
            with open(RUNS, "a") as file:
                file.write(row + "\n")

    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", "1"))) as jobs:
        list(jobs.map(one, todo))


def name_of(package, path):
    return f"{package}: {path.rsplit('/', 1)[1]}"


def one_run(package, path, method, length):
    piece = cut(text_of(package, path), length)
    run = lacuna(piece, WRITTEN, "--method", method, "--max-loss", f"{LIMIT:.0%}", "--audit", "full")
    return {"text": name_of(package, path), "sha256": hashlib.sha256(piece.encode()).hexdigest()[:12], "method": method, "length": length,
            **figures(run)}


def kept():
    missing_runs()
    total = len(TEXTS) * len(METHODS) * len(LENGTHS)
    runs = sorted(map(json.loads, RUNS.read_text().splitlines()), key=lambda r: (r["length"], METHODS.index(r["method"]), r["text"]))
    lines = [] if len(runs) == total else [f"UNFINISHED: {len(runs)} of {total} runs.", ""]
    lines += [f"{len(TEXTS)} texts read, then {WRITTEN} tokens written; --max-loss {LIMIT:.0%} --audit full. kept: runs whose mean lost mass over all rows is",
             "within the limit; held, open, broken: what the run said, by the rows it drew; silent: not kept, and said to be held; bound: runs whose",
             "true mean is within the bound they gave. density, lost: means over the runs, with the largest loss of one."]
    for phase, title in (("prefill", "reading"), ("decode", "writing")):
        lines += ["", f"{title:<8} {'method':<13} {'runs':>5} {'kept':>5} {'held':>5} {'open':>5} {'broken':>6} {'silent':>6} {'bound':>6} {'density':>8} {'lost':>7} {'most':>7}"]
        for length in LENGTHS:
            for method in METHODS:
                of = [r[phase] for r in runs if r["length"] == length and r["method"] == method]
                count = lambda test: sum(map(test, of))
                if not of:
                    continue
                lines.append(f"{length:>8} {method:<13} {len(of):>5} {count(lambda r: r['truth'] <= LIMIT):>5} "
                             + " ".join(f"{count(lambda r: r['said'] == s):>{w}}" for s, w in (("held", 5), ("open", 5), ("broken", 6)))
                             + f" {count(silent):>6} {count(lambda r: r['truth'] <= r['upper']):>6} {statistics.mean(r['density'] for r in of):8.2%} "
                             f"{statistics.mean(r['truth'] for r in of):7.3%} {max(r['truth'] for r in of):7.3%}")
    lines += ["", *verdict(runs)]
    write("kept", lines, runs)


def silent(r):
    return r["truth"] > LIMIT and r["said"] == "held"


def verdict(runs):
    whole = lambda test: f"{sum(map(test, runs))} of {len(runs)} runs ({sum(map(test, runs)) / len(runs):.1%})"
    lines = [f"kept, reading and writing: {whole(lambda r: max(r['prefill']['truth'], r['decode']['truth']) <= LIMIT)}"]
    breaches = [(r, phase) for r in runs for phase in ("prefill", "decode") if r[phase]["truth"] > LIMIT]
    lines.append(f"breaches: {len(breaches)}, of which the run itself reported {sum(not silent(r[phase]) for r, phase in breaches)}")
    lines += [f"  {'SILENT' if silent(r[phase]) else r[phase]['said']:<7} {r['text']}, {r['tokens']} tokens, {r['method']}, {phase}: lost {r[phase]['truth']:.3%}, "
              f"by its draws {r[phase]['mean']:.3%}, at most {r[phase]['upper']:.3%}" for r, phase in breaches]
    return lines


# --- cost --------------------------------------------------------------------------------------

def cost():
    rounds = int(os.environ.get("ROUNDS", "5"))
    text, middle = text_of(*TEXTS[0]), statistics.median
    lines = [f"One text, {WRITTEN} tokens written, sampled audits, {rounds} rounds in turn: medians. Shares are of the time to the first token and of the time",
             "to write; the contract's of both together.", "",
             f"{'tokens':>7} {'method':<13} {'contract':>8} {'TTFT s':>7} {'audit':>7} {'writing':>8} {'contract':>9}"]
    rows = []
    for length in (2000, 4000, 7000):
        piece = cut(text, length)
        plans = [(m, limit) for m in METHODS for limit in ("", "1%")]
        runs = {p: [] for p in plans}
        for _ in range(rounds):
            for method, limit in plans:
                runs[method, limit].append(lacuna(piece, WRITTEN, "--method", method, "--audit", "sample", *(["--max-loss", limit] if limit else [])))
        for (method, limit), of in runs.items():
            whole = lambda r: r["ttft_s"] + WRITTEN / r["decode_tok_s"]
            row = {"tokens": of[0]["prompt_tokens"], "method": method, "limit": limit, "ttft_s": middle(r["ttft_s"] for r in of),
                   "audit_share": middle(r["audit_share"]["prefill"] for r in of),
                   "audit_share_decode": middle(r["audit_share"]["decode"] for r in of),
                   "contract_share": middle(r["contract_s"] / whole(r) for r in of)}
            rows.append(row)
            lines.append(f"{row['tokens']:>7} {method:<13} {limit or 'none':>8} {row['ttft_s']:7.2f} {row['audit_share']:7.2%} "
                         f"{row['audit_share_decode']:8.2%} {row['contract_share']:9.2%}")
    write("cost", lines, rows)


if __name__ == "__main__":
    if sys.argv[1:] not in (["kept"], ["cost"]):
        sys.exit(f"error: {' '.join(sys.argv[1:]) or 'nothing'}: need kept or cost")
    kept() if sys.argv[1:] == ["kept"] else cost()
