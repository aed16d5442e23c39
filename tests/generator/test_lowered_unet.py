"""What an accelerator is told to do in the denoising loop, in bfloat16."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks.architectures import NOISE, TINY, build
from dream_jax.generator.schedulers import make_scheduler
from dream_jax.generator.stable_diffusion import denoise


@pytest.fixture(scope="module")
def lowered() -> str:
    """The program of all steps for a TPU."""
    dtype = jnp.dtype(jnp.bfloat16)
    pipeline, shapes = build(TINY, dtype)
    scheduler, state = make_scheduler("ddim", NOISE)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes["unet"])
    states = jax.ShapeDtypeStruct((2, TINY.tokens, 64), dtype)
    noise = jax.ShapeDtypeStruct((2, *TINY.latents), jnp.float32)
    run = functools.partial(
        denoise, pipeline, scheduler=scheduler, steps=4, guidance=7.5, attention="xla"
    )
    traced = jax.jit(run).trace(params, state, states, states, noise)
    return traced.lower(lowering_platforms=("tpu",)).as_text()


def test_products_and_convolutions_take_bfloat16(lowered):
    lines = [line for line in lowered.splitlines() if re.search(r"dot_general|\.convolution", line)]
    operands = [re.findall(r"(bf16|f16|f32)>", line.rpartition(" : (")[2])[:2] for line in lines]
    assert len(lines) > 50
    assert operands == [["bf16", "bf16"]] * len(lines)


def test_all_steps_are_one_loop_without_calls_to_the_host(lowered):
    assert lowered.count("stablehlo.while") == 1
    for call in ("custom_call", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert call not in lowered
