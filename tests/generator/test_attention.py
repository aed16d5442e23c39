"""Which form the UNet's attention takes, and that each is that of diffusers' own layer."""

import contextlib
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dream_jax.generator import attention as module
from dream_jax.generator.attention import FORMS, attention_form, best_form


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head_width", "form"),
    [
        ("cpu", "", "float32", 40, "cpu"),
        ("cpu", "", "bfloat16", 40, "cpu"),
        ("tpu", "", "bfloat16", 40, "xla"),
        ("gpu", "9.0", "float32", 40, "xla"),
        ("gpu", "9.0", "bfloat16", 40, "cudnn"),
        ("gpu", "9.0", "float16", 80, "cudnn"),
        ("gpu", "9.0", "bfloat16", 160, "cudnn"),
        ("gpu", "9.0", "bfloat16", 264, "xla"),
        ("gpu", "10.0", "bfloat16", 256, "cudnn"),
        ("gpu", "8.0", "bfloat16", 128, "cudnn"),
        ("gpu", "8.9", "bfloat16", 160, "xla"),
        ("gpu", "8.0", "bfloat16", 12, "xla"),
        ("gpu", "7.5", "float16", 40, "xla"),
        ("gpu", "gfx90a", "bfloat16", 40, "xla"),
        ("gpu", "", "bfloat16", 40, "xla"),
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


@pytest.mark.parametrize("images", [2, 3, 7])
def test_scores_of_a_few_images_at_a_time(monkeypatch, images):
    """Of seven images: the same results, and no larger array than the scores that are allowed."""
    heads, positions, others = 2, 16, 64
    rng = np.random.default_rng(0)
    shapes = [(7, count, heads, 4) for count in (positions, others, others)]
    parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = jax.nn.dot_product_attention(*parts, scale=0.7, implementation="xla")
    scores = images * heads * positions * others
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 4 * scores)
    program = jax.jit(lambda *parts: module.xla_attention(*parts, 0.7))
    np.testing.assert_allclose(program(*parts), expected, atol=1e-6)
    arrays = re.findall(r"tensor<([0-9x]+)xf32>", program.lower(*parts).as_text())
    assert max(math.prod(map(int, array.split("x"))) for array in arrays) == scores


def test_norms_and_softmax_are_float32_in_bfloat16():
    """Diffusers' own softmax is bfloat16."""
    from diffusers.models.attention_flax import FlaxAttention

    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 64, 32), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)

    def exponentials(form):
        def program(variables, x):
            with attention_form(form):
                return layer.apply(variables, x)

        lines = jax.jit(program).lower(variables, x).as_text().splitlines()
        return {line.rsplit("x", 1)[-1].strip("> ") for line in lines if "exponential" in line}

    assert exponentials("diffusers") == {"bf16"}
    assert exponentials("xla") == {"f32"}


@pytest.mark.parametrize("backend", ["tpu", "cpu"])
def test_the_backend_chooses_the_form(monkeypatch, backend):
    from diffusers.models.attention_flax import FlaxAttention

    layer = FlaxAttention(query_dim=32, heads=4, dim_head=8)
    x = jnp.zeros((2, 1024, 32))
    variables = layer.init(jax.random.key(0), x)

    def lowered(*form):
        def program(variables, x):
            with attention_form(*form):
                return layer.apply(variables, x)

        return jax.jit(program).trace(variables, x).lower(lowering_platforms=("tpu",)).as_text()

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    expected = {"tpu": "xla", "cpu": "cpu"}[backend]
    assert {form for form in FORMS if form != "cudnn" and lowered(form) == lowered()} == {expected}


@pytest.mark.parametrize("context_positions", [None, 77])
@pytest.mark.parametrize(("positions", "width"), [(4096, 40), (1024, 80), (64, 160)])
def test_cudnn_on_a_gpu(positions, width, context_positions):
    """The layers of Stable Diffusion v1.4 in bfloat16, against float32."""
    if jax.default_backend() != "gpu":
        pytest.skip("needs a GPU with cuDNN")
    from diffusers.models.attention_flax import FlaxAttention

    def layer(dtype):
        return FlaxAttention(query_dim=8 * width, heads=8, dim_head=width, dtype=dtype)

    x = jax.random.normal(jax.random.key(0), (2, positions, 8 * width))
    context = None
    if context_positions:
        context = jax.random.normal(jax.random.key(1), (2, context_positions, 768))
    variables = layer(jnp.float32).init(jax.random.key(2), x, context)
    expected = layer(jnp.float32).apply(variables, x, context)
    with attention_form("cudnn"):
        actual = layer(jnp.bfloat16).apply(variables, x, context)
    np.testing.assert_allclose(actual, expected, atol=0.03)


def vae_layer(dtype):
    from diffusers.models.vae_flax import FlaxAttentionBlock

    return FlaxAttentionBlock(channels=16, num_head_channels=8, num_groups=4, dtype=dtype), ()


def text_layer(dtype):
    from transformers import CLIPTextConfig
    from transformers.models.clip.modeling_flax_clip import FlaxCLIPAttention

    config = CLIPTextConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=9)
    mask = np.arange(9) < np.array([[9], [5]])  # of a text with padding
    return FlaxCLIPAttention(config, dtype), (mask.astype(np.int32),)


@pytest.mark.parametrize(
    ("make", "own", "shape"),
    [
        (vae_layer, module._attend_pixels, (2, 3, 5, 16)),
        (text_layer, module._attend_tokens, (2, 9, 16)),
    ],
)
def test_float32_softmax_is_that_of_the_layer(make, own, shape, monkeypatch):
    """The same function in float32; used in 16 bits alone, and not on CPUs."""
    x = 3 * jax.random.normal(jax.random.key(0), shape)
    layer, more = make(jnp.float32)
    variables = layer.init(jax.random.key(1), x, *more)
    ours = nn.apply(lambda bound, x: own(bound, x, *more), layer)(variables, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        ours,
        layer.apply(variables, x, *more),
    )

    def lowered(dtype, within):
        layer, more = make(dtype)

        def program(variables, x):
            with within():
                return layer.apply(variables, x, *more)

        given = jax.tree.map(lambda leaf: leaf.astype(dtype), (variables, x))
        traced = jax.jit(program).trace(*given)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        lines = [line for line in text.splitlines() if "exponential" in line]
        return text, {line.rsplit("x", 1)[-1].strip("> ") for line in lines}

    plain, ours = contextlib.nullcontext, module.float32_softmax
    assert lowered(jnp.bfloat16, ours)[1] == {"bf16"}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert lowered(jnp.float32, ours)[0] == lowered(jnp.float32, plain)[0]
    assert lowered(jnp.bfloat16, plain)[1] == {"bf16"}
    assert lowered(jnp.bfloat16, ours)[1] == {"f32"}
