"""Embeddings without the k-NN choice, and around the core, against NumPy's definition of each."""

import dataclasses

import jax
import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.keys import stage_key
from dream_jax.results import Features
from dream_jax.sampling.boundary import boundary_set, core_set
from dream_jax.sampling.classes import sample_classes
from dream_jax.sampling.plain import BETWEEN, sample_plain
from dream_jax.sampling.rounds import sample_embeddings
from dream_jax.sampling.settings import PlainSampler, SamplerSettings

NOISY = ("random", "mean", "token")
KEY = jax.random.key(3)
LABEL, SCALE, COUNT, D = 2, 0.15, 4000, 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def known() -> Features:
    """Four classes of unequal size around anchors of unequal length."""
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(4, D)) * [[1], [3], [0.4], [2]]
    labels = np.repeat([0, 1, 2, 3], [30, 41, 36, 5])
    features = anchors[labels] + 0.5 * rng.normal(size=(len(labels), D))
    return Features(features.astype(np.float32), labels, anchors.astype(np.float32))


def sampled(way: str, scale: float = SCALE, count: int = COUNT, key=KEY) -> np.ndarray:
    given = known()
    own = given.features[given.labels == LABEL]
    return sample_plain(own, LABEL, given.anchors, key, PlainSampler(way, count, scale))


def starts(way: str) -> np.ndarray:
    """The directions that the noise of a way is around."""
    given = known()
    own = unit(given.features[given.labels == LABEL].astype(float))
    centres = {"mean": unit(own.mean(0)), "token": unit(given.anchors[LABEL].astype(float))}
    return own if way == "random" else centres[way][None]


@pytest.mark.parametrize("way", NOISY)
def test_noise_is_normal_around_what_the_way_names(way):
    """u = (b + s n) / |...|: tan of the angle between b and u is s |rest of n| / (1 + s n·b)."""
    made, around = sampled(way), starts(way)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    still = sampled(way, scale=1e-7)
    nearest = (still @ around.T).argmax(1)
    np.testing.assert_allclose(still, around[nearest], atol=1e-6)
    counts = np.bincount(nearest, minlength=len(around))
    assert counts.min() > 0.6 * COUNT / len(around)  # each feature is drawn about equally often
    noise = np.random.default_rng(1).normal(size=made.shape)
    expected = (unit(around[nearest] + SCALE * noise) * around[nearest]).sum(1)
    found = (made * around[nearest]).sum(1)
    quantiles = np.linspace(0.02, 0.98, 9)
    np.testing.assert_allclose(
        np.quantile(found, quantiles), np.quantile(expected, quantiles), atol=0.02
    )
    residue = made - found[:, None] * around[nearest]
    assert np.abs(residue.mean(0)).max() < 0.02  # in no direction more than in its opposite


def test_between_two_classes():
    """Each lies on the chord to another anchor, at a share within the bounds."""
    made, centres = sampled("interpolation", scale=99.0), unit(known().anchors.astype(float))
    seen = []
    for vector in made[:300].astype(float):
        fits = []
        for other in {0, 1, 3}:
            pair = np.stack([centres[LABEL], centres[other]], axis=1)
            weights, *_ = np.linalg.lstsq(pair, vector, rcond=None)
            fits.append((np.linalg.norm(pair @ weights - vector), other, weights))
        error, other, weights = min(fits, key=lambda fit: fit[0])
        assert error < 1e-5
        seen.append((other, weights[1] / weights.sum()))
    others, shares = map(np.array, zip(*seen, strict=True))
    assert np.bincount(others, minlength=4)[[0, 1, 3]].min() > 60 and LABEL not in others
    assert BETWEEN[0] <= shares.min() + 1e-5 and shares.max() <= BETWEEN[1] + 1e-5
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.4, 0.5, 0.6], atol=0.04)


@pytest.mark.parametrize("way", ["prompts", "text"])
def test_texts_have_the_anchor_alone(way):
    given = known()
    np.testing.assert_allclose(sampled(way), unit(given.anchors[LABEL])[None], atol=1e-6)


@pytest.mark.parametrize("way", [*NOISY, "interpolation", "prompts"])
def test_all_classes_have_the_length_of_their_anchors(way, tmp_path):
    """And each the embeddings of its own key, of which the first stay where more are drawn."""
    given, settings = known(), PlainSampler(way, 6, SCALE)
    made = sample_classes(7, settings, given, tmp_path)
    assert made.shape == (4, 1 if way == "prompts" else 6, D)
    lengths = np.linalg.norm(given.anchors, axis=1)[:, None]
    np.testing.assert_allclose(np.linalg.norm(made, axis=2), lengths + 0 * made[..., 0], rtol=1e-5)
    alone = sampled(way, count=9, key=stage_key(7, "sample", LABEL))[: made.shape[1]]
    np.testing.assert_allclose(made[LABEL], alone * lengths[LABEL], atol=1e-6)


def test_noise_beyond_float32_is_refused():
    with pytest.raises(UserError, match=r"sampling\.scale is 1e\+20; its candidates leave the"):
        sampled("token", scale=1e20)


def test_the_core_is_where_distances_are_smallest():
    given = unit(np.random.default_rng(2).normal(2 * np.eye(6)[0], size=(40, 6)))
    given = given.astype(np.float32)
    squared = ((given[:, None] - given[None]) ** 2).sum(-1)
    order = np.argsort(np.sort(squared, axis=1)[:, 4])  # each counts itself first: k = 5
    np.testing.assert_array_equal(np.asarray(core_set(given, 5, 8)), order[:8])
    np.testing.assert_array_equal(np.asarray(boundary_set(given, 5, 8)), order[:-9:-1])
    own = SamplerSettings(
        k=5, boundary=8, per_round=4, candidates=30, scale=1e-5, rounds=12, noise="shared"
    )
    for core, expected in ((True, order[:8]), (False, order[-8:])):
        settings = dataclasses.replace(own, core=core)
        points = sample_embeddings(given, KEY, settings, pad_to=50)
        assert set((points @ given.T).argmax(1)) == set(expected)
