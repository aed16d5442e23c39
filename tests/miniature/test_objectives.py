"""The losses of the miniature's parts, against the schedulers that sample from it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.generator.schedulers import make_scheduler
from dream_jax.miniature.networks import NOISE
from dream_jax.miniature.objectives import (
    autoencoder_objective,
    diffusion_objective,
    feature_maps,
    perceptual_distance,
)
from dream_jax.models.resnet import Architecture, BasicBlock, ResNet, init_model

COUNT = 64
LATENTS = np.random.default_rng(0).normal(size=(COUNT, 4, 2, 2)).astype(np.float32)
NAMES, CAPTIONS = 4, 3
LABELS = np.arange(COUNT) % NAMES
IDS = np.arange(NAMES * CAPTIONS * 3).reshape(NAMES, CAPTIONS, 3)
EMPTY = np.int64([-1, -1, -1])


def diffusion_loss(unconditional: float = 0.0, captions: int = 1, mirrored: bool = False):
    """The loss of a UNet that knows the latents, and what it and the text encoder were shown."""
    scheduler, state = make_scheduler("ddim", NOISE)
    seen = {}

    def apply(variables, noisy, times, encoder_hidden_states):
        signal = jnp.sqrt(state.common.alphas_cumprod[times])[:, None, None, None]
        deviation = jnp.sqrt(1 - signal**2)
        # A mirrored version is the negative of the other, so that the nearer one tells which.
        noise = jnp.stack([(noisy - sign * signal * LATENTS) / deviation for sign in (1, -1)])
        second = mirrored & (jnp.sum(noise[1] ** 2, (1, 2, 3)) < jnp.sum(noise[0] ** 2, (1, 2, 3)))
        noise = jnp.where(second[:, None, None, None], noise[1], noise[0])
        latents = jnp.where(second[:, None, None, None], -1, 1) * LATENTS
        seen.update(times=times, noise=noise, second=second)
        return SimpleNamespace(sample=scheduler.get_velocity(state, latents, noise, times))

    def encode(ids, params):
        seen.update(ids=ids)
        return (ids,)

    table = IDS[:, :captions]
    objective = diffusion_objective(
        SimpleNamespace(apply=apply), encode, table, EMPTY, unconditional
    )
    versions = [LATENTS, -LATENTS] if mirrored else [LATENTS]
    batch = {"latents": np.stack(versions, 1), "labels": LABELS, "mask": np.ones(COUNT)}
    params = {"unet": {}, "text_encoder": {}}
    terms, _ = objective(params, {}, batch, jax.random.split(jax.random.key(0), COUNT))
    return terms, seen


def test_the_unet_learns_the_velocity_of_the_schedulers():
    terms, seen = diffusion_loss()
    assert np.max(terms["mse"].values) < 1e-5
    assert abs(np.mean(seen["noise"])) < 0.2 and abs(np.std(seen["noise"]) - 1) < 0.1
    assert np.min(seen["times"]) >= 0 and np.ptp(seen["times"]) > 800
    np.testing.assert_array_equal(seen["ids"], IDS[LABELS, 0])


def test_a_share_of_the_prompts_is_empty():
    _, seen = diffusion_loss(unconditional=0.5)
    empty = np.all(seen["ids"] == EMPTY, -1)
    assert 0.3 < empty.mean() < 0.7
    np.testing.assert_array_equal(seen["ids"][~empty], IDS[LABELS, 0][~empty])


def test_captions_and_mirror_images_are_drawn():
    terms, seen = diffusion_loss(captions=CAPTIONS, mirrored=True)
    low = np.asarray(seen["times"]) < 500  # where the noise leaves no doubt of the version
    assert np.max(terms["mse"].values[low]) < 1e-4
    assert 0.25 < np.mean(seen["second"][low]) < 0.75
    shown = [
        np.flatnonzero(np.all(IDS[label] == ids, -1))
        for label, ids in zip(LABELS, seen["ids"], strict=True)
    ]
    assert all(len(found) == 1 for found in shown)
    assert set(np.concatenate(shown)) == set(range(CAPTIONS))


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

    grey = jnp.full((3, 4, 4, 1), 51, jnp.uint8)  # 0.2 in [0, 1], -0.6 in [-1, 1]
    batch = {"images": grey, "mask": np.ones(3)}
    keys = jax.random.split(jax.random.key(0), 3)
    terms, _ = autoencoder_objective(Autoencoder(), 0.1)({}, {}, batch, keys)
    kl = 8 * 0.5 * (mean**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(terms["l1"].values, 1.1, rtol=1e-6)
    np.testing.assert_allclose(terms["mse"].values, 1.21, rtol=1e-6)
    np.testing.assert_allclose(terms["kl"].values, kl, rtol=1e-6)
    assert [terms[name].weight for name in ("l1", "mse", "kl")] == [1.0, 0.5, 0.1]

    def maps(images):
        return [images, 1 - 2 * images]

    objective = autoencoder_objective(Autoencoder(), 0.1, maps, 0.7)
    terms, _ = objective({}, {}, batch, keys)
    assert terms["perceptual"].weight == 0.7
    # Of one channel, unit vectors are signs: 0.2 and 0.75 agree, 0.6 and -0.5 do not.
    np.testing.assert_allclose(terms["perceptual"].values, (0 + 4) / 2, rtol=1e-6)


def test_perceptual_distance_is_that_of_its_blocks():
    network = ResNet(Architecture(BasicBlock, (1, 1)), 4, "small", 3)
    images, others = np.random.default_rng(0).random((2, 3, 8, 8, 3)).astype(np.float32)
    variables = init_model(network, jax.random.key(0), (8, 8, 3))
    maps = feature_maps(network, variables)
    first, second = maps(images), maps(others)
    assert [block.shape for block in first] == [(3, 8, 8, 4), (3, 4, 4, 8)]
    pooled = network.apply(variables, images)[1]
    np.testing.assert_allclose(first[-1].mean((1, 2)), pooled, rtol=1e-5)

    def direction(block):
        return block / np.maximum(np.linalg.norm(block, axis=-1, keepdims=True), 1e-12)

    squares = [
        np.sum((direction(a) - direction(b)) ** 2, -1).mean((1, 2))
        for a, b in zip(first, second, strict=True)
    ]
    found = perceptual_distance(maps, images, others)
    np.testing.assert_allclose(found, np.mean(squares, 0), rtol=1e-5)
    assert np.max(perceptual_distance(maps, images, images)) == 0
