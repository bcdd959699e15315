# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where things are, how tools and a server are run.

    LACUNA_PLUGIN     liblacuna-ggml.so
    LACUNA_LLAMA_BIN  folder of llama.cpp's tools
    LACUNA_MODELS     folder of models (tools/get_models.py); models/ of this tree when not set

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


def environment(lacuna):
    """The variables of a run: None is stock llama.cpp, else the text of LACUNA."""
    env = {k: v for k, v in os.environ.items() if k not in ("LACUNA", "GGML_BACKEND_PATH")}
    if lacuna is not None:
        env["LACUNA"] = lacuna
        env["GGML_BACKEND_PATH"] = str(plugin())
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
    """(mean KL divergence, share of same top token) against the base."""
    text = run([tool("llama-perplexity"), "-m", gguf, "-c", str(context), "--chunks", str(chunks), "-t", THREADS,
                "-fa", "on", "--kl-divergence-base", str(base), "--kl-divergence", *extra], lacuna)
    mean = re.search(r"Mean\s+KLD:\s+(-?[\d.eE+-]+)", text)
    same = re.search(r"Same top p:\s+([\d.]+)", text)
    check(mean and same, f"llama-perplexity printed no divergence:\n{text[-2000:]}")
    return float(mean[1]), float(same[1]) / 100


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

    def tail(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]

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
    return json.loads(pathlib.Path(path).read_text())
