"""The losses of the miniature's parts, against the schedulers that sample from it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.generator.schedulers import make_scheduler
from dream_jax.miniature.networks import NOISE
from dream_jax.miniature.objectives import autoencoder_objective, diffusion_objective

COUNT = 64
LATENTS = np.random.default_rng(0).normal(size=(COUNT, 4, 2, 2)).astype(np.float32)
IDS = np.arange(COUNT * 3).reshape(COUNT, 3)
EMPTY = np.int64([-1, -1, -1])


def diffusion_loss(unconditional: float = 0.0):
    """The loss of a UNet that knows the latents, and what it and the text encoder were shown."""
    scheduler, state = make_scheduler("ddim", NOISE)
    seen = {}

    def apply(variables, noisy, times, encoder_hidden_states):
        signal = jnp.sqrt(state.common.alphas_cumprod[times])[:, None, None, None]
        noise = (noisy - signal * LATENTS) / jnp.sqrt(1 - signal**2)
        seen.update(times=times, noise=noise)
        return SimpleNamespace(sample=scheduler.get_velocity(state, LATENTS, noise, times))

    def encode(ids, params):
        seen.update(ids=ids)
        return (ids,)

    objective = diffusion_objective(SimpleNamespace(apply=apply), encode, EMPTY, unconditional)
    batch = {"latents": LATENTS, "ids": IDS, "mask": np.ones(COUNT)}
    params = {"unet": {}, "text_encoder": {}}
    terms, _ = objective(params, {}, batch, jax.random.split(jax.random.key(0), COUNT))
    return terms, seen


def test_the_unet_learns_the_velocity_of_the_schedulers():
    terms, seen = diffusion_loss()
    assert np.max(terms["mse"].values) < 1e-5
    assert abs(np.mean(seen["noise"])) < 0.2 and abs(np.std(seen["noise"]) - 1) < 0.1
    assert np.min(seen["times"]) >= 0 and np.ptp(seen["times"]) > 800
    np.testing.assert_array_equal(seen["ids"], IDS)


def test_a_share_of_the_prompts_is_empty():
    _, seen = diffusion_loss(unconditional=0.5)
    empty = np.all(seen["ids"] == EMPTY, -1)
    assert 0.3 < empty.mean() < 0.7
    np.testing.assert_array_equal(seen["ids"][~empty], IDS[~empty])


def test_the_autoencoders_loss():
    mean, variance = 2.0, 0.25

    class Autoencoder:
        encode, decode = "encode", "decode"

        def apply(self, variables, values, method):
            if method == "decode":
                return SimpleNamespace(sample=jnp.full((3, 1, 4, 4), 0.5))
            parts = {"mean": mean, "var": variance, "std": variance**0.5}
            parts["logvar"] = np.log(variance)
            full = {name: jnp.full((3, 2, 2, 2), value) for name, value in parts.items()}
            return SimpleNamespace(latent_dist=SimpleNamespace(**full))

    batch = {"images": jnp.full((3, 4, 4, 1), 0.5), "mask": np.ones(3)}  # 0 in [-1, 1]
    keys = jax.random.split(jax.random.key(0), 3)
    terms, _ = autoencoder_objective(Autoencoder(), 0.1)({}, {}, batch, keys)
    kl = 8 * 0.5 * (mean**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(terms["l1"].values, 0.5)
    np.testing.assert_allclose(terms["mse"].values, 0.25)
    np.testing.assert_allclose(terms["kl"].values, kl, rtol=1e-6)
    assert [terms[name].weight for name in ("l1", "mse", "kl")] == [1.0, 0.5, 0.1]
