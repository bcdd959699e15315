# SPDX-License-Identifier: Apache-2.0
"""llama-bench with the plug-in: a prompt and some decode steps, and what the report says of each."""
import json
import tempfile

from support import check, model, read_report, run, tool

METHOD = "streamingllm:sink=4:window=128 audit=full"

with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    for phase, sizes in (("prefill", ("-p", "512", "-n", "0")), ("decode", ("-p", "0", "-n", "8", "-d", "512"))):
        text = run([tool("llama-bench"), "-m", model("smollm2-135m-instruct.gguf"), "-t", "2", "-r", "1", "-fa", "1",
                    "-o", "json", *sizes], f"{METHOD} quiet=1 report={report}")
        check(json.loads(text[text.index("["):text.rindex("]") + 1])[0]["avg_ts"] > 0, f"no speed: {text[-500:]}")
        seen = read_report(report)
        check(not seen["declined"] and 0.2 < seen[phase]["density"] < 0.5, f"{phase}: not as sparse as it should be: {seen}")
        check(0 < seen[phase]["lost_mass"]["mean"] < 1, f"{phase}: no lost mass: {seen}")
