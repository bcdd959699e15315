# SPDX-License-Identifier: Apache-2.0
"""llama-completion with the plug-in: what its report says, with and without the tool's warm-up."""
import sys
import tempfile

from support import check, model, read_report, run, text_of, tool

LAYERS = 30  # of SmolLM2


def complete(folder, lacuna, *options):
    report = f"{folder}/report.json"
    prompt = text_of("demo.txt").read_text()[:2000]  # about 500 tokens
    text = run([tool("llama-completion"), "-m", model("smollm2-135m-instruct.gguf"), "-p", prompt, "-n", "4", "-t", "2",
                "-c", "1024", "-no-cnv", "--temp", "0", *options], f"{lacuna} report={report}")
    return read_report(report), text


with tempfile.TemporaryDirectory() as folder:
    seen, _ = complete(folder, "streamingllm:sink=4:window=128 audit=full")
    check(seen["prefill"]["density"] < 0.7 and seen["decode"]["density"] < 0.5, f"not sparse: {seen}")
    check(0 < seen["prefill"]["lost_mass"]["mean"] < 1 and not seen["declined"], f"no lost mass, or declined: {seen}")
    check(seen["decode"]["calls"] == 3 * LAYERS, f"three steps of {LAYERS} layers: {seen['decode']}")

    if "--short" in sys.argv:  # under sanitizers
        sys.exit(0)

    # The first graph is the first that counts: how many layers there are is not known yet.
    seen, _ = complete(folder, "trianglemix:layer_start=16:sink=4:window=64:last_rows=0", "--no-warmup", "-ub", "1024")
    check(0.5 < seen["prefill"]["density"] < 0.9, f"14 of {LAYERS} layers are sparse: {seen}")
    sparse = "trianglemix:layer_start=-1:sink=4:window=64:last_rows=0"
    seen, _ = complete(folder, sparse, "--no-warmup", "-ub", "1024")
    check(seen["prefill"]["density"] == 1, f"half of an unknown number is no number: {seen}")
    seen, _ = complete(folder, sparse, "--no-warmup", "-ub", "128")
    check(seen["prefill"]["density"] < 1, f"the second graph knows the number: {seen}")

    # A report that cannot be written is one line at the end, and the tool's own work is done.
    done = run([tool("llama-completion"), "-m", model("smollm2-135m-instruct.gguf"), "-p", "Hi", "-n", "2", "-t", "2",
                "-c", "256", "-no-cnv"], "dense quiet=1 report=/no_such_folder/x.json")
    lines = [line for line in done.splitlines() if line.startswith("lacuna:")]
    check(len(lines) == 1 and "report=/no_such_folder/x.json" in lines[0], f"one line names the file: {lines}")

    # What is declined is said, even if that was all.
    why = "keys or values of a type not taken"
    for quiet in (0, 1):
        seen, text = complete(folder, f"dense quiet={quiet}", "-ctk", "q5_0", "-ctv", "q5_0", "-fa", "on")
        check(len(seen["declined"]) == 1 and why in seen["declined"][0], f"the report does not say why: {seen}")
        check(seen["prefill"]["calls"] == seen["decode"]["calls"] == 0, f"attended all the same: {seen}")
        lines = [line for line in text.splitlines() if line.startswith("lacuna:")]
        check(len(lines) == 1 - quiet and all(why in line for line in lines), f"one line says why: {lines}")
