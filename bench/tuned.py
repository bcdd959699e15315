#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tuned profile against single methods, on a text it was not tuned on, in bench/results/<processor>/:

  bench/tuned.py smollm2 demo|checklist      tuned-smollm2-demo.txt, tuned-smollm2-checklist.txt
  bench/tuned.py gemma long                  tuned-gemma-long.txt

Tunes on other chapters of the Debian policy manual and on four smaller manuals of the package debian-policy (PROFILE: takes
this profile, made by TUNE_ONLY=1, which does only that). Then reads the policy manual's third chapter, or its upgrading
checklist, with every single method of a grid, and holds the profile's attention time against the fastest of those that lose no
more than it does. The environment of bench/study.py holds here too: JOBS of the grid's runs go side by side. MAX_LOSS (1%) is
what it is tuned for, ROUNDS (3) how often dense, the profile and the two best single methods are read in turn, alone, for the times
that count.
"""
import concurrent.futures
import gzip
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile

from study import JOBS, MODELS, SETS, THREADS, lacuna, run, seconds, write

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
from get_models import CUTS, HEADING, manual

MAX_LOSS = os.environ.get("MAX_LOSS", "1%")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CONTEXT = {"smollm2": 8192, "gemma": 28672}
WINDOWS = {"smollm2": [2048, 2560, 3072, 3584, 4096, 4608], "gemma": [8192, 12288, 16384, 20480, 24576]}
CHOOSING = ["xattention:mass=0.995", "xattention:mass=0.998", "xattention", "flexprefill:mass=0.997", "flexprefill", "minference", "unisparse",
            *(f"sampleattention:mass={m}:slash_mass={m}" for m in (0.98, 0.985, 0.987, 0.99, 0.993)),
            *(f"sampleattention:mass={m}:slash_mass=0.5" for m in (0.985, 0.99, 0.993, 0.995, 0.997, 0.998))]
SMALL = ("copyright-format-1.0", "debconf_specification", "autopkgtest", "perl-policy")


def plain(text):
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[^\S\n]+\n", "\n", text.replace("\r", "")))


def documents(*names):
    return plain("".join(gzip.open(f"/usr/share/doc/debian-policy/{name}.txt.gz", "rt").read() for name in names))


def texts_to_tune_on(which, folder):
    whole = plain(manual())
    rest = whole[whole.find(f"\n{HEADING}\n") + CUTS["long.txt"] + 500:]  # behind the end of what is read
    paths = []
    for name, text in (("policy-tail.txt", rest[:110_000 if which == "smollm2" else 200_000]), ("small-manuals.txt", documents(*SMALL))):
        paths.append(folder / name)
        paths[-1].write_text(text)
    return paths


def text_to_read(name, folder):
    path = folder / f"{name}.txt"
    path.write_text(documents("upgrading-checklist")[:31_000] if name == "checklist" else (MODELS / "texts" / f"{name}.txt").read_text())
    return path


def tune(which, profile, folder):
    lacuna("tune", "-m", MODELS / SETS[which][0], "-f", ",".join(map(str, texts_to_tune_on(which, folder))), "-o", profile, "-t", THREADS,
           "--max-loss", MAX_LOSS, "-c", CONTEXT[which])


def told(profile):
    """What a profile says of how it was made."""
    p = json.loads(profile.read_text())
    held, params, texts = p["params"]["held_back"], p["params"], p["texts"]
    return [f"Tuned for {params['max_loss']:.2%} of lost mass on {texts['tokens']} tokens of {', '.join(f['name'] for f in texts['files'])};",
            f"{texts['held_back_tokens']} tokens of them held back lost {held['lost']:.2%} at a density of {held['density']:.1%}. By the cost model "
            f"{params['expected_share_of_dense_time']:.2f} of dense's attention time."]


def row_of(spec, r, dense):
    s, d = seconds(r), seconds(r, "attention_s_decode")
    select, attend = s["select"] - d["select"], s["attend"] - d["attend"]
    return {"spec": spec, "density": r["density"]["prefill"], "lost": r["lost_mass"]["mean"], "select": select, "attend": attend,
            "ratio": (select + attend) / dense, "ttft": r["ttft_s"], "decode_ms": 1e3 * (d["select"] + d["attend"]) / max(1, r["generated_tokens"] - 1),
            "decode_lost": r["lost_mass_decode"]["mean"]}


def show(r):
    lost = f"{r['decode_lost']:7.2%}" if r["decode_lost"] is not None else f"{'-':>7}"
    return (f"{r['spec']:<40} {r['density']:8.2%} {r['lost'] or 0:7.2%} {r['select']:8.2f} {r['attend']:8.2f} {r['ratio']:7.2f} "
            f"{r['ttft']:7.2f} {r['decode_ms']:9.2f} {lost}")


def attention(r):
    s, d = seconds(r), seconds(r, "attention_s_decode")
    return s["select"] + s["attend"] - d["select"] - d["attend"]


def evaluate(which, profile, path):
    """Lines and figures of one text."""
    label, tuned = "tuned", f"tuned:profile={profile}"
    singles = [f"streamingllm:sink=32:window={w}" for w in WINDOWS[which]] + CHOOSING
    singles = [spec for spec in singles if re.search(os.environ.get("STUDY", ""), spec)]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        plain, first, *read = pool.map(lambda spec: run(which, spec, path, 64), ["dense", tuned, *singles])
    dense = attention(plain)
    rows = [row_of(spec, r, dense) for spec, r in zip(singles, read)]
    target = first["lost_mass"]["mean"]
    lines = [show(row_of(label, first, dense)), *map(show, rows)]
    good = sorted((r for r in rows if r["lost"] is not None and r["lost"] <= target), key=lambda r: r["ratio"])
    near = [r["spec"] for r in good[:2]] or ["dense"]  # the grid's times are rough: the round decides between these
    # In turn, so that a slow spell of the machine falls on all alike.
    turns = [{spec: run(which, spec, path, 64) for spec in dict.fromkeys(("dense", tuned, *near))} for _ in range(ROUNDS)]
    middle = lambda a, b: statistics.median(attention(t[a]) / attention(t[b]) for t in turns)
    best = min(near, key=lambda spec: middle(spec, "dense"))
    figures = {"tuned_lost": target, "best_single": best, "of_best_single": middle(tuned, best), "of_dense": middle(tuned, "dense"),
               "best_single_of_dense": middle(best, "dense"),
               "ttft_of_dense": statistics.median(t[tuned]["ttft_s"] / t["dense"]["ttft_s"] for t in turns), "rows": rows}
    lines += ["", f"The fastest single method that loses no more than the profile's {target:.2%}: {best}.",
              f"{ROUNDS} rounds of dense, the profile and {' and '.join(near)}, in turn, medians: the profile takes {figures['of_best_single']:.2f} of its",
              f"attention time, {figures['of_dense']:.2f} of dense's, and {figures['ttft_of_dense']:.2f} of dense's time to the first token."]
    return lines, figures


def main(arguments):
    if len(arguments) != 2 or arguments not in (["smollm2", "demo"], ["smollm2", "checklist"], ["gemma", "long"]):
        sys.exit(f"error: {' '.join(arguments) or 'nothing'}: need smollm2 demo, smollm2 checklist or gemma long")
    which, text = arguments
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        profile = pathlib.Path(os.environ.get("PROFILE", folder / "profile.json"))
        if not profile.exists():
            tune(which, profile, folder)
        if "TUNE_ONLY" in os.environ:
            return
        lines, document = evaluate(which, profile, text_to_read(text, folder))
        head = [*told(profile), "", f"{text}.txt, then 64 tokens written. Times of the table are of one run each, {JOBS} side by side.",
                f"{'reading':<40} {'density':>8} {'lost':>7} {'select s':>8} {'attend s':>8} {'x dense':>7} {'TTFT s':>7} {'decode ms':>9} {'lost':>7}"]
        write(f"tuned-{which}-{text}", head + lines, document)


if __name__ == "__main__":
    main(sys.argv[1:])
