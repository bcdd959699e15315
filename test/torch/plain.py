# SPDX-License-Identifier: Apache-2.0
"""Attention as the textbook has it, in float64: what the library is held against."""
import math

import torch


def visible(n, n_keys, causal=True):
    """bool [n, n_keys]; causal: the last row is aligned with the last key."""
    everything = torch.ones(n, n_keys, dtype=torch.bool)
    return everything.tril(n_keys - n) if causal else everything


def attention(q, k, v, seen, *, scale=None, softcap=0.0, sinks=None):
    """(out, lse) where `seen` (bool, broadcast to [B, Hq, Nq, Nkv]) lets a row see a key."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.double(), k.double().repeat_interleave(group, 1), v.double().repeat_interleave(group, 1)
    scores = q @ k.transpose(2, 3) * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[None, :, None, None].expand(*scores.shape[:3], 1)], 3)
    lse = scores.logsumexp(3)
    weights = torch.where(lse[..., None].isinf(), 0.0, (scores - lse[..., None]).exp())
    return weights[..., :k.shape[2]] @ v, lse


def window(n, n_keys, sink, size):
    """What streamingllm:sink=SINK:window=SIZE keeps."""
    own, key = torch.arange(n)[:, None] + n_keys - n, torch.arange(n_keys)[None]
    return visible(n, n_keys) & ((key < sink) | (own - key < size))
