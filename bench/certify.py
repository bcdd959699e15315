#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What certificates ask for in a real model, as a table and as JSON, in bench/results/<processor>/certify-<model>:

  bench/certify.py smollm2|gemma     each method by itself with its bounds told (100 %), and with limits that it must keep

Every row of every decoded token is audited beside it, with --precision high: in bf16 the two log-sum-exps of an audit may differ by more than
what is lost. Variables as in bench/study.py; METHODS (quest,dense+twilight) and LIMITS (100%,5%,1%) name
others.
"""
import json
import os
import sys

from study import MODELS, SETS, THREADS, lacuna, write

METHODS = os.environ.get("METHODS", "quest,dense+twilight").split(",")
LIMITS = os.environ.get("LIMITS", "100%,5%,1%").split(",")
TOKENS = 17


def run(which, method, limit):
    model, text, _ = SETS[which]
    return json.loads(lacuna("run", "-m", MODELS / model, "-f", MODELS / "texts" / text, "-n", TOKENS, "--no-chat", "-t", THREADS,
                             "--audit", "full", "--precision", "high", "--method", method, *(["--certify", limit] if limit else []), "--json=-"))


def main(arguments):
    if len(arguments) != 1 or arguments[0] not in SETS:
        sys.exit(f"error: {' '.join(arguments) or 'nothing'}: need one of {', '.join(SETS)}")
    runs = [(m, limit, run(arguments[0], m, limit)) for m in METHODS for limit in LIMITS]
    lines = [f"{runs[0][2]['prompt_tokens']} tokens read, then {runs[0][2]['generated_tokens']} written. limit: --certify, 100% keeps nothing for it. proved: bounds of the",
             "lost mass over all rows of decode; lost: what the audit of the same rows measured; added: of the visible pairs, kept for the bound.", "",
             f"{'writing':<26} {'limit':>6} {'density':>8} {'added':>8} {'proved mean':>11} {'max':>8} {'lost mean':>10} {'max':>8}"]
    for method, limit, r in runs:
        c, lost = r["certificate"], r["lost_mass_decode"]
        lines.append(f"{method:<26} {limit:>6} {r['density']['decode']:8.2%} {c['kept_for_it']:8.2%} {c['mean']:11.2%} {c['max']:8.2%} "
                     f"{lost['mean']:10.2%} {lost['max']:8.2%}")
    write(f"certify-{arguments[0]}", lines, [{"method": m, "limit": limit, "density": r["density"]["decode"], **r["certificate"],
                                             "lost": r["lost_mass_decode"]} for m, limit, r in runs])


if __name__ == "__main__":
    main(sys.argv[1:])
