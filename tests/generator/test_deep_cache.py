"""Deep features of the UNet that are reused from step to step."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dream_jax.errors import UserError
from dream_jax.generator.deep_cache import check_branch
from dream_jax.generator.denoising import denoise
from dream_jax.generator.interface import NO_CACHE, DeepCache
from dream_jax.generator.schedulers import make_scheduler

# The module of the toy's UNet whose output enters the up layer of its second skip connection.
BRANCH, BELOW = 1, ("up_blocks_0", "upsamplers_0")


def by_hand(unet, params, sample, times, text, given=None):
    """The stock UNet's output and what `BELOW` returns, or is made to return: `given`."""
    seen = []

    def intercept(call, args, kwargs, context):
        made = call(*args, **kwargs)
        if context.module.path != BELOW or context.method_name != "__call__":
            return made
        seen.append(made if given is None else given)
        return seen[0]

    with nn.intercept_methods(intercept):
        output = unet.apply({"params": params}, sample, times, text).sample
    return output, seen[0]


@pytest.fixture(scope="module")
def inputs(toy):
    """(latents, hidden states, those of no text)"""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2, *toy.latent_shape)).astype(np.float32)
    states = rng.normal(size=(3, 12, 16)).astype(np.float32)
    return latents, states[:2], states[2:]


@pytest.fixture(scope="module")
def hand(toy):
    return jax.jit(functools.partial(by_hand, toy.pipeline.unet))


@pytest.mark.parametrize(("scheduler", "interval"), [("plms", 3), ("ddim", 2), ("dpmsolver++", 4)])
def test_features_are_reused_until_the_next_nth_step(toy, inputs, hand, scheduler, interval):
    """Against a loop over the stock UNet that keeps the features by hand."""
    params = toy.params["unet"]
    latents, states, empty = inputs
    scheduler, fresh = make_scheduler(scheduler, toy.noise)
    options = {"scheduler": scheduler, "steps": 6, "guidance": 4.0}
    cached = functools.partial(denoise, toy.pipeline, cache=DeepCache(interval, BRANCH), **options)
    found = jax.jit(cached)(params, fresh, states, empty, latents)

    step = jax.jit(lambda state, *parts: scheduler.step(state, *parts).to_tuple())
    context = jnp.concatenate([empty, empty, states])
    state = scheduler.set_timesteps(fresh, num_inference_steps=6, shape=latents.shape)
    for index, time in enumerate(np.asarray(state.timesteps).astype(np.int32)):
        kept = None if index % interval == 0 else kept  # noqa: F821 the first index is 0
        times = jnp.full(4, time)
        both = jnp.concatenate([latents, latents])
        output, kept = hand(params, both, times, context, kept)
        without, with_text = jnp.split(output, 2)
        guided = without + 4 * (with_text - without)
        latents, state = step(state, guided, jnp.int32(time), latents)
    np.testing.assert_allclose(found, latents, atol=2e-3)  # of up to 9


def equations(jaxpr, kind):
    """All equations of a kind in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == kind:
            yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, kind)


def works(jaxpr):
    """(convolutions, matrix products) of a program."""
    kinds = Counter(
        equation.primitive.name
        for kind in ("conv_general_dilated", "dot_general")
        for equation in equations(jaxpr, kind)
    )
    return kinds["conv_general_dilated"], kinds["dot_general"]


def program(toy, inputs, cache):
    latents, states, empty = inputs
    scheduler, fresh = make_scheduler("ddim", toy.noise)
    run = functools.partial(
        denoise, toy.pipeline, scheduler=scheduler, steps=6, guidance=4.0, cache=cache
    )
    return jax.make_jaxpr(run)(toy.params["unet"], fresh, states, empty, latents).jaxpr


def test_nothing_deep_is_computed_where_features_are_reused(toy, inputs):
    (choice,) = equations(program(toy, inputs, DeepCache(3, 0)), "cond")
    reusing, whole = (works(branch.jaxpr) for branch in choice.params["branches"])
    # conv_in, a ResNet block (two convolutions, a shortcut, a projection of time) and conv_out;
    # and the two layers that embed the time.
    assert reusing == (5, 3)
    plain = program(toy, inputs, NO_CACHE)
    assert whole == works(plain) and whole[0] > 20
    assert not list(equations(plain, "cond"))


def test_interval_of_one_is_the_plain_program(toy, inputs):
    programs = [program(toy, inputs, cache) for cache in (NO_CACHE, DeepCache(1, 3))]
    assert str(programs[0]) == str(programs[1])


def test_branch_that_the_unet_lacks_is_refused(toy):
    check_branch(3, toy.pipeline.unet.config)
    with pytest.raises(UserError) as caught:
        check_branch(4, toy.pipeline.unet.config)
    assert str(caught.value) == (
        "config.decoding.cache_branch is 4; the generator's UNet has 4 skip connections, so it "
        "must be at least 0 and at most 3"
    )
