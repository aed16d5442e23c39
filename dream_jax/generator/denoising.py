"""The loop from noise to latents, one program for all steps."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt32

from dream_jax.errors import UserError
from dream_jax.generator.attention import AUTO, attention_form
from dream_jax.generator.deep_cache import Features, unet_pass
from dream_jax.generator.interface import NO_CACHE, DeepCache
from dream_jax.rules import whole

_STEP = 1 << 16  # of the numbers that are folded into an image's key: its steps begin here


def denoise(
    pipeline: Any,
    params: Mapping[str, Any],
    scheduler_state: Any,
    states: Float[Array, "n positions width"],
    unconditional: Float[Array, "1 positions width"],
    noise: Float[Array, "n channels height width"],
    keys: UInt32[Array, "n 2"] | None = None,
    *,
    scheduler: Any,
    steps: int,
    guidance: float,
    attention: str = AUTO,
    cache: DeepCache = NO_CACHE,
) -> Float[Array, "n channels height width"]:
    """Denoises latents by classifier-free guidance, at each of the scheduler's timesteps.

    PLMS has one timestep more than `steps`, as its first step is taken twice. PyTorch's pipeline
    and the published code take them all; the stock Flax pipeline leaves out the last. Guidance of 1
    is the prompt's branch alone, and so is a UNet that was trained to be told its guidance.

    Args:
      params: of the UNet.
      scheduler_state: see `make_scheduler`.
      states: hidden states of the prompts.
      unconditional: hidden states of the empty prompt.
      noise: float32, see `draw_noise`.
      keys: data of the images' random keys, for a scheduler that draws new noise at each step.
      attention: see `attention_form`.
      cache: which of the UNet's features are reused from step to step.

    Returns:
      Latents in the UNet's scale, float32.

    References:
      Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, equation 6, whose w + 1 is
      `guidance`.
    """
    told = _projection(params) is not None
    passes = 1 if told or guidance == 1 else 2
    context = states
    if passes == 2:
        context = jnp.concatenate([jnp.broadcast_to(unconditional, states.shape), states])
    state = scheduler.set_timesteps(scheduler_state, num_inference_steps=steps, shape=noise.shape)
    evaluate = functools.partial(_evaluate, pipeline.unet, params, context, guidance, attention)

    def predict(
        state: Any, latents: jax.Array, timestep: jax.Array, index: jax.Array, deep: Any
    ) -> tuple[jax.Array, Any]:
        sample = jnp.concatenate([latents] * passes)
        sample = scheduler.scale_model_input(state, sample, timestep)
        if cache.interval == 1:
            output = evaluate(sample, timestep).sample
        else:
            output, deep = _cached(evaluate, sample, timestep, index, deep, cache)
        output = output.astype(jnp.float32)
        if passes == 1:
            return output, deep
        without, with_text = jnp.split(output, 2)
        return without + guidance * (with_text - without), deep

    def step(index: jax.Array, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        latents, state, deep = carry
        timestep = state.timesteps.astype(jnp.int32)[index]
        guided, deep = predict(state, latents, timestep, index, deep)
        more = {"noise": _noise_of(keys, index, latents)} if draws_noise(scheduler) else {}
        latents, state = scheduler.step(state, guided, timestep, latents, **more).to_tuple()
        return latents, state, deep

    start = noise * state.init_noise_sigma
    deep = _no_features(evaluate, start, passes, cache)
    return jax.lax.fori_loop(0, len(state.timesteps), step, (start, state, deep))[0]


def draws_noise(scheduler: Any) -> bool:
    """Returns whether a scheduler adds new noise at each step; diffusers' Flax ones never do."""
    return getattr(scheduler, "draws", False)


def _noise_of(
    keys: UInt32[Array, "n 2"] | None, index: Int[Array, ""], latents: Float[Array, "n ..."]
) -> Float[Array, "n ..."]:
    """Returns the new noise of a step, each image's from its own key."""
    assert keys is not None, "this scheduler draws noise at each step"

    def draw(key: UInt32[Array, "2"]) -> jax.Array:
        own = jax.random.fold_in(jax.random.wrap_key_data(key), _STEP + index)
        return jax.random.normal(own, latents.shape[1:])

    return jax.vmap(draw)(keys)


def with_guidance(shapes: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the shapes of a UNet's parameters with those by which it is told its guidance.

    diffusers' Flax UNet lacks them. Latent consistency models have them.

    Args:
      shapes: of the other parameters.
      config: of the UNet; `time_cond_proj_dim` is the number of features, None for none.

    Raises:
      UserError: that number cannot be one.
    """
    size, rule = config.get("time_cond_proj_dim"), whole(4, 2**16)
    if size is None:
        return shapes
    if not rule.holds(size):
        raise UserError(
            f"generator.path: the UNet's time_cond_proj_dim is {size!r}; it must be {rule.allowed}"
        )
    kernel = jax.ShapeDtypeStruct((size, config["block_out_channels"][0]), jnp.float32)
    own = {**shapes["time_embedding"], "cond_proj": {"kernel": kernel}}
    return {**shapes, "time_embedding": own}


def _projection(params: Mapping[str, Any]) -> Float[Array, "told width"] | None:
    """Returns the weights that a UNet takes its guidance by, or None if it takes none."""
    return params["time_embedding"].get("cond_proj", {}).get("kernel")


def _evaluate(
    unet: Any,
    params: Mapping[str, Any],
    context: Float[Array, "n positions width"],
    guidance: float,
    attention: str,
    sample: Float[Array, "n channels height width"],
    timestep: Int[Array, ""],
    **options: Any,
) -> Any:
    """Applies the UNet; `options` are those of its `apply`, such as `method`."""
    times = jnp.broadcast_to(timestep, len(sample))
    with attention_form(attention), _told(guidance, _projection(params)):
        return unet.apply({"params": params}, sample, times, context, **options)


@contextlib.contextmanager
def _told(guidance: float, projection: Float[Array, "told width"] | None) -> Iterator[None]:
    """Adds the projected features of a guidance to those of time, where there is a projection."""
    if projection is None:
        yield
        return
    added = _guidance_features(guidance, len(projection)) @ projection

    def tell(call: Any, args: Any, kwargs: Any, layer: Any) -> Any:
        if (layer.module.name, layer.method_name) == ("time_embedding", "__call__"):
            args = (args[0] + added,)
        return call(*args, **kwargs)

    with nn.intercept_methods(tell):
        yield


def _guidance_features(guidance: float, size: int) -> Float[np.ndarray, "1 size"]:
    """Returns sines and cosines of a guidance scale, as latent consistency models are told it.

    References:
      Luo et al., "Latent Consistency Models", 2023, section 4.2 and appendix: features as those of
      time (Vaswani et al., 2017), of 1000 · w, where `guidance` is w + 1.
    """
    half = size // 2
    rates = np.exp(-np.log(10_000) / (half - 1) * np.arange(half))
    angles = 1000 * (guidance - 1) * rates
    features = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(size % 2)])
    return features[None].astype(np.float32)


def _cached(
    evaluate: Callable[..., Any],
    sample: Float[Array, "n channels height width"],
    timestep: Int[Array, ""],
    index: Int[Array, ""],
    deep: Features,
    cache: DeepCache,
) -> tuple[Float[Array, "n channels height width"], Features]:
    """Returns the UNet's output and its deep features: new ones at every n-th step."""
    run = functools.partial(evaluate, sample, timestep, method=unet_pass, branch=cache.branch)
    whole, shallow = lambda _: run(deep=None), lambda deep: run(deep=deep)
    return jax.lax.cond(index % cache.interval == 0, whole, shallow, deep)


def _no_features(
    evaluate: Callable[..., Any],
    latents: Float[Array, "n channels height width"],
    passes: int,
    cache: DeepCache,
) -> Features | None:
    """Returns zeros in place of the features that the first step computes; None without a cache."""
    if cache.interval == 1:
        return None
    run = functools.partial(evaluate, method=unet_pass, deep=None, branch=cache.branch)
    sample = jnp.concatenate([latents] * passes)
    _, shape = jax.eval_shape(run, sample, jnp.int32(0))
    return jnp.zeros(shape.shape, shape.dtype)
