# SPDX-License-Identifier: Apache-2.0
"""lacuna tune on a real model: the profile keeps its limit on a text it was not tuned on and is sparse, by the command
line and by the plug-in's variable; bad input is named; an interrupted run ends as one that was not interrupted."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from support import check, environment, model, plugin, text_of

LACUNA = str(plugin().with_name("lacuna"))
MODEL = model("smollm2-135m-instruct.gguf")
WINDOWS = ",".join(f"streamingllm:sink=32:window={w}" for w in (64, 256, 512, 768))


def start(*arguments):
    return subprocess.Popen([LACUNA, *map(str, arguments)], env=environment(None), text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lacuna(*arguments, code=0):
    child = start(*arguments)
    out, err = child.communicate(timeout=240)
    check(child.returncode == code,
          f"lacuna {' '.join(map(str, arguments))} ended with {child.returncode}, not {code}:\n{out}{err}")
    return out, err


def run(text, *more):
    out, _ = lacuna("run", "-m", MODEL, "-f", text, "--no-chat", "-n", 2, "--json", "-", *more)
    return json.loads(out)


def tune(texts, profile, *more, code=0):
    methods = () if "--methods" in more else ("--methods", WINDOWS)
    return lacuna("tune", "-m", MODEL, "-f", texts, "-o", profile, "-c", 1100, *methods, *more, code=code)


def resumes(texts, profile, folder):
    """Interrupted once a part is written; the same command goes on and writes the same profile."""
    path = folder / "resumed.json"
    part = pathlib.Path(f"{path}.part")
    command = ["tune", "-m", MODEL, "-f", texts, "-o", path, "-c", 1100, "--methods", WINDOWS, "--max-loss", "2%"]
    child = start(*command)
    while child.poll() is None and not part.exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=240)
    check(child.returncode == 130, f"an interrupted run ended with {child.returncode}:\n{err}")
    check("goes on from" in err and part.exists() and not path.exists(), f"interrupted, it left {sorted(folder.iterdir())}:\n{err}")
    _, err = lacuna(*command, "--seed", 2, code=2)
    check("other settings (seed" in err, f"a part of another seed:\n{err}")
    _, err = lacuna(*command)
    check("going on after" in err, f"it began anew:\n{err}")
    check(path.read_bytes() == profile.read_bytes(), "the resumed profile differs from the whole one")
    check(not part.exists() and not pathlib.Path(f"{path}.try").exists(), "something is left behind")


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    book = text_of("long.txt").read_text()
    texts, unseen, few = folder / "texts.txt", folder / "unseen.txt", folder / "few.txt"
    texts.write_text(book[:28000])  # six prompts
    unseen.write_text(book[40000:44600])
    few.write_text(book[:2000])
    profile = folder / "profile.json"

    said, _ = tune(texts, profile, "--max-loss", "2%")
    print(said)
    check(f"--profile {profile}" in said, f"nothing says how to use the profile:\n{said}")
    found = json.loads(profile.read_text())
    check(found["params"]["held_back"]["lost"] <= 0.02, f"the limit is not kept: {found['params']}")
    sizes = {m for band in found["data"]["choice"] for layer in band if layer for m in layer}
    check(len(sizes) > 2, f"all heads are alike: {found['data']['methods']}")

    tuned = run(unseen, "--profile", profile)
    check(tuned["density"]["prefill"] < 0.9, f"not sparse: {tuned['density']}")
    # A thousand tokens that six prompts stood for, with costs as this machine shows them today: twice the limit, not the limit.
    check(tuned["lost_mass"]["mean"] < 0.04, f"lost mass on another text: {tuned['lost_mass']}")
    check(tuned["method"] == f"tuned:profile={profile}", tuned["method"])
    out, err = lacuna("compare", "-m", MODEL, "-f", few, "--no-chat", "-n", 2, "--profile", profile)
    check("tuned" in out, f"compare has no row of the profile:\n{out}{err}")
    report = folder / "report.json"
    done = subprocess.run([os.environ["LACUNA_LLAMA_BIN"] + "/llama-bench", "-m", MODEL, "-p", "1000", "-n", "0", "-r", "1", "-fa", "on"],
                          env=environment(f"profile={profile} quiet=1 report={report}"), capture_output=True, text=True, timeout=240)
    check(done.returncode == 0, f"llama-bench with profile=PATH alone:\n{done.stderr[-2000:]}")
    check(json.loads(report.read_text())["prefill"]["density"] < 0.9, "the plug-in did not take the profile")

    resumes(texts, profile, folder)

    # Bad input: one line that names it, and nothing written.
    none = folder / "none.json"
    for arguments, parts in (
            ((few, none), ("text too short", "need two")),
            ((texts, none, "--max-loss", "0.0001%"), ("--max-loss 0.0001%", "within reach: --max-loss")),
            ((texts, none, "--max-loss", "2"), ("--max-loss: got '2'",)),
            ((texts, none, "--methods", "streaminglm"), ("--methods", "streamingllm")),
            ((texts, none, "--methods", "auto"), ("--methods: auto", "plan by themselves")),
            ((folder / "no.txt", none), ("no.txt",))):
        _, err = tune(*arguments, code=2)
        check(all(p in err for p in parts) and len(err.strip().splitlines()) == 1, f"{arguments}:\n{err}")
        check(not none.exists(), f"{arguments}: a profile was written")
    pathlib.Path(f"{none}.part").unlink(missing_ok=True)
    _, err = lacuna("calibrate", "tuned", "-m", MODEL, "-f", few, "-o", none, code=2)
    check("'lacuna tune' makes its profile" in err, err)
    broken = folder / "broken.json"
    broken.write_text(profile.read_text()[:500])
    for path, part in ((broken, "is no JSON, or cut off"), (folder / "no.json", "is not there")):
        _, err = lacuna("run", "-m", MODEL, "-f", few, "--profile", path, code=2)
        check(f"--profile: {path}" in err and part in err, f"--profile {path}:\n{err}")
    _, err = lacuna("run", "-m", MODEL, "-f", few, "--profile", profile, "--method", "dense", code=2)
    check("--profile and --method" in err, err)
