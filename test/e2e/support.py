# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where things are, how tools and a server are run.

    LACUNA_PLUGIN     liblacuna-ggml.so
    LACUNA_LLAMA_BIN  folder of llama.cpp's tools
    LACUNA_MODELS     folder of models (tools/get_models.py); models/ of this tree when not set
    LACUNA_SCRATCH    where a model with f32 weights is kept from test to test; the temporary folder when not set
    LACUNA_PRELOAD    libraries that runs with the plug-in load first

A missing model or tool ends a test with code 77, which ctest shows as skipped.
"""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
THREADS = "2"
# How far log probabilities of one token may differ on f32 weights. Ours from ours by the order of sums (0.003 was
# seen); from stock by more (0.01), whose flash attention sums values in f16.
AGAINST_OURS, AGAINST_STOCK = 0.01, 0.03


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def plugin():
    path = pathlib.Path(os.environ.get("LACUNA_PLUGIN") or ROOT / "build/release/liblacuna-ggml.so")
    if not path.exists():
        skip(f"{path} is not built; run 'make build'")
    return path


def tool(name):
    folder = os.environ.get("LACUNA_LLAMA_BIN")
    if not folder or not (pathlib.Path(folder) / name).exists():
        skip(f"no {name}; run 'make llama', then configure again")
    return str(pathlib.Path(folder) / name)


def model(name):
    path = pathlib.Path(os.environ.get("LACUNA_MODELS") or ROOT / "models") / name
    if not path.exists():
        skip(f"no {path}; run tools/get_models.py")
    return str(path)


def exact_model(name):
    """The model with its weights as f32. Quantised weights make llama.cpp quantise the activations too,
    and whatever differs in the last bit flips such roundings: on SmolLM2's file stock differs from itself
    (-fa on and off) by a mean KLD of 3e-3, which hides every fault of ours. On f32 weights by 1e-6."""
    source = pathlib.Path(model(name))
    wanted = pathlib.Path(os.environ.get("LACUNA_SCRATCH") or tempfile.gettempdir()) / f"{source.stem}-f32.gguf"
    if not wanted.exists() or wanted.stat().st_mtime < source.stat().st_mtime:
        part = wanted.with_suffix(f".{os.getpid()}.part")
        done = subprocess.run([sys.executable, "-c", EXACT, tool("llama-bench"), str(source), str(part)],
                              capture_output=True, text=True, timeout=240)
        check(done.returncode == 0, f"llama_model_quantize failed:\n{done.stderr[-2000:]}")
        part.rename(wanted)
    return str(wanted)


# llama_model_quantize with ftype 0 (all f32), in a process of its own: it needs libllama loaded.
EXACT = """
import ctypes, os, sys
folder = os.path.dirname(sys.argv[1])
if not os.path.exists(folder + "/libllama.so"): folder = os.path.dirname(folder) + "/lib"
load = lambda name: ctypes.CDLL(f"{folder}/{name}", mode=ctypes.RTLD_GLOBAL)
load("libggml-base.so")
load("libggml.so").ggml_backend_load_all_from_path(os.path.dirname(sys.argv[1]).encode())
llama = load("libllama.so")
class Params(ctypes.Structure):  # the beginning is what we set; the rest is more room than any version needs
    _fields_ = [(n, ctypes.c_int32) for n in ("nthread", "ftype", "output", "embedding")] + [
        ("allow_requantize", ctypes.c_bool), ("rest", ctypes.c_char * 239)]
llama.llama_model_quantize_default_params.restype = Params
params = llama.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = 0, True
sys.exit(llama.llama_model_quantize(sys.argv[2].encode(), sys.argv[3].encode(), ctypes.byref(params)))
"""


def environment(lacuna):
    """The variables of a run: None is stock llama.cpp, else the text of LACUNA."""
    env = {k: v for k, v in os.environ.items() if k not in ("LACUNA", "GGML_BACKEND_PATH")}
    if lacuna is not None:
        env["LACUNA"] = lacuna
        env["GGML_BACKEND_PATH"] = str(plugin())
        if preload := os.environ.get("LACUNA_PRELOAD"):  # a sanitizer's runtime; stock runs without
            env["LD_PRELOAD"] = preload
    return env


def run(command, lacuna, limit_s=240):
    done = subprocess.run(command, env=environment(lacuna), capture_output=True, timeout=limit_s,
                          stdin=subprocess.DEVNULL)
    text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    check(done.returncode == 0, f"{pathlib.Path(command[0]).name} ended with {done.returncode}:\n{text[-2000:]}")
    return text


def check(holds, what):
    if not holds:
        print(f"FAILED: {what}")
        sys.exit(1)


def text_of(name):
    return pathlib.Path(model(f"texts/{name}"))


def base_logits(gguf, text, folder, context, chunks, extra=()):
    """Stock llama.cpp's logits over the second half of each chunk, in a file."""
    base = pathlib.Path(folder) / "base.kld"
    run([tool("llama-perplexity"), "-m", gguf, "-f", str(text), "-c", str(context), "--chunks", str(chunks),
         "-t", THREADS, "-fa", "on", "--kl-divergence-base", str(base), *extra], None)
    return base


def divergence(gguf, base, context, chunks, lacuna, extra=()):
    """(mean KL divergence, share of same top tokens, its standard error) against the base; with flash
    attention unless `extra` says else."""
    text = run([tool("llama-perplexity"), "-m", gguf, "-c", str(context), "--chunks", str(chunks), "-t", THREADS,
                "--kl-divergence-base", str(base), "--kl-divergence", *(extra or ("-fa", "on"))], lacuna)
    mean = re.search(r"Mean\s+KLD:\s+(-?[\d.eE+-]+)", text)
    same = re.search(r"Same top p:\s+([\d.]+) ± ([\d.]+)", text)
    check(mean and same, f"llama-perplexity printed no divergence:\n{text[-2000:]}")
    return float(mean[1]), float(same[1]) / 100, float(same[2]) / 100


class Server:
    """A llama-server for the length of a with block."""

    def __init__(self, gguf, lacuna, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = tempfile.TemporaryFile()
        self.command = [tool("llama-server"), "-m", gguf, "--host", "127.0.0.1", "--port", str(self.port),
                        "-t", THREADS, "-tb", THREADS, "-fa", "on", "--no-webui", *options]
        self.lacuna = lacuna

    def __enter__(self):
        self.process = subprocess.Popen(self.command, env=environment(self.lacuna), stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                if self.get("/health").get("status") == "ok":
                    return self
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        self.__exit__()
        check(False, f"llama-server did not start:\n{self.tail()}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self, most=3000):
        size = os.fstat(self.log.fileno()).st_size  # its place is the server's, too: it stays where it is
        return os.pread(self.log.fileno(), most, max(0, size - most)).decode(errors="replace")

    def call(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", None if body is None else json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=240) as answer:
            return json.loads(answer.read())

    def get(self, path):
        return self.call(path, None)

    def complete(self, prompt, n, **more):
        """Greedy tokens as [(token, log probability)], and the whole answer."""
        answer = self.call("/completion", {"prompt": prompt, "n_predict": n, "temperature": 0, "n_probs": 1,
                                           "ignore_eos": True, **more})
        steps = [(p["top_logprobs"][0]["id"], p["top_logprobs"][0]["logprob"])
                 for p in answer["completion_probabilities"]]
        return steps, answer


def floor_of(gguf, base, context, chunks):
    """How far stock is from itself when attention is computed in another way: without flash attention,
    and with the prompt cut elsewhere. What no engine can be asked to undercut."""
    found = [divergence(gguf, base, context, chunks, None, extra) for extra in (("-fa", "off"), ("-fa", "on", "-ub", "256"))]
    return max(mean for mean, _, _ in found), min(top for _, top, _ in found)


def agree(ours, theirs, least, tolerance, what):
    """Both agree in token and log probability for at least `least` steps. A close race may part them later."""
    same = 0
    worst = 0.0
    for (a, p), (b, q) in zip(ours, theirs):
        worst = max(worst, abs(p - q)) if a == b else worst
        if a != b:
            break
        same += 1
    print(f"{what}: {same} of {min(len(ours), len(theirs))} tokens agree, log probability within {worst:.4f}")
    check(same >= least, f"{what}: the answers part after {same} tokens, need {least}")
    check(worst <= tolerance, f"{what}: log probabilities differ by {worst:.4f}, need {tolerance} or less")


def read_report(path):
    """The report of the run just ended; gone afterwards, so that no run is judged by another's."""
    check(pathlib.Path(path).exists(), f"no report was written to {path}")
    report = json.loads(pathlib.Path(path).read_text())
    pathlib.Path(path).unlink()
    return report
