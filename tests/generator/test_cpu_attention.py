"""The CPU's attention against the plain formula and diffusers' own layer."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.generator import cpu_attention as module
from dream_jax.generator.cpu_attention import attention, cpu_attention


def softmax_attention(q, k, v, scale):
    """In float64 NumPy."""
    scores = scale * np.einsum("hid,hjd->hij", q, k, dtype=np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,hjd->hid", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "width"),
    [(2, 9, 9, 8), (4, 1024, 1024, 8), (8, 1024, 77, 16), (2, 4096, 1024, 8), (3, 997, 400, 5)],
)
def test_equals_the_formula(heads, queries, keys, width):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(heads, n, width)) for n in (queries, keys, keys)]
    parts = [part.astype(np.float32) for part in parts]
    expected = softmax_attention(*parts, 0.7)
    np.testing.assert_allclose(jax.jit(attention)(*parts, 0.7), expected, atol=2e-5)


@pytest.mark.parametrize("context_width", [None, 24])
def test_diffusers_layer_is_reached_and_unchanged(monkeypatch, context_width):
    from diffusers.models.attention_flax import FlaxAttention

    calls = []
    original = attention
    monkeypatch.setattr(module, "attention", lambda *a: calls.append(1) or original(*a))
    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8)
    x = jax.random.normal(jax.random.key(0), (2, 1024, 32))
    context = None
    if context_width:
        context = jax.random.normal(jax.random.key(1), (2, 77, context_width))
    variables = layer.init(jax.random.key(2), x, context)
    expected = layer.apply(variables, x, context)
    with cpu_attention():
        actual = layer.apply(variables, x, context)
    assert len(calls) == 1
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_other_backends_get_the_program_of_plain_diffusers(monkeypatch):
    from diffusers.models.attention_flax import FlaxAttention

    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8)
    x = jnp.zeros((2, 1024, 32))
    variables = layer.init(jax.random.key(0), x)

    def lowered(context):
        def program(variables, x):
            with context():
                return layer.apply(variables, x)

        return jax.jit(program).trace(variables, x).lower(lowering_platforms=("tpu",)).as_text()

    plain = lowered(contextlib.nullcontext)
    assert lowered(cpu_attention) != plain
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert lowered(cpu_attention) == plain
