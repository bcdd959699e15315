#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lacuna in llama.cpp beside OpenVINO GenAI: the time to the first token of one model that reads one text, in turn, as a table and
as JSON in bench/results/<processor>/:

  bench/peers/openvino_cpu.py      needs OpenVINO GenAI 2026.4: pip install openvino-genai==2026.4.1.0

OpenVINO reads the same GGUF file, dense and with its own XAttention (stride 8, its threshold and block), with the prompt in pieces of
512 tokens (as llama.cpp has it) and whole. The two differ in everything: matrix products, weights' types, cache (8 bits in
OpenVINO, f16 here). So the ratio is of whole programs; what attention alone gives stands in attend.txt.
LACUNA_BUILD (build/release), LACUNA_MODELS (models), LLAMA_DIR, OUT_DIR (bench/results), THREADS (2) and ROUNDS (5) say where and how.
"""
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

import openvino_genai as genai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import ROOT, commit, processor, results  # noqa: E402

BUILD = pathlib.Path(os.environ.get("LACUNA_BUILD", ROOT / "build/release"))
MODELS = pathlib.Path(os.environ.get("LACUNA_MODELS", ROOT / "models"))
THREADS, ROUNDS = int(os.environ.get("THREADS", "2")), int(os.environ.get("ROUNDS", "5"))
MODEL, TEXT = MODELS / "smollm2-135m-instruct.gguf", MODELS / "texts/demo.txt"


def openvino(tokens_at_once, sparse):
    """Returns a function that reads the text once and returns seconds to the first token, and how many tokens that read."""
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = tokens_at_once
    scheduler.cache_size = 2  # GB
    if sparse:
        scheduler.use_sparse_attention = True
        scheduler.sparse_attention_config = genai.SparseAttentionConfig(mode=genai.SparseAttentionMode.XATTENTION)
    pipe = genai.LLMPipeline(str(MODEL), "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=THREADS)
    config = genai.GenerationConfig()
    config.max_new_tokens, config.do_sample, config.apply_chat_template = 2, False, False
    text = TEXT.read_text()

    def run():
        metrics = pipe.generate([text], config).perf_metrics
        return metrics.get_ttft().mean / 1e3, metrics.get_num_input_tokens()

    return run


def lacuna(method):
    def run():
        done = subprocess.run([str(BUILD / "lacuna"), "run", "-m", str(MODEL), "-f", str(TEXT), "-n", "2", "--no-chat", "-t", str(THREADS),
                               "--method", method, "--json=-"], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"error: lacuna run: {done.stderr.strip()[-500:]}")
        r = json.loads(done.stdout)
        return r["ttft_s"], r["prompt_tokens"]

    return run


def main():
    sides = {"llama.cpp as it is": lacuna("stock"), "Lacuna dense": lacuna("dense"), "Lacuna xattention": lacuna("xattention")}
    for pieces, name in ((512, "512 at once"), (8192, "whole prompt")):
        for sparse in (False, True):
            sides[f"OpenVINO {'xattention' if sparse else 'dense'}, {name}"] = openvino(pieces, sparse)
    for name, side in sides.items():
        if name.startswith("OpenVINO"):
            side()  # the first run compiles
    times, tokens = {name: [] for name in sides}, {}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            seconds, tokens[name] = side()
            times[name].append(seconds)
    if len(set(tokens.values())) != 1:
        sys.exit(f"error: not the same prompt: {tokens}")
    out = results()
    dense = statistics.median(times["Lacuna dense"])
    lines = ["bench/peers/openvino_cpu.py",
             f"commit {commit()}; {datetime.date.today()}; {os.cpu_count()} cores, {THREADS} threads; {processor()[0]}; openvino-genai {genai.__version__}", "",
             f"{MODEL.name} reads {tokens['Lacuna dense']} tokens; {ROUNDS} rounds in turn, seconds to the first token.", "",
             f"{'':<34} {'median':>7} {'least':>7} {'most':>7}  over Lacuna dense"]
    rows = []
    for name, t in times.items():
        middle = statistics.median(t)
        rows.append({"name": name, "ttft_s": middle, "min": min(t), "max": max(t), "over_dense": middle / dense})
        lines.append(f"{name:<34} {middle:7.2f} {min(t):7.2f} {max(t):7.2f}  {middle / dense:8.2f}")
    print("\n".join(lines))
    (out / "openvino.txt").write_text("\n".join(lines) + "\n")
    (out / "openvino.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
