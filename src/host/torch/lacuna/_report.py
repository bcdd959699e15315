# SPDX-License-Identifier: Apache-2.0
"""What a session has counted and audited, as objects. docs/account.md explains every figure."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Loss:
    """Of audited rows with at least 256 visible keys: with 95 % confidence the mean over all rows is at most `upper`."""

    mean: float
    upper: float
    p95: float
    max: float
    rows: int


@dataclasses.dataclass(frozen=True)
class Recall:
    """Share of a row's highest-scoring keys that was kept; with 95 % confidence that of all rows is at least `lower`."""

    mean: float
    lower: float
    rows: int


@dataclasses.dataclass(frozen=True)
class Phase:
    """Calls of several rows (prefill), or of one (decode).

    density: share of the allowed query-key pairs that was attended. lost_mass: attention probability that fell on pairs left
    out. output_error: relative L2 error of a row's output. seconds: by verb (estimate, budget, attend, correct, account)."""

    calls: int
    density: float
    kv_bytes: float
    seconds: dict[str, float]
    lost_mass: Loss
    output_error: Loss
    top_recall: Recall


@dataclasses.dataclass(frozen=True)
class Promise:
    """What became of max_loss or max_error in one phase. state: "held", "open" (too few audited rows to show it) or
    "broken"."""

    state: str
    mean: float
    upper: float
    heads: int
    dense_heads: int
    widened_layers: int


@dataclasses.dataclass(frozen=True)
class Contract:
    """limit: the share that was asked for. of: "lost_mass" or "output_error"."""

    limit: float
    of: str
    prefill: Promise
    decode: Promise


@dataclasses.dataclass(frozen=True)
class Report:
    """method: its spec, every parameter written out. kernel: the one that ran last for many rows. note: why the method left
    nothing out, if it did not. contract: None where none was asked for. json: all of it, and more, as the library has it."""

    method: str
    kernel: str
    machine: str
    note: str
    prefill: Phase
    decode: Phase
    contract: Contract | None
    json: dict = dataclasses.field(repr=False)


def _fill(kind, found, **rest):
    names = [f.name for f in dataclasses.fields(kind) if f.name not in rest]
    return kind(**{name: found[name] for name in names}, **rest)


def _phase(found):
    return _fill(Phase, found, seconds=found["attention_s"], lost_mass=_fill(Loss, found["lost_mass"]),
                 output_error=_fill(Loss, found["output_error"]), top_recall=_fill(Recall, found["top_recall"]))


def of_json(found):
    """A Report of what the library says."""
    contract = found["contract"]
    if contract is not None:
        contract = _fill(Contract, contract, **{phase: _fill(Promise, contract[phase]) for phase in ("prefill", "decode")})
    return _fill(Report, found, prefill=_phase(found["prefill"]), decode=_phase(found["decode"]), contract=contract, json=found)
