"""What diffusers' and transformers' Flax modules, which change no more, ask of JAX and Flax.

A JAX that takes away what they use is found here by the name, before anything fails to compile.
"""

import ast
import functools
import inspect
import sys
import types
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Long gone from JAX. Used by diffusers' `to_bf16`, `to_fp16` and `to_fp32` alone, in whose place
# the project reads and converts weights itself (dream_jax/generator/weights.py).
DONE_WITHOUT = {"jax.tree_flatten", "jax.tree_map"}


def modules() -> list[types.ModuleType]:
    """The Flax modules that come with what the project imports."""
    import diffusers
    import transformers

    import dream_jax.generator.schedulers
    import dream_jax.miniature.networks  # noqa: F401

    assert diffusers.FlaxStableDiffusionPipeline and transformers.FlaxCLIPModel
    packages = ("diffusers", "transformers")
    names = [name for name in sys.modules if name.split(".")[0] in packages and "flax" in name]
    return [module for name in names if isinstance(module := sys.modules[name], types.ModuleType)]


def names(module: types.ModuleType) -> Iterator[str]:
    """Yields the names of JAX's and Flax's that a module asks for: jax.numpy.where."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        path: list[str] = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        root = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
        if path and isinstance(root, types.ModuleType):
            name = root.__name__
            if name.split(".")[0] in ("jax", "flax"):
                yield f"{name}.{'.'.join(path)}"


def is_there(name: str) -> bool:
    """Returns whether JAX or Flax has a name, and warns of none of its parts."""
    first, *path = name.split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            functools.reduce(getattr, path, sys.modules[first])
        except (AttributeError, Warning):
            return False
    return True


def test_jax_and_flax_have_all_that_the_frozen_modules_use():
    used = {name for module in modules() for name in names(module)}
    assert {"jax.numpy.einsum", "flax.linen.Conv", "jax.image.resize"} <= used
    assert {name for name in used if not is_there(name)} - DONE_WITHOUT == set()


warnings_are_errors = pytest.mark.filterwarnings(
    "error::DeprecationWarning", "error::PendingDeprecationWarning", "error::FutureWarning"
)


@warnings_are_errors
def test_text_encoder_and_autoencoder_are_traced_without_a_warning(toy):
    from dream_jax.generator import stable_diffusion as parts

    pipeline, params = toy.pipeline, toy.params
    ids = toy.prompt_ids([len(toy.table)])[None]
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 1))

    def encode(params, images):
        made = pipeline.vae.apply({"params": params}, images, method=pipeline.vae.encode)
        return made.latent_dist.mean

    def decode(params, latents):
        return parts.decode_latents(pipeline, params, latents, keys, at_once=1, image_shape=None)

    encoder = functools.partial(parts.encode_prompts, pipeline)
    states = jax.eval_shape(encoder, params["text_encoder"], ids, toy.table[:1])
    assert states.shape == (*ids.shape, toy.table.shape[1])
    latents = jnp.zeros((1, *toy.latent_shape))
    images, right = jax.eval_shape(decode, params["vae"], latents)
    assert images.shape == (1, 16, 16, pipeline.vae.config.out_channels) and right.dtype == bool
    pixels = jnp.zeros((1, pipeline.vae.config.in_channels, 16, 16))
    assert np.prod(jax.eval_shape(encode, params["vae"], pixels).shape) == latents.size
    jax.eval_shape(pipeline.vae.init_weights, jax.random.key(0))


@warnings_are_errors
@pytest.mark.parametrize("scheduler", ["plms", "ddim", "dpmsolver++"])
def test_the_denoising_is_traced_without_a_warning(toy, scheduler):
    from dream_jax.generator.schedulers import make_scheduler
    from dream_jax.generator.stable_diffusion import denoise

    stepper, state = make_scheduler(scheduler, toy.noise)
    states = jnp.zeros((1, len(toy.prompt_ids([])), toy.table.shape[1]))
    latents = jnp.zeros((1, *toy.latent_shape))

    def program(params, states, noise):
        settings = {"scheduler": stepper, "steps": 4, "guidance": 2.0}
        return denoise(toy.pipeline, params, state, states, states, noise, **settings)

    made = jax.eval_shape(program, toy.params["unet"], states, latents)
    assert made.shape == latents.shape and made.dtype == np.float32
