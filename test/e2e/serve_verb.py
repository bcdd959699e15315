# SPDX-License-Identifier: Apache-2.0
"""lacuna serve starts the real llama-server with a method, and it answers."""
from support import Server, check, model, plugin, text_of

server = Server(model("smollm2-135m-instruct.gguf"), None, "-c", "2048", "-np", "1")
lacuna = plugin().with_name("lacuna")
server.command[:1] = [str(lacuna), "serve", "--method", "streamingllm:sink=4:window=64", "--audit", "full"]
with server:
    steps, answer = server.complete(text_of("demo.txt").read_text()[:3000], 4)
    check(len(steps) == 4 and answer["content"], f"no completion: {answer}")
log = server.tail()
check("lacuna: streamingllm:sink=4:window=64" in log, f"the plug-in did not report at the end:\n{log}")
check("density prefill 0." in log, f"nothing was left out:\n{log}")
