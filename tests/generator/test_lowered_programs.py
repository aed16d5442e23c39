"""What an accelerator is told to do in decoding, in bfloat16: read from the lowered programs."""

import functools
import re
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from benchmarks.architectures import NOISE, TINY, build
from dream_jax.generator import stable_diffusion as module
from dream_jax.generator.schedulers import make_scheduler

PROGRAMS = ("denoise", "decode_latents", "encode_prompts")
BFLOAT16 = jnp.dtype(jnp.bfloat16)
# Of the TINY networks.
ATTENTION_LAYERS = {"denoise": 12, "decode_latents": 1, "encode_prompts": 1}
SHAPE, PLACE = (
    re.compile(r"tensor<([0-9x]*?)x?((?:bf16|f16|f32|i\w+|ui\d+))>"),
    re.compile(r"#loc\d*"),
)


@pytest.fixture(scope="module")
def lowered() -> Callable[[str], str]:
    """`lowered(name)`: the program of that name for a TPU, with the places that it comes from."""
    pipeline, shapes = build(TINY, BFLOAT16)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, BFLOAT16), shapes)
    scheduler, state = make_scheduler("ddim", NOISE)
    states = jax.ShapeDtypeStruct((2, TINY.tokens, 64), BFLOAT16)
    latents = jax.ShapeDtypeStruct((2, *TINY.latents), jnp.float32)
    keys = jax.ShapeDtypeStruct((2, 2), jnp.uint32)
    ids = jax.ShapeDtypeStruct((2, TINY.tokens), jnp.int32)
    embeddings = jax.ShapeDtypeStruct((2, 64), jnp.float32)
    own = {"scheduler": scheduler, "steps": 4, "guidance": 7.5, "attention": "xla"}
    settings = {"denoise": own, "decode_latents": {"at_once": 2, "image_shape": None}}
    given = {
        "denoise": (params["unet"], state, states, states, latents),
        "decode_latents": (params["vae"], latents, keys),
        "encode_prompts": (params["text_encoder"], ids, embeddings),
    }

    @functools.cache
    def lower(name: str) -> str:
        run = functools.partial(getattr(module, name), pipeline, **settings.get(name, {}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "tpu")
            traced = jax.jit(run).trace(*given[name])
        return traced.lower(lowering_platforms=("tpu",)).as_text(debug_info=True)

    return lower


def operations(text: str, name: str) -> list[tuple[list[tuple[tuple[int, ...], str]], str]]:
    """Returns the (shape, type) of operands and result of some operations, and where each is from.

    The place is the path of the layers, such as "FlaxUNet2DConditionModel/mid_block/...".
    """
    places = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", text, re.M))
    found = []
    for line in text.splitlines():
        if re.search(rf"stablehlo\.{name}\b", line):
            kinds, _, place = line.rpartition(" : ")[2].rpartition(" loc(")
            shapes = [
                (tuple(map(int, filter(None, dims.split("x")))), kind)
                for dims, kind in SHAPE.findall(kinds)
            ]
            found.append((shapes, places.get(place.rstrip(")"), place)))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_and_convolutions_take_bfloat16(lowered, name):
    found = operations(lowered(name), "(?:dot_general|convolution)")
    assert len(found) > {"denoise": 50, "decode_latents": 10, "encode_prompts": 5}[name]
    assert {kind for shapes, _ in found for _, kind in shapes[:2]} == {"bf16"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_norms_and_softmax_are_float32(lowered, name):
    """Nothing else becomes float32 but the program's result: the UNet's output, and pixels."""
    converted = [
        (shapes, place)
        for shapes, place in operations(lowered(name), "convert")
        if (shapes[0][1], shapes[-1][1]) == ("bf16", "f32") and "norm" not in place
    ]
    results = {"denoise": [(4, 4, 8, 8)], "decode_latents": [(2, 3, 16, 16)]}
    assert [shapes[0][0] for shapes, _ in converted] == results.get(name, [])
    # Of scores, whose sizes are positions; those of SiLU and GELU are of features.
    scores = [
        shapes[0][1]
        for shapes, place in operations(lowered(name), "exponential")
        if "attention" in place.rpartition("/")[0] or "attn" in place
    ]
    assert scores == ["f32"] * ATTENTION_LAYERS[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_activations_are_transposed_only_behind_attention(lowered, name):
    """Once in a layer, in XLA's form of it; and where the UNet and the VAE take and give images."""
    moved: Counter[str] = Counter()
    for shapes, place in operations(lowered(name), "transpose"):
        before, after = ([size for size in shape if size > 1] for shape, _ in shapes)
        if before != after:  # not only dimensions of size 1
            moved["attention" if "attn" in place or "attentions" in place else "images"] += 1
    images = {"denoise": 2, "decode_latents": 3, "encode_prompts": 0}
    assert moved["attention"] == ATTENTION_LAYERS[name]
    assert moved["images"] == images[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_called_on_the_host_and_steps_and_parts_are_one_loop(lowered, name):
    text = lowered(name)
    assert text.count("stablehlo.while") == {"encode_prompts": 0}.get(name, 1)
    for call in ("custom_call", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert call not in text
