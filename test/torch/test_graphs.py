# SPDX-License-Identifier: Apache-2.0
"""What torch asks of an operator: opcheck, compile without graph breaks, export, checkpoints, threads."""
import os
import threading

import lacuna
import pytest
import torch

METHODS = ["dense", "streamingllm:sink=4:window=50", "xattention:stride=8:block=64:mass=0.5"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("extras", [False, True])
def test_opcheck(tensors, method, extras):
    q, k, v = tensors(130, grad=True)
    mask = torch.ones(1, 130, 130, dtype=torch.bool).tril() if extras else None
    sinks = torch.randn(4, requires_grad=True) if extras else None
    arguments = (q, k, v, mask, sinks, None, f"precision=high windowed=sparse {method}", 0, not extras, 0.2, 0.0, 0)
    torch.library.opcheck(torch.ops.lacuna.attention.default, arguments, rtol=1e-3, atol=1e-3)
    detached = [x.detach() for x in (q, k, v)]
    with torch.no_grad():
        out, lse, number = torch.ops.lacuna.attention(*arguments)
    backward = (torch.randn_like(out), torch.randn_like(lse), *detached, out, lse, number, mask, None if sinks is None else sinks.detach())
    torch.library.opcheck(torch.ops.lacuna.attention_backward.default, (*backward, *arguments[5:]))


def block(q, k, v, method):
    return lacuna.attention(torch.sin(q), k * 2, v, method, causal=True).relu()


@pytest.mark.parametrize("method", METHODS)
def test_compile_without_graph_breaks(tensors, method):
    q, k, v = tensors(150, grad=True)
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    out, want = compiled(q, k, v, method), block(*twins, method)
    torch.testing.assert_close(out, want)
    out.square().sum().backward()
    want.square().sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_compile_with_dynamic_lengths(tensors):
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (64, 97, 130):
        q, k, v = tensors(n)
        torch.testing.assert_close(compiled(q, k, v, "dense"), block(q, k, v, "dense"))


def test_compile_with_a_session(tensors):
    session = lacuna.Session("streamingllm:sink=4:window=50", precision="high")
    q, k, v = tensors(150)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v, session), block(q, k, v, session))


def test_inductor(tensors):
    q, k, v = tensors(80)
    torch.testing.assert_close(torch.compile(block, fullgraph=True)(q, k, v, "dense"), block(q, k, v, "dense"))


def test_export_carries_the_method(tensors):
    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return lacuna.attention(q, k, v, "streamingllm:sink=4:window=50")

    q, k, v = tensors(150)
    exported = torch.export.export(Layer(), (q, k, v))
    assert "streamingllm:sink=4:window=50" in str(exported.graph)
    torch.testing.assert_close(exported.module()(q, k, v), Layer()(q, k, v))


def test_checkpoint(tensors):
    q, k, v = tensors(150, grad=True)
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    torch.utils.checkpoint.checkpoint(block, q, k, v, METHODS[1], use_reentrant=False).sum().backward()
    block(*twins, METHODS[1]).sum().backward()
    assert torch.equal(q.grad, twins[0].grad)


def test_two_threads_share_a_method(tensors):
    q, k, v = tensors(200)
    want, wrong = lacuna.attention(q, k, v, METHODS[1]), []

    def work():
        for _ in range(20):
            wrong.append(not torch.equal(lacuna.attention(q, k, v, METHODS[1]), want))

    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(wrong) == 60 and not any(wrong)


def test_a_forked_child_has_threads_of_its_own(tensors):
    q, k, v = tensors(400)
    before = lacuna.get_num_threads()
    lacuna.set_num_threads(3)
    try:
        want = lacuna.attention(q, k, v, METHODS[1])
        child = os.fork()
        if child == 0:  # says by its exit code what it found; torch's own threads are not asked
            os._exit(0 if bytes(lacuna.attention(q, k, v, METHODS[1]).numpy()) == bytes(want.numpy()) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        lacuna.set_num_threads(before)
