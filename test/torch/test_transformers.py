# SPDX-License-Identifier: Apache-2.0
"""Small random models of Hugging Face's transformers: Lacuna's attention gives what their own gives."""
import lacuna
import pytest
import torch
from test_refusals import refuses

transformers = pytest.importorskip("transformers")

SMALL = dict(vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=1024, pad_token_id=0, eos_token_id=None, bos_token_id=1)


def llama(**more):
    torch.manual_seed(3)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, initializer_range=0.2, **more)).eval()


def mistral():
    torch.manual_seed(3)
    return transformers.MistralForCausalLM(transformers.MistralConfig(**SMALL, initializer_range=0.2, sliding_window=40)).eval()


def gemma():
    torch.manual_seed(3)
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(
        **SMALL, head_dim=16, initializer_range=0.2, sliding_window=40, attn_logit_softcapping=5.0, query_pre_attn_scalar=16)).eval()


def gpt_oss():
    torch.manual_seed(3)
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(
        **SMALL, head_dim=16, initializer_range=0.2, sliding_window=40, num_local_experts=2, num_experts_per_tok=1)).eval()


@pytest.fixture
def session():
    return lacuna.register_transformers("dense", precision="high")


def tokens(n=100, batch=2):
    return torch.randint(2, 100, (batch, n))


def both(model, run, own="eager"):
    """run(model) by Lacuna and by the model's own attention."""
    results = []
    for name in ("lacuna", own):
        model.set_attn_implementation(name)
        with torch.no_grad():
            results.append(run(model))
    return results


def test_masks_are_made_only_where_they_say_something():
    """None: causal, keys end where rows do. [1, 1, 0, n]: the same over the first n keys of a static cache."""
    from lacuna._transformers import _mask
    seen = torch.ones(2, 40, dtype=torch.long)
    assert _mask(2, 40, 40, attention_mask=seen) is None
    assert _mask(2, 10, 40, q_offset=30, attention_mask=seen) is None  # a prompt's second chunk
    assert _mask(2, 1, 40, q_offset=39) is None
    assert _mask(2, 40, 64, attention_mask=seen).shape == (1, 1, 0, 40)
    assert _mask(2, 1, 64, q_offset=torch.tensor(39)).shape == (1, 1, 0, 40)
    seen[1, :5] = 0
    padded = _mask(2, 10, 64, q_offset=30, attention_mask=seen)
    assert padded.shape == (2, 1, 10, 40) and not padded[1, :, :, :5].any() and padded[0, 0].equal(torch.ones(10, 40).tril(30).bool())
    assert _mask(2, 40, 40, local_size=16).dtype == torch.bool


@pytest.mark.parametrize("make", [llama, mistral, gemma, gpt_oss])
def test_prefill(session, make):
    ids = tokens()
    torch.testing.assert_close(*both(make(), lambda m: m(ids).logits), atol=2e-3, rtol=1e-3)
    assert session.report().prefill.calls == 2 * 2  # layers x sequences


@pytest.mark.parametrize("make", [llama, mistral, gemma, gpt_oss])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(session, make, cache):
    ids = tokens(60)
    run = lambda m: m.generate(ids, max_new_tokens=12, do_sample=False, cache_implementation=cache, disable_compile=True)  # noqa: E731
    mine, theirs = both(make(), run)
    assert mine.shape == (2, 72) and torch.equal(mine, theirs)
    assert session.report().decode.calls == 11 * 2 * 2


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_padded(session, cache):
    ids = tokens(60)
    ids[1, :25] = 0
    seen = (ids != 0).long()
    run = lambda m: m.generate(ids, attention_mask=seen, max_new_tokens=12, do_sample=False, cache_implementation=cache,  # noqa: E731
                               disable_compile=True)
    mine, theirs = both(llama(), run)
    assert torch.equal(mine, theirs)


def test_a_prompt_in_chunks(session):
    ids = tokens(90)

    def run(model):
        cache, logits = transformers.DynamicCache(config=model.config), []
        for part in ids.split(40, 1):
            logits.append(model(part, past_key_values=cache).logits)
        return torch.cat(logits, 1)

    torch.testing.assert_close(*both(llama(), run), atol=2e-3, rtol=1e-3)


def test_compiled_with_a_static_cache(session):
    model, ids = llama(), tokens(30, 1)
    model.set_attn_implementation("lacuna")
    cache = transformers.StaticCache(config=model.config, max_cache_len=64)
    with torch.no_grad():
        want = model(torch.cat([ids, ids[:, :1]], 1)).logits[:, -1]
        model(ids, past_key_values=cache)
        step = torch.compile(model, fullgraph=True, backend="aot_eager")
        got = step(ids[:, :1], past_key_values=cache, position_ids=torch.tensor([[30]])).logits[:, -1]
    torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)


def test_training(session):
    model, ids = llama(), tokens(50)
    gradients = []
    for name in ("lacuna", "eager"):
        model.set_attn_implementation(name)
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-2)


def test_a_method_at_work_and_its_audit():
    session = lacuna.register_transformers("streamingllm:sink=4:window=64", name="lacuna-window", audit="full", precision="high")
    model, ids = llama(), tokens(500, 1)
    model.set_attn_implementation("lacuna-window")
    with torch.no_grad():
        model.generate(ids, max_new_tokens=3, do_sample=False)
    report = session.report()
    assert report.prefill.density < 0.3 and report.decode.density < 0.2
    assert 0 < report.prefill.lost_mass.mean < 1 and report.prefill.lost_mass.rows > 0


def test_what_is_not_there_is_named(session):
    model, ids = llama(attention_dropout=0.1), tokens(10)
    model.set_attn_implementation("lacuna")
    with refuses(ValueError, "dropout: got 0.1", "attention_dropout"):
        model.train()(ids)
    with refuses(TypeError, "attention_mask: torch.float32, need bool"):
        model.eval()(ids, attention_mask=torch.zeros(2, 1, 10, 10))
