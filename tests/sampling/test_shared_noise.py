"""The boundary set and the rounds against sorting every candidate, and the golden files."""

import functools
from pathlib import Path

import jax
import jax.extend
import numpy as np
import pytest

from dream_jax.knn import kth_sq_distance
from dream_jax.sampling import shared_noise
from dream_jax.sampling.boundary import boundary_set
from dream_jax.sampling.published import published_round
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.sampling.shared_noise import shared_round
from dream_jax.vectors import unit_on_host as unit

ROOT = Path(__file__).parents[2]
# As one program: alone, each of the operations is compiled.
compiled_round = jax.jit(shared_round, static_argnames="settings")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def all_candidates(features, drawn, noise, k, scale):
    """Candidates (p, L, d) and their d_k (p, L) by definition, in float64."""
    candidates = unit(drawn[:, None].astype(np.float64) + scale * noise)
    similarity = candidates @ features.T.astype(np.float64)
    distance = np.sort(2 - 2 * similarity, axis=-1)[..., k - 1]
    return candidates, distance


def choice(k, scale, keep, largest=True):
    """What a round needs of the settings."""
    return SamplerSettings(k=k, scale=scale, keep=keep, largest=largest)


def assert_same_up_to_ties(points, features, drawn, noise, settings):
    """The kept points are candidates of their drawn feature, with the best d_k in order.

    Of two candidates with the same d_k but for rounding, either may be kept: only d_k is compared.
    """
    candidates, distance = all_candidates(features, drawn, noise, settings.k, settings.scale)
    assert points.shape == (len(drawn), settings.keep, features.shape[1])
    best = np.sort(-distance if settings.largest else distance, axis=1)[:, : settings.keep]
    for row, kept in enumerate(np.asarray(points)):
        gap = np.abs(kept[:, None] - candidates[row]).max(axis=-1)
        chosen = gap.argmin(axis=1)
        assert gap.min(axis=1).max() < 1e-5
        np.testing.assert_allclose(distance[row, chosen], np.abs(best[row]), atol=5e-6)


@pytest.fixture(params=["outlier_sampler", "inlier_sampler"])
def golden(request):
    file = dict(np.load(ROOT / "tests" / "golden" / f"{request.param}.npz"))
    file["features"] = unit(file["id_features"])
    file["largest"] = not file["keep_smallest"]
    return file


def test_golden_boundary(golden):
    k, m = int(golden["k"]), int(golden["select"])
    # The inliers' file has the features with the smallest d_k; the set has the largest.
    largest = np.asarray(boundary_set(golden["features"], k, m if golden["largest"] else 500 - m))
    chosen = largest if golden["largest"] else np.setdiff1d(np.arange(500), largest)
    by_entry = [
        np.sort(vectors[:, 0]) for vectors in (golden["features"][chosen], golden["boundary"])
    ]
    np.testing.assert_allclose(*by_entry, atol=1e-7)


def test_golden_round_is_the_best_by_definition(golden):
    arguments = (
        golden["features"],
        golden["boundary"],
        golden["noise"],
        choice(
            int(golden["k"]),
            float(golden["noise_scale"]),
            int(golden["points_per_boundary"]),
            bool(golden["largest"]),
        ),
    )
    assert_same_up_to_ties(compiled_round(*arguments), *arguments)


def test_golden_points_are_those_of_the_published_round(golden):
    """All of them, for no two distances there are tied, group by group in the file's order."""
    features, noise, boundary_features = (golden[n] for n in ("features", "noise", "boundary"))
    k, scale = int(golden["k"]), float(golden["noise_scale"])
    keep, largest = int(golden["points_per_boundary"]), bool(golden["largest"])
    settings = choice(k, scale, keep, largest)
    # Which candidate a golden point is tells in which random order the features were drawn.
    candidates = unit(boundary_features[:, None] + scale * noise)
    p, length, d = candidates.shape
    similarity = golden["points"] @ candidates.reshape(-1, d).T
    assert similarity.max(axis=1).min() > 1 - 1e-6
    source, number = np.divmod(similarity.argmax(axis=1), length)
    if largest:
        order = list(dict.fromkeys(source))
        assert sorted(order) == list(range(p))
        round_of = published_round(features, boundary_features[order], noise, settings)
        np.testing.assert_allclose(round_of.reshape(-1, d), golden["points"], atol=2e-6)
    else:
        # p = L and one point per feature, all around the feature drawn first. Column i of the
        # misread table belongs to noise vector i and its rows to the features, so the file tells
        # the order of those only in part: the features that are nearest to some noise vector.
        assert (length, keep, len(set(source))) == (p, 1, 1)
        distance = kth_sq_distance(candidates.reshape(-1, d), features, k).reshape(p, length)
        order = np.full(p, -1)
        order[number] = np.asarray(distance).argmin(axis=0)
        assert order[0] in (-1, source[0])
        order[0] = source[0]
        rest = iter(np.setdiff1d(np.arange(p), order))
        order = [place if place >= 0 else next(rest) for place in order]
        round_of = published_round(features, boundary_features[order], noise, settings)
        np.testing.assert_allclose(round_of.reshape(-1, d), golden["points"], atol=2e-6)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("n", "d", "p", "length", "k", "keep"),
    [
        (20, 8, 5, 40, 7, 2),
        (20, 8, 5, 40, 1, 2),
        (20, 8, 5, 40, 20, 2),
        (1, 3, 1, 1, 1, 1),
        (50, 2, 7, 300, 30, 3),  # in the plane candidates crowd together
        (33, 16, 3, 100, 12, 100),  # all are kept
    ],
)
def test_round_by_definition(n, d, p, length, k, keep, largest):
    features, noise = unit(normal(0, n, d)), normal(1, length, d)
    arguments = (features, features[:p], noise, choice(k, 0.3, keep, largest))
    assert_same_up_to_ties(compiled_round(*arguments), *arguments)


@pytest.mark.parametrize("largest", [True, False])
def test_round_with_ties(largest):
    features, noise = unit(normal(0, 12, 4)), normal(1, 90, 4)
    features[3:7] = features[3]
    noise[10:] = noise[:80]  # every distance occurs twice or more
    noise[40:] = noise[40]
    arguments = (features, features[:4], noise, choice(5, 0.3, 3, largest))
    assert_same_up_to_ties(compiled_round(*arguments), *arguments)


@pytest.mark.parametrize("largest", [True, False])
def test_round_does_not_depend_on_how_many_features_are_counted_at_once(largest, monkeypatch):
    features, noise = unit(normal(0, 40, 6)), normal(1, 200, 6)
    arguments = (features, features[:5], noise, choice(15, 0.2, 2, largest))
    expected = compiled_round(*arguments)
    for at_once in (1, 7, 64):
        monkeypatch.setattr(shared_noise, "FEATURES_AT_ONCE", at_once)
        anew = jax.jit(functools.partial(shared_round, settings=arguments[3]))
        np.testing.assert_array_equal(anew(*arguments[:3]), expected)


@pytest.mark.parametrize("largest", [True, False])
def test_round_of_a_class_that_is_a_tight_cluster(largest):
    features = unit(normal(0, 1, 64) + 0.05 * normal(1, 250, 64))
    arguments = (features, features[:6], normal(2, 600, 64), choice(150, 0.02, 2, largest))
    assert_same_up_to_ties(compiled_round(*arguments), *arguments)


def primitives(jaxpr):
    """Names of all primitives of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("largest", [True, False])
def test_round_has_no_control_flow_that_depends_on_the_data(largest):
    def one(features, noise, count):
        return shared_round(features, features[:5], noise, choice(15, 0.2, 2, largest), count)

    jaxpr = jax.make_jaxpr(one)(normal(0, 40, 6), normal(1, 200, 6), 40)
    used = set(primitives(jaxpr.jaxpr))
    assert "scan" in used  # a loop whose number of steps is known beforehand
    assert not used & {"while", "cond"}


def test_memory_of_a_round_is_that_of_the_products():
    n, p, length, d = 5000, 40, 100, 8
    one = jax.jit(lambda *vectors: shared_round(*vectors, choice(300, 0.1, 2)))
    shapes = [jax.ShapeDtypeStruct((rows, d), np.float32) for rows in (n, p, length)]
    memory = one.lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4 * n * (length + p)  # all similarities: 4 n p length


def test_boundary_set_by_definition():
    features = unit(normal(0, 25, 5))
    distance = np.sort(2 - 2 * features.astype(np.float64) @ features.T, axis=1)[:, 7]
    expected = np.argsort(-distance)
    farthest = jax.jit(boundary_set, static_argnums=(1, 2))
    np.testing.assert_array_equal(farthest(features, 8, 25), expected)
    padded = np.concatenate([features, np.zeros((6, 5), np.float32)])
    np.testing.assert_array_equal(farthest(padded, 8, 10, count=25), expected[:10])
