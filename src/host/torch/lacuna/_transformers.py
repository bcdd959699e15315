# SPDX-License-Identifier: Apache-2.0
"""Lacuna as an attention of Hugging Face's transformers: a function that attends, and one that makes the mask it reads.

What the mask function hands to the attention function:
    None                  causal, the last row aligned with the last key (of a model that is not causal: all see all)
    [1, 1, 0, n]          the same over the first n keys: a static cache is longer than what has been written
    [B, 1, rows, n] bool  over the first n keys, true = may be seen
"""
import torch

from ._attention import attention
from ._session import Session


def _tracing():
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def _mask(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=None, attention_mask=None, local_size=None,
          allow_is_causal_skip=True, **rest):
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    mask_function = mask_function or causal_mask_function
    n = kv_length
    if not _tracing():
        offset = int(q_offset)
        written = offset + q_length - kv_offset
        if allow_is_causal_skip:
            n = min(kv_length, written)
        plain = allow_is_causal_skip and written == n and (local_size is None or n <= local_size)
        padded = attention_mask is not None and not bool(attention_mask[:, kv_offset:kv_offset + n].all())
        if plain and not padded:
            return None if n == kv_length else torch.empty(1, 1, 0, n, dtype=torch.bool)
    return sdpa_mask(batch_size, q_length, n, q_offset, kv_offset, mask_function, attention_mask, local_size,
                     allow_is_causal_skip=False, **rest)


def _attention_by(method):
    announced = set()

    def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, softcap=None, s_aux=None, is_causal=None,
                position_bias=None, **rest):
        if dropout:
            raise ValueError(f"dropout: got {dropout}, need 0: lacuna has none; set attention_dropout to 0 in the model's config")
        if position_bias is not None:
            raise ValueError("position_bias: lacuna adds nothing to scores; keep this model's own attention")
        if not announced and not _tracing():
            method.announce(getattr(getattr(module, "config", None), "num_hidden_layers", 0) or 0)
            announced.add(True)
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        mask = None
        if attention_mask is not None:
            if attention_mask.dtype != torch.bool:
                raise TypeError(f"attention_mask: {attention_mask.dtype}, need bool: give the model a mask of two dimensions, or a bool "
                                "one of four")
            n = attention_mask.shape[3]
            key, value = key[:, :, :n], value[:, :, :n]
            if attention_mask.shape[2] > 0:
                mask, causal = attention_mask, None
        out = attention(query, key, value, method, causal=causal, mask=mask, scale=scaling, softcap=softcap or 0.0, sinks=s_aux,
                        layer=getattr(module, "layer_idx", None) or 0)
        return out.transpose(1, 2).contiguous(), None

    return forward


def register_transformers(method="dense", *, name="lacuna", **options):
    """Makes an attention of Hugging Face's transformers, for models on the CPU:

        session = lacuna.register_transformers("xattention:stride=8", audit="sample")
        model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="lacuna")
        model.generate(...)
        print(session.report().prefill.lost_mass)

    method, options: as for lacuna.Session. name: what attn_implementation calls it; a second call with the same name takes
    its place. Prefill and decode, dynamic and static caches, padded batches, sliding windows, soft-caps and sinks; no dropout
    and no position bias.
    Returns the Session that counts all calls. Raises ImportError without transformers, ValueError as Session does."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as e:
        raise ImportError("lacuna.register_transformers needs transformers 5 or newer; run: pip install 'transformers>=5'") from e
    session = Session(method, **options)
    AttentionInterface.register(name, _attention_by(session))
    AttentionMaskInterface.register(name, _mask)
    return session
