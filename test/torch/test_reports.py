# SPDX-License-Identifier: Apache-2.0
"""What sessions count and audit, as objects."""
import lacuna
import plain
import pytest
import torch
from test_attention import WINDOW
from test_refusals import refuses


def test_a_full_audit_is_the_formula(tensors):
    """Lost mass is the exact probability of what the window leaves out, over rows that see 256 keys or more."""
    q, k, v = tensors(500, batch=1)
    session = lacuna.Session(WINDOW, audit="full", precision="high")
    out, lse = lacuna.attention(q, k, v, session, return_lse=True)
    exact, all_mass = plain.attention(q, k, v, plain.visible(500, 500))
    lost = 1 - (lse.double() - all_mass).exp()[:, :, 255:]
    error = ((out - exact).norm(dim=3) / exact.norm(dim=3)).clamp(max=1)[:, :, 255:]
    report = session.report()
    assert isinstance(report, lacuna.Report) and report.contract is None
    assert report.method.startswith("streamingllm:") and report.kernel
    prefill = report.prefill
    assert (prefill.calls, report.decode.calls) == (1, 0)
    assert prefill.lost_mass.rows == 4 * 245
    assert prefill.lost_mass.mean == pytest.approx(lost.mean().item(), abs=1e-4)
    assert prefill.lost_mass.max == pytest.approx(lost.max().item(), abs=1e-3)
    assert prefill.output_error.mean == pytest.approx(error.mean().item(), abs=1e-3)
    kept = plain.window(500, 500, 4, 50).sum().item() / plain.visible(500, 500).sum().item()
    assert prefill.density == pytest.approx(kept, abs=1e-6)
    assert prefill.top_recall == lacuna.Recall(**report.json["prefill"]["top_recall"])
    assert set(prefill.seconds) == {"estimate", "budget", "attend", "correct", "account"}
    session.reset_report()
    assert session.report().prefill.calls == 0


def test_a_plans_calls_are_audited_too(tensors):
    q, k, v = tensors(500, batch=1)
    session = lacuna.Session(audit="full", precision="high")
    lacuna.attend(q, k, v, lacuna.plan(q, k, v, WINDOW), session=session)
    by_method = lacuna.Session(WINDOW, audit="full", precision="high")
    lacuna.attention(q, k, v, by_method)
    assert session.report().prefill.lost_mass == by_method.report().prefill.lost_mass
    assert session.report().prefill.lost_mass.mean > 0.1


def test_decode_is_counted_apart(tensors):
    session = lacuna.Session(WINDOW)
    for _ in range(3):
        lacuna.attention(*tensors(1, 400), session)
    assert session.report().decode.calls == 3 * 2  # sequences are calls of their own
    assert session.report().decode.density == pytest.approx(54 / 400)


def test_a_contract(tensors):
    session = lacuna.Session(WINDOW, max_loss=0.01)
    for _ in range(4):
        lacuna.attention(*tensors(600, batch=1), session)
    contract = session.report().contract
    assert (contract.limit, contract.of) == (0.01, "lost_mass")
    assert contract.prefill.heads == 4 and contract.prefill.dense_heads == 4  # of noise every key matters
    assert contract.prefill.state in ("held", "open", "broken")


def test_sessions_close_with_their_objects(tensors):
    from lacuna import _sessions
    session = lacuna.Session(WINDOW)
    key = (session.options, session.number)
    assert key in _sessions._open
    del session
    assert key not in _sessions._open


def test_shared_sessions_are_few(tensors):
    from lacuna import _sessions
    q, k, v = tensors(8)
    for seed in range(_sessions.MOST_SHARED + 10):
        lacuna.attention(q, k, v, f"dense seed={seed}")
    assert sum(number == _sessions.SHARED for _, number in _sessions._open) <= _sessions.MOST_SHARED


def test_announce():
    lacuna.Session().announce(32, 8000)
    with refuses(ValueError, "got -1 layers"):
        lacuna.Session().announce(-1)
