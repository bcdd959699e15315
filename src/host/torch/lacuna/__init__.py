# SPDX-License-Identifier: Apache-2.0
"""Lacuna: sparse attention for PyTorch that says what it left out.

    out = lacuna.attention(q, k, v, method="xattention:stride=8", causal=True)    # [B, H, N, D]
"""
from ._attention import attention
from ._library import LIBRARY
from ._plan import Plan, attend, plan
from ._report import Contract, Loss, Phase, Promise, Recall, Report
from ._session import Session
from ._transformers import register_transformers

__version__ = LIBRARY.lacuna_torch_version().decode()
__all__ = [
    "Contract", "Loss", "Phase", "Plan", "Promise", "Recall", "Report", "Session", "attend", "attention", "get_num_threads", "plan",
    "register_transformers", "set_num_threads",
]


def get_num_threads():
    """Threads that all of Lacuna's calls share."""
    return LIBRARY.lacuna_torch_threads()


def set_num_threads(n):
    """Sets how many threads all of Lacuna's calls share: 1..1024. At import: as many as torch has."""
    if not 1 <= n <= 1024:
        raise ValueError(f"threads: got {n}, need 1..1024")
    LIBRARY.lacuna_torch_set_threads(n)
