# SPDX-License-Identifier: Apache-2.0
"""lacuna calibrate on a real model: profiles are written, used by run and compare, refused where they do not fit,
and an interrupted calibration ends as one that was not interrupted."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time

from support import check, environment, model, plugin, text_of

LACUNA = str(plugin().with_name("lacuna"))
MODEL = model("smollm2-135m-instruct.gguf")
LAYERS, QUERY_HEADS, KV_HEADS, CHANNELS = 30, 9, 3, 64


def start(*arguments):
    return subprocess.Popen([LACUNA, *map(str, arguments)], env=environment(None), text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lacuna(*arguments, code=0):
    child = start(*arguments)
    out, err = child.communicate(timeout=240)
    check(child.returncode == code,
          f"lacuna {' '.join(map(str, arguments))} ended with {child.returncode}, not {code}:\n{out}{err}")
    return out, err


def calibrate(slug, text, profile, *more, code=0):
    out, err = lacuna("calibrate", slug, "-m", MODEL, "-f", text, "-o", profile, *more, code=code)
    return err if code else (json.loads(profile.read_text()), out + err)


def run(spec, text, *more):
    out, _ = lacuna("run", "-m", MODEL, "-f", text, "--no-chat", "-n", 3, "--method", spec, "--json", "-", *more)
    return json.loads(out)


def resumes(slug, texts, whole, folder, *more):
    """Interrupted as soon as a part is written; the same command goes on and gives the same profile."""
    path = folder / f"{slug}-resumed.json"
    part = pathlib.Path(f"{path}.part")
    command = ["calibrate", slug, "-m", MODEL, "-f", texts, "-o", path, *more]
    child = start(*command)
    while child.poll() is None and not part.exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=240)
    check(child.returncode == 130, f"{slug}: an interrupted calibration ended with {child.returncode}:\n{err}")
    check(part.exists() and not path.exists(), f"{slug}: interrupted, it left {[p.name for p in folder.iterdir()]}")
    check("the same command goes on from" in err, f"{slug}: nothing says how to go on:\n{err}")
    # Another text does not go on from it.
    _, err = lacuna("calibrate", slug, "-m", MODEL, "-f", folder / "words.txt", "-o", path, *more, code=2)
    check("other settings (" in err, f"{slug}: a part of other settings:\n{err}")
    _, err = lacuna(*command)
    check("going on after" in err, f"{slug}: it began anew:\n{err}")
    check(not part.exists(), f"{slug}: the part file is left behind")
    check(json.loads(path.read_text()) == whole, f"{slug}: the resumed profile differs from the whole one")


def changed(profile, folder, change):
    """A copy of a profile with one thing changed."""
    profile = json.loads(json.dumps(profile))
    change(profile)
    path = folder / "changed.json"
    path.write_text(json.dumps(profile))
    return path


def refused(slug, profile, text, folder, change, *parts):
    path = changed(profile, folder, change)
    _, err = lacuna("run", "-m", MODEL, "-f", text, "-n", 1, "--method", f"{slug}:profile={path}", code=2)
    check(len(err.strip().splitlines()) == 1, f"{slug}: not one line:\n{err}")
    for part in (f"{slug}.profile", *parts):
        check(part in err, f"{slug}: the error has no '{part}':\n{err}")


def calibrations(folder, text, half, words):
    """Both methods' profiles; one of them also interrupted and resumed."""
    heads, said = calibrate("minference", text, folder / "heads.json")
    check("--method minference:profile=" in said, f"nothing says how to use the profile:\n{said}")
    shapes = heads["data"]["shapes"]
    check((heads["slug"], heads["data"]["unit"]) == ("minference", "share"), "a profile of another kind")
    check([len(layer) for layer in shapes] == [QUERY_HEADS] * LAYERS, "not one shape for each head")
    kinds = [head["kind"] for layer in shapes for head in layer]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))}, f"of {heads['texts']['tokens']} tokens")
    check(len(set(kinds)) > 1, f"all heads have one shape: {kinds[0]}")

    some = ("-c", 128, "--max-tokens", 520)
    channels, _ = calibrate("double-sparsity", half, folder / "channels.json", *some)
    check(len(channels["data"]["order"]) == LAYERS * KV_HEADS, "not one list for each KV head")
    resumes("double-sparsity", half, channels, folder, *some)
    for slug in ("minference", "double-sparsity"):
        err = calibrate(slug, words, folder / "none.json", code=2)
        check("text too short" in err and not (folder / "none.json").exists(), f"{slug}: of a short text:\n{err}")
    return heads, channels


def uses(folder, text, begin, words):
    """What run and compare make of the profiles."""
    heads = f"minference:profile={folder}/heads.json"
    channels = f"double-sparsity:budget=64:profile={folder}/channels.json"
    found = run(heads, text)
    check(found["density"]["prefill"] < 0.95 and found["density"]["decode"] == 1, f"not sparse: {found['density']}")
    check(0 < found["lost_mass"]["mean"] < 0.2, f"lost mass: {found['lost_mass']}")
    tuned, even = (run(s, begin, "--audit", "full") for s in (channels, "double-sparsity:budget=64"))
    check(tuned["density"]["decode"] < 0.8, f"not sparse: {tuned['density']}")
    tuned, even = (r["lost_mass_decode"]["mean"] for r in (tuned, even))
    print(f"double-sparsity lost {tuned:.4f} with the profile, {even:.4f} without")
    check(tuned < even, "calibrated channels are no better than even ones")
    out, err = lacuna("compare", "-m", MODEL, "-f", words, "--no-chat", "-n", 2, "--methods", f"{heads},{channels}")
    for spec in (heads, channels):
        check(spec.split(":")[0] in out, f"compare has no row of {spec}:\n{out}")
    check("another model" not in out + err, f"compare did not take a profile:\n{out}{err}")


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    book = text_of("demo.txt").read_text()

    def text_file(stem, letters):
        path = folder / f"{stem}.txt"
        path.write_text(book[:letters])
        return path

    # About 1150, 650, 280 and 20 tokens. The search of head shapes wants 1024.
    text, half, begin, words = (text_file(*t) for t in (("text", 5300), ("half", 3000), ("begin", 1300), ("words", 90)))
    heads, channels = calibrations(folder, text, half, words)
    uses(folder, text, begin, words)
    for slug, profile, key, value, shown, data in (
            ("minference", heads, "hq", 12, f"hq: got {QUERY_HEADS}, need 12", {"shapes": [None] * LAYERS}),
            ("double-sparsity", channels, "hkv", 1, f"hkv: got {KV_HEADS}, need 1",
             {"order": [list(range(CHANNELS))] * LAYERS})):
        # Whole profiles of other models, then damaged ones of this.
        refused(slug, profile, words, folder,
                lambda p: (p["model"].update({key: value}), p["data"].update(heads=value, **data)),
                "another model", shown, "lacuna calibrate")
        refused(slug, profile, words, folder, lambda p: p["model"].update(n_layers=LAYERS + 1), "another model",
                f"n_layers: got {LAYERS}, need {LAYERS + 1}")
        refused(slug, profile, words, folder, lambda p: p["data"].update(layers=LAYERS + 1), "data.layers")
        refused(slug, profile, words, folder, lambda p: p["data"].update(heads=77), "data.heads", "got 77")
        refused(slug, profile, words, folder, lambda p: p.update(slug="quest"), "'quest'", f"lacuna calibrate {slug}")
