# SPDX-License-Identifier: Apache-2.0
"""What only a GPU shows: streams, captures, memory, the kernels that are chosen, lists that were made there."""
import lacuna
import plain
import pytest
import torch
from lacuna import _cuda
from test_devices import PLANS, WINDOW, close, on_cpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def make(tensors, n=300, n_keys=None, **more):
    return tensors(n, n_keys, **{"dim": 64, "dtype": torch.bfloat16, "device": "cuda", **more})


@pytest.mark.parametrize("method", ["dense", WINDOW])
def test_opcheck(tensors, method):
    q, k, v = make(tensors, 130, grad=True)
    arguments = (q, k, v, None, None, None, method, 0, True, 0.2, 0.0, 0)
    torch.library.opcheck(torch.ops.lacuna.attention.default, arguments, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["blocks", "tokens"])
def test_opcheck_of_lists(tensors, name):
    q, k, v = make(tensors, 300, grad=True)
    lists = PLANS[name](*on_cpu((q, k))).to("cuda").lists
    arguments = (q, k, v, *lists.tensors, lists.counts, lists.pages, lists.block_q, lists.block_k, lists.cells, True, None)
    torch.library.opcheck(torch.ops.lacuna.attention_lists.default, arguments, rtol=2e-2, atol=2e-2)


def test_the_same_bits_every_time(tensors):
    q, k, v = make(tensors, 700, grad=True)
    plan = PLANS["blocks"](*on_cpu((q, k)))
    runs = []
    for _ in range(2):
        out = lacuna.attend(q, k, v, plan)
        runs.append((out.detach(), *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def capture(work):
    """A graph of work(), which has run twice on another stream before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


@pytest.mark.parametrize("n", [1, 300])
@pytest.mark.parametrize("call", ["dense", WINDOW, "plan", "tokens"])
def test_a_graph_holds_forward_and_backward(tensors, n, call):
    q, k, v = make(tensors, n, 300, grad=True)
    if call in ("plan", "tokens"):
        plan = PLANS["map" if call == "plan" else "tokens"](*on_cpu((q, k))).to("cuda")

    def work():
        out = lacuna.attend(q, k, v, plan) if call in ("plan", "tokens") else lacuna.attention(q, k, v, call)
        return (out, *torch.autograd.grad(out.float().square().sum(), (q, k, v)))

    graph, result = capture(work)
    for _ in range(2):
        with torch.no_grad():
            for x in (q, k, v):
                x.copy_(torch.randn_like(x))
        for x in result:
            x.fill_(float("nan"))
        graph.replay()
        for got, want in zip(result, work()):
            assert torch.equal(got, want)


def test_lists_of_a_captured_call_stay(tensors):
    q, k, v = make(tensors, 300)
    _cuda._kept.clear()
    with pytest.raises(RuntimeError, match="run the call once before the capture"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            lacuna.attention(q, k, v, "streamingllm:sink=3:window=33")
    torch.cuda.synchronize()
    graph, out = capture(lambda: lacuna.attention(q, k, v, "streamingllm:sink=3:window=33"))
    want = out.clone()
    graph.replay()
    want.copy_(out)
    _cuda._kept.clear()
    junk = [torch.full((1 << 16,), 1 << 20, dtype=torch.int32, device="cuda") for _ in range(64)]  # what was freed is written over
    out.fill_(0)
    graph.replay()
    assert torch.equal(out, want) and junk


def test_the_current_stream(tensors):
    """A call on a stream that waits must wait with it: else it reads what is not written yet."""
    q, k, v = make(tensors, 300)
    want = lacuna.attention(q, k, v, WINDOW)
    late = [torch.zeros_like(x) for x in (q, k, v)]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(200_000_000)
        for to, x in zip(late, (q, k, v)):
            to.copy_(x)
        out = lacuna.attention(*late, WINDOW)
    torch.cuda.synchronize()
    assert torch.equal(out, want)


def test_streams_share_the_lists_of_a_shape(tensors):
    q, k, v = make(tensors, 500)
    want = lacuna.attention(q, k, v, WINDOW)
    streams = [torch.cuda.Stream() for _ in range(4)]
    torch.cuda.synchronize()
    outs = []
    for i in range(40):
        with torch.cuda.stream(streams[i % 4]):
            outs.append(lacuna.attention(q, k, v, WINDOW))
    torch.cuda.synchronize()
    assert all(torch.equal(out, want) for out in outs)


def test_few_rows_take_the_decode_kernel(tensors, monkeypatch):
    taken = []
    ops = torch.ops.lacuna
    real = _cuda._decode
    monkeypatch.setattr(_cuda, "_decode", lambda *a: taken.append(real(*a)) or taken[-1])
    q, k, v = make(tensors, 1, 300)
    lacuna.attention(q, k, v)
    lacuna.attention(q, k, v, WINDOW)
    lacuna.attention(*make(tensors, 16, 300))
    lacuna.attention(*make(tensors, 17, 300))
    lacuna.attention(*make(tensors, 1, 300, dim=40))
    assert ops._cuda_decode and taken == [True, True, True, False, False]


def test_block_lists_made_on_the_device(tensors):
    q, k, v = make(tensors, 256, 384, grad=True)
    row_ptr = torch.tensor([[[0, 2, 4], [4, 5, 6]]], dtype=torch.int32, device="cuda")
    columns = torch.tensor([2, 0, 1, 5, 0, 4], dtype=torch.int32, device="cuda")
    plan = lacuna.Plan.from_block_lists(row_ptr, columns, n_rows=256, n_keys=384, block_k=64)
    seen = torch.zeros(1, 4, 256, 384, dtype=torch.bool)
    for list_, u, c in ((0, 0, 2), (0, 0, 0), (0, 1, 1), (0, 1, 5), (1, 0, 0), (1, 1, 4)):
        seen[:, 2 * list_:2 * list_ + 2, u * 128:u * 128 + 128, c * 64:c * 64 + 64] = True
    out = lacuna.attend(q, k, v, plan)
    twins = on_cpu((q, k, v), grad=True)
    want = plain.attention(*twins, seen & plain.visible(256, 384))[0]
    close(out, want, 4e-2)
    out.float().sum().backward()
    want.sum().backward()
    close(k.grad, twins[1].grad, 0.1)
    with pytest.raises(ValueError, match="lie on cuda:0 alone, q is on cpu"):
        lacuna.attend(*on_cpu((q, k, v)), plan)


@pytest.mark.parametrize("row_ptr, columns, words", [
    ([0, 2, 5], [0, 1, 2, 3], "row_ptr must rise"), ([0, 3, 2], [0, 1, 2, 3], "row_ptr must rise"),
    ([0, 2, 4], [0, 1, 2, 6], "a column is outside"), ([0, 2, 4], [0, -1, 2, 3], "a column is outside"),
    ([0, 2, 4], [0, 0, 2, 3], "twice")])
def test_bad_block_lists_are_named(row_ptr, columns, words):
    on = dict(dtype=torch.int32, device="cuda")
    with pytest.raises(ValueError, match=words):
        lacuna.Plan.from_block_lists(torch.tensor([[row_ptr]], **on), torch.tensor(columns, **on), n_rows=256, n_keys=384, block_k=64)
    with pytest.raises(ValueError, match="bits are outside"):
        lacuna.Plan.from_block_lists(torch.tensor([[[0, 1, 1]]], **on), torch.tensor([0], **on), n_rows=256, n_keys=384, block_k=64,
                                     bits=torch.tensor([1], **on), words=torch.zeros(1, 128, 2, **on))


def test_methods_that_look_at_keys(tensors):
    q, k, v = make(tensors, 400)
    with pytest.raises(RuntimeError, match="xattention looks at keys.*lacuna.plan"):
        lacuna.attention(q, k, v, "xattention:stride=8")
    plan = lacuna.plan(q, k, method="xattention:stride=8:block=64:mass=0.5")  # from copies
    close(lacuna.attend(q, k, v, plan), lacuna.attend(*on_cpu((q, k, v)), plan), 4e-2)


def test_plans_need_lists_before_a_graph(tensors):
    q, k, v = make(tensors, 300)
    plan = PLANS["map"](*on_cpu((q, k)))
    with pytest.raises(Exception, match=r"plan.to\('cuda"):
        torch.compile(lambda: lacuna.attend(q, k, v, plan), fullgraph=True, backend="aot_eager")()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
@pytest.mark.parametrize("n", [1, 300])
def test_another_device_than_the_current_one(tensors, n):
    """Kernels, streams and lists are of the tensors' device; the current one stays current."""
    q, k, v = make(tensors, n, 300, grad=True)
    twins = [x.detach().to("cuda:1").requires_grad_() for x in (q, k, v)]
    plan = PLANS["map"](*on_cpu((q, k)))
    for call in (lambda *x: lacuna.attention(*x), lambda *x: lacuna.attention(*x, WINDOW), lambda *x: lacuna.attend(*x, plan)):
        out, other = call(q, k, v), call(*twins)
        assert other.device.index == 1 and torch.cuda.current_device() == 0
        assert torch.equal(out.cpu(), other.cpu())
        mine, theirs = (torch.autograd.grad(o.float().square().sum(), x) for o, x in ((out, (q, k, v)), (other, twins)))
        assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(mine, theirs))
    with pytest.raises(ValueError, match=r"q is on cuda:0, k on cuda:1"):
        lacuna.attention(q, *twins[1:])


def test_memory_is_given_back(tensors):
    q, k, v = make(tensors, 2000, grad=True)

    def work():
        lacuna.attention(q, k, v, WINDOW).float().sum().backward()
        q.grad = k.grad = v.grad = None

    work()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        work()
    assert torch.cuda.memory_allocated() == before
