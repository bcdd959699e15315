# SPDX-License-Identifier: Apache-2.0
"""A server's log has a line now and then while it works, and its report is there whole however it ends: asked to by a signal, or
killed."""
import json
import pathlib
import re
import signal
import tempfile
import time

from support import Server, check, model, text_of

LINE = re.compile(r"lacuna: streamingllm\S*: density prefill (0\.\d+) decode \S+, mean lost mass (0\.\d+) \(at most (\d\.\d+)\) \+ .*"
                  r" s \((\d+\.\d) % of the passes, audit (\d+\.\d) %\)")
PROMPT = text_of("demo.txt").read_text()[:4000]  # about 1000 tokens


def work(server, seconds):
    """Requests, one after the other, none of which finds the last one's prompt; how many seconds they took."""
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        server.complete(PROMPT, 4, cache_prompt=False)
    return time.monotonic() - start


def lines(server):
    return [m for m in map(LINE.search, server.tail(1 << 20).splitlines()) if m]


def whole(path):
    report = json.loads(path.read_text())
    check(report["prefill"]["lost_mass"]["rows"] > 0 and report["prefill"]["pass_s"] > 0, f"an empty report: {report}")
    return report


def ended_by(number, folder, log):
    """The report of a server that worked for some seconds, and what its log said of them."""
    path = pathlib.Path(folder) / f"report-{number}.json"
    settings = f"streamingllm:sink=4:window=64 audit=sample report={path} {log}"
    with Server(model("smollm2-135m-instruct.gguf"), settings, "-c", "2048", "-np", "1") as server:
        took = work(server, 3)
        said = lines(server)
        early = path.exists() and whole(path)
        server.process.send_signal(number)
        server.process.wait(timeout=60)
    check(list(path.parent.glob("*.part")) == [], "half a report was left")
    check(len(said) <= took + 1, f"{len(said)} lines in {took:.1f} s, one each second was asked for")
    return said, early, path.exists() and whole(path), lines(server)


with tempfile.TemporaryDirectory() as name:
    said, early, last, all_lines = ended_by(signal.SIGINT, name, "log=1s")
    check(said, "no line while it worked")
    for line in said:
        density, lost, most, attention, audit = map(float, line.groups())
        check(density < 0.6 and 0 < lost <= most and 0 < audit < attention < 100, line[0])
    check(early, "the report comes with the lines")
    check(last and last["prefill"]["calls"] >= early["prefill"]["calls"], f"the last report has less than an early one: {last}")
    check(len(all_lines) == len(said) + 1, f"one line more at the end: {len(all_lines)}")

    said, early, last, _ = ended_by(signal.SIGTERM, name, "")
    check(not said and not early, "a line, or a report, that nobody asked for")
    check(last, "no report at the end")

    said, early, last, _ = ended_by(signal.SIGKILL, name, "log=1")
    check(said and early and last, "a server that is killed leaves the report of its last line")
