"""Which form the UNet's attention takes, and that each is that of diffusers' own layer."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.generator.attention import attention_form, best_form


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head_width", "form"),
    [
        ("cpu", "", "float32", 40, "cpu"),
        ("cpu", "", "bfloat16", 40, "cpu"),
        ("tpu", "", "bfloat16", 40, "diffusers"),
        ("gpu", "9.0", "float32", 40, "diffusers"),
        ("gpu", "9.0", "bfloat16", 40, "cudnn"),
        ("gpu", "9.0", "float16", 80, "cudnn"),
        ("gpu", "9.0", "bfloat16", 160, "cudnn"),
        ("gpu", "9.0", "bfloat16", 264, "diffusers"),
        ("gpu", "10.0", "bfloat16", 256, "cudnn"),
        ("gpu", "8.0", "bfloat16", 128, "cudnn"),
        ("gpu", "8.9", "bfloat16", 160, "diffusers"),
        ("gpu", "8.0", "bfloat16", 12, "diffusers"),
        ("gpu", "7.5", "float16", 40, "diffusers"),
        ("gpu", "gfx90a", "bfloat16", 40, "diffusers"),
        ("gpu", "", "bfloat16", 40, "diffusers"),
    ],
)
def test_best_form(platform, capability, dtype, head_width, form):
    assert best_form(platform, capability, dtype, head_width) == form


@pytest.mark.parametrize("context_width", [None, 24])
@pytest.mark.parametrize("form", ["auto", "cpu", "xla"])
def test_diffusers_layer_is_reached_and_unchanged(form, context_width):
    from diffusers.models.attention_flax import FlaxAttention

    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8)
    x = jax.random.normal(jax.random.key(0), (2, 1024, 32))
    context = None
    if context_width:
        context = jax.random.normal(jax.random.key(1), (2, 77, context_width))
    variables = layer.init(jax.random.key(2), x, context)

    def programs(form):
        def program(variables, x, context):
            with attention_form(form):
                return layer.apply(variables, x, context)

        return jax.jit(program).lower(variables, x, context)

    theirs, ours = programs("diffusers"), programs(form)
    assert ours.as_text() != theirs.as_text()
    given = variables, x, context
    np.testing.assert_allclose(ours.compile()(*given), theirs.compile()(*given), atol=1e-5)


@pytest.mark.parametrize(("backend", "same"), [("tpu", True), ("cpu", False)])
def test_tpus_get_the_program_of_plain_diffusers(monkeypatch, backend, same):
    from diffusers.models.attention_flax import FlaxAttention

    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8)
    x = jnp.zeros((2, 1024, 32))
    variables = layer.init(jax.random.key(0), x)

    def lowered(context):
        def program(variables, x):
            with context():
                return layer.apply(variables, x)

        return jax.jit(program).trace(variables, x).lower(lowering_platforms=("tpu",)).as_text()

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert (lowered(attention_form) == lowered(contextlib.nullcontext)) == same
