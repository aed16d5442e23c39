"""Rounds with own noise: the choice by definition in float64, the bounds, and what is drawn."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from dream_jax.sampling import own_noise
from dream_jax.sampling.own_noise import all_noise, describe, own_round
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.vectors import unit_on_host as unit


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cone(n, d, spread):
    """Unit features around a common direction."""
    return unit(normal(0, 1, d) + spread * normal(1, n, d))


def choice(k, scale, keep, length, largest=True):
    return SamplerSettings(k=k, scale=scale, keep=keep, candidates=length, largest=largest)


def by_definition(features, drawn, noise, settings):
    """All candidates (p, L, d) and their d_k (p, L), in float64."""
    candidates = unit(drawn[:, None].astype(np.float64) + settings.scale * noise)
    similarity = candidates @ features.T.astype(np.float64)
    return candidates, np.sort(2 - 2 * similarity, axis=-1)[..., settings.k - 1]


@functools.partial(jax.jit, static_argnames="settings")
def points_and_noise(features, count, drawn, key, settings):
    known = describe(features, count)
    return own_round(known, drawn, key, settings), all_noise(known, drawn, key, settings)


@pytest.mark.parametrize(
    ("features", "p", "settings"),
    [
        (unit(normal(0, 20, 8)), 5, choice(7, 0.3, 2, 80)),
        (cone(200, 64, 0.05), 8, choice(60, 0.01, 3, 700, largest=False)),
        (cone(100, 192, 0.03), 4, choice(1, 1.0, 1, 300)),
        (unit(normal(0, 1, 5)), 1, choice(1, 0.3, 2, 200)),  # the feature is the mean
        (np.repeat(unit(normal(0, 1, 5)), 30, axis=0), 4, choice(7, 0.3, 2, 200, largest=False)),
        (unit(normal(0, 50, 2)), 7, choice(30, 0.3, 3, 300)),
        (np.array([[1.0], [-1.0]], np.float32), 2, choice(2, 0.9, 2, 50)),  # μ is zero
        (unit(normal(0, 33, 16)), 3, choice(12, 0.3, 100, 100)),  # all are kept
    ],
)
def test_round_by_definition(features, p, settings):
    """The kept points are their feature's candidates with the best d_k, in order, but for ties."""
    drawn, key = features[:p], jax.random.key(3)
    points, noise = points_and_noise(features, len(features), drawn, key, settings)
    candidates, distance = by_definition(features, drawn, noise, settings)
    assert points.shape == (p, settings.keep, features.shape[1])
    best = np.sort(-distance if settings.largest else distance, axis=1)[:, : settings.keep]
    for row, kept in enumerate(np.asarray(points)):
        gap = np.abs(kept[:, None] - candidates[row]).max(axis=-1)
        assert gap.min(axis=1).max() < 1e-5
        found = distance[row, gap.argmin(axis=1)]
        np.testing.assert_allclose(found, np.abs(best[row]), atol=5e-6)


def test_bounds_hold_and_rule_out_most_candidates():
    features, key, drawn = cone(300, 128, 0.05), jax.random.key(0), slice(10)
    settings = choice(180, 0.05, 2, 1500)

    @jax.jit
    def potential_and_noise(features):
        known = describe(features, len(features))
        directions = own_noise._directions(known.mean, features[drawn])
        pilots = own_noise._pilots(key, 10, features.shape[1], settings)
        potential = [
            own_noise._potential(known, directions, pilots, choice(180, 0.05, 2, 1500, largest))
            for largest in (True, False)
        ]
        return potential, all_noise(known, features[drawn], key, settings)

    potential, noise = potential_and_noise(features)
    _, distance = by_definition(features, features[drawn], noise, settings)
    for bound, score in zip(potential, (distance / 2 - 1, 1 - distance / 2), strict=True):
        assert (bound >= score).all()
        possible = bound >= np.sort(score, axis=1)[:, -2:-1]
        assert possible.mean() < 0.1


def test_neither_padding_nor_the_number_measured_at_once_changes_a_round(monkeypatch):
    features, key, settings = cone(40, 6, 0.3), jax.random.key(0), choice(15, 0.2, 2, 90)
    expected, _ = points_and_noise(features, 40, features[:5], key, settings)
    monkeypatch.setattr(own_noise, "AT_ONCE", 7)
    monkeypatch.setattr(own_noise, "FIRST", 3)
    padded = np.concatenate([features, 9 * normal(3, 12, 6)])
    found, _ = points_and_noise(padded, 40, features[:5], key, settings)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 400, 40), (2, 300, 3), (1, 900, 2)])
def test_noise_is_normal_and_independent(shape):
    """Each component, each squared length, and the products of components, at 1 in 10,000."""
    p, length, d = shape
    features = cone(30, d, 0.5)
    known = jax.jit(describe)(features, len(features))
    settings = choice(5, 0.1, 1, length)
    draw = jax.jit(lambda key: all_noise(known, features[:p], key, settings))
    noise = np.asarray(draw(jax.random.key(1)), np.float64)
    # Along the directions that the round singles out, and along others.
    directions = np.asarray(own_noise._directions(known.mean, features[:p]))
    for row in range(p):
        basis = np.linalg.qr(np.concatenate([directions[row], normal(5, d, d)]).T)[0]
        along = noise[row] @ basis
        for component in along.T:
            assert stats.kstest(component, "norm").pvalue > 1e-4 / d
        assert stats.kstest((noise[row] ** 2).sum(-1), stats.chi2(d).cdf).pvalue > 1e-4
        covariance = along.T @ along / length
        assert np.abs(covariance - np.eye(d)).max() < 6 / np.sqrt(length / 2)
        squares = np.corrcoef((along**2).T)
        assert np.abs(squares - np.eye(d)).max() < 6 / np.sqrt(length / 2)
    if p > 1:  # of two features
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 5 / np.sqrt(length * d)


def test_distances_and_directions_are_distributed_as_those_of_plain_noise():
    """Kept candidates of many rounds against NumPy's own draws, chosen in float64."""
    features = cone(60, 24, 0.2)
    settings, rounds = choice(30, 0.1, 1, 60), 500
    drawn = features[:1]

    @jax.jit
    def points_of(key):
        known = describe(features, len(features))
        keys = jax.random.split(key, rounds)
        return jax.lax.map(lambda key: own_round(known, drawn, key, settings)[0, 0], keys)

    points = np.asarray(points_of(jax.random.key(0)), np.float64)
    noise = normal(7, rounds, 60, 24)
    candidates, distance = by_definition(features, drawn, noise.reshape(1, -1, 24), settings)
    best = distance.reshape(rounds, 60).argmax(axis=1)
    expected = candidates.reshape(rounds, 60, 24)[np.arange(rounds), best]

    def kth(vectors):
        return np.sort(2 - 2 * vectors @ features.T.astype(np.float64))[:, settings.k - 1]

    assert stats.ks_2samp(kth(points), kth(expected)).pvalue > 1e-4
    for direction in unit(normal(9, 12, 24)):
        assert stats.ks_2samp(points @ direction, expected @ direction).pvalue > 1e-5


@pytest.mark.parametrize("n", [50, 400])
def test_class_is_described_by_its_eigenvalues(n):
    features = cone(n, 60, 0.2)
    known = jax.jit(describe)(np.concatenate([features, normal(2, 9, 60)]), n)
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred)
    np.testing.assert_allclose(known.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(known.trace, eigenvalues.sum(), rtol=1e-5)
    np.testing.assert_allclose(known.squares, (eigenvalues**2).sum(), rtol=1e-5)
    assert eigenvalues.max() <= known.largest <= 2 * eigenvalues.max()


def test_memory_is_not_that_of_all_similarities():
    n, p, length, d = 5000, 40, 1500, 8

    def one(features, key):
        return own_round(describe(features, n), features[:p], key, choice(300, 0.1, 2, length))

    shapes = jax.ShapeDtypeStruct((n, d), np.float32), jax.random.key(0)
    memory = jax.jit(one).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    # A few arrays of what is measured at once, and a few of numbers for each candidate.
    assert memory < 4 * 4 * own_noise.AT_ONCE * n + 4 * 60 * p * length < 4 * n * p * length / 10
