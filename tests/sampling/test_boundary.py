"""The boundary sampler against building and sorting every candidate, and the golden files."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.extend
import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.knn import kth_sq_distance
from dream_jax.sampling import boundary
from dream_jax.sampling.boundary import boundary_set, sample_round
from dream_jax.sampling.published import published_round
from dream_jax.sampling.rounds import SamplerSettings, sample_embeddings

ROOT = Path(__file__).parents[2]
SMALL = SamplerSettings(
    k=6, boundary=10, per_round=4, candidates=30, scale=0.2, keep=2, rounds=5, largest=True
)
SMALL_INLIERS = dataclasses.replace(SMALL, keep=1, scale=0.05, largest=False)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def all_candidates(features, boundary_features, noise, k, scale):
    """Candidates (p, L, d) and their d_k (p, L) by definition, in float64."""
    candidates = unit(boundary_features[:, None].astype(np.float64) + scale * noise)
    similarity = candidates @ features.T.astype(np.float64)
    distance = np.sort(2 - 2 * similarity, axis=-1)[..., k - 1]
    return candidates, distance


def assert_same_up_to_ties(points, features, boundary_features, noise, k, scale, keep, largest):
    """The kept points are candidates of their boundary feature, with the best d_k in order.

    Of two candidates with the same d_k but for rounding, either may be kept: only d_k is compared.
    """
    candidates, distance = all_candidates(features, boundary_features, noise, k, scale)
    assert points.shape == (len(boundary_features), keep, features.shape[1])
    best = np.sort(-distance if largest else distance, axis=1)[:, :keep]
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
        int(golden["k"]),
        float(golden["noise_scale"]),
        int(golden["points_per_boundary"]),
        bool(golden["largest"]),
    )
    assert_same_up_to_ties(sample_round(*arguments), *arguments)


def test_golden_points_are_those_of_the_published_round(golden):
    """All of them, for no two distances there are tied, group by group in the file's order."""
    features, noise, boundary_features = (golden[n] for n in ("features", "noise", "boundary"))
    k, scale = int(golden["k"]), float(golden["noise_scale"])
    keep, largest = int(golden["points_per_boundary"]), bool(golden["largest"])
    # Which candidate a golden point is tells in which random order the features were drawn.
    candidates = unit(boundary_features[:, None] + scale * noise)
    p, length, d = candidates.shape
    similarity = golden["points"] @ candidates.reshape(-1, d).T
    assert similarity.max(axis=1).min() > 1 - 1e-6
    source, number = np.divmod(similarity.argmax(axis=1), length)
    if largest:
        order = list(dict.fromkeys(source))
        assert sorted(order) == list(range(p))
        round_of = published_round(features, boundary_features[order], noise, k, scale, keep)
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
        round_of = published_round(
            features, boundary_features[order], noise, k, scale, keep, largest=False
        )
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
    arguments = (features, features[:p], noise, k, 0.3, keep, largest)
    assert_same_up_to_ties(sample_round(*arguments), *arguments)


@pytest.mark.parametrize("largest", [True, False])
def test_round_with_ties(largest):
    features, noise = unit(normal(0, 12, 4)), normal(1, 90, 4)
    features[3:7] = features[3]
    noise[10:] = noise[:80]  # every distance occurs twice or more
    noise[40:] = noise[40]
    arguments = (features, features[:4], noise, 5, 0.3, 3, largest)
    assert_same_up_to_ties(sample_round(*arguments), *arguments)


@pytest.mark.parametrize("largest", [True, False])
def test_round_does_not_depend_on_how_many_features_are_counted_at_once(largest, monkeypatch):
    features, noise = unit(normal(0, 40, 6)), normal(1, 200, 6)
    arguments = (features, features[:5], noise, 15, 0.2, 2, largest)
    expected = sample_round(*arguments)
    for at_once in (1, 7, 64):
        monkeypatch.setattr(boundary, "FEATURES_AT_ONCE", at_once)
        np.testing.assert_array_equal(sample_round(*arguments), expected)


@pytest.mark.parametrize("largest", [True, False])
def test_round_of_a_class_that_is_a_tight_cluster(largest):
    features = unit(normal(0, 1, 64) + 0.05 * normal(1, 250, 64))
    arguments = (features, features[:6], normal(2, 600, 64), 150, 0.02, 2, largest)
    assert_same_up_to_ties(sample_round(*arguments), *arguments)


def primitives(jaxpr):
    """Names of all primitives of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("largest", [True, False])
def test_round_has_no_control_flow_that_depends_on_the_data(largest):
    def one(features, noise, count):
        return sample_round(features, features[:5], noise, 15, 0.2, 2, largest, count)

    jaxpr = jax.make_jaxpr(one)(normal(0, 40, 6), normal(1, 200, 6), 40)
    used = set(primitives(jaxpr.jaxpr))
    assert "scan" in used  # a loop whose number of steps is known beforehand
    assert not used & {"while", "cond"}


def test_memory_of_a_round_is_that_of_the_products():
    n, p, length, d = 5000, 40, 100, 8
    one = jax.jit(lambda *vectors: sample_round(*vectors, 300, 0.1, 2))
    shapes = [jax.ShapeDtypeStruct((rows, d), np.float32) for rows in (n, p, length)]
    memory = one.lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4 * n * (length + p)  # all similarities: 4 n p length


def test_boundary_set_by_definition():
    features = unit(normal(0, 25, 5))
    distance = np.sort(2 - 2 * features.astype(np.float64) @ features.T, axis=1)[:, 7]
    expected = np.argsort(-distance)
    np.testing.assert_array_equal(boundary_set(features, 8, 25), expected)
    padded = np.concatenate([features, np.zeros((6, 5), np.float32)])
    np.testing.assert_array_equal(boundary_set(padded, 8, 10, count=25), expected[:10])


@pytest.mark.parametrize("settings", [SMALL, SMALL_INLIERS])
def test_embeddings_are_unit_vectors_of_the_asked_number(settings):
    features = 3 * normal(0, 24, 8)
    embeddings = sample_embeddings(features, jax.random.key(0), settings)
    assert embeddings.shape == (settings.rounds * 4 * settings.keep, 8)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    scaled = sample_embeddings(features * 2.0**70, jax.random.key(0), settings)
    np.testing.assert_array_equal(scaled, embeddings)
    other = sample_embeddings(features, jax.random.key(1), settings)
    assert np.abs(other - embeddings).max() > 1e-3


def test_a_round_draws_without_replacement_and_only_what_is_eligible():
    features = unit(normal(0, 24, 8))
    key = jax.random.key(0)

    def drawn(settings):
        # With hardly any noise a candidate is the feature that it was drawn around.
        settings = dataclasses.replace(settings, scale=1e-6, keep=1, rounds=40)
        points = sample_embeddings(features, key, settings, rows=30)
        index = (points @ features.T).argmax(axis=1)
        np.testing.assert_allclose(points, features[index], atol=1e-4)
        return index.reshape(40, -1)

    around_boundary = drawn(SMALL)
    assert all(len(set(row)) == 4 for row in around_boundary.tolist())
    assert set(around_boundary.ravel()) == set(np.asarray(boundary_set(features, 6, 10)).tolist())
    everything = drawn(dataclasses.replace(SMALL_INLIERS, per_round=50))  # more than there are
    np.testing.assert_array_equal(np.sort(everything, axis=1), [range(24)] * 40)


@pytest.mark.parametrize("settings", [SMALL, SMALL_INLIERS])
def test_padding_changes_nothing(settings):
    features = normal(0, 24, 8)
    plain = sample_embeddings(features, jax.random.key(0), settings)
    padded = sample_embeddings(features, jax.random.key(0), settings, rows=37)
    np.testing.assert_allclose(padded, plain, atol=1e-6)


def test_classes_of_unequal_size_share_one_program(monkeypatch):
    traces = []

    def traced(*arguments):
        traces.append(1)
        return sample_round(*arguments)

    monkeypatch.setattr(boundary, "sample_round", traced)
    boundary._mapped_rounds.cache_clear()
    after_class = []
    for n in (20, 24, 29):
        sample_embeddings(normal(n, n, 8), jax.random.key(n), SMALL, rows=29)
        after_class.append(len(traces))
    boundary._mapped_rounds.cache_clear()  # leave no program that counts
    assert after_class[0] > 0
    assert after_class == after_class[:1] * 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"k": 0}, "sampling.k"),
        ({"k": 2.5}, "sampling.k"),
        ({"k": 25}, "sampling.k"),
        ({"boundary": 25}, "sampling.boundary"),
        ({"boundary": -1}, "sampling.boundary"),
        ({"per_round": 0}, "sampling.per_round"),
        ({"candidates": 0}, "sampling.candidates"),
        ({"scale": 0.0}, "sampling.scale"),
        ({"scale": float("nan")}, "sampling.scale"),
        ({"keep": 31}, "sampling.keep"),
        ({"rounds": True}, "sampling.rounds"),
    ],
)
def test_settings_out_of_range(change, name):
    with pytest.raises(UserError, match=rf"^{name} [^\n]*$"):
        settings = dataclasses.replace(SMALL, **change)
        sample_embeddings(normal(0, 24, 8), jax.random.key(0), settings)


@pytest.mark.parametrize(
    ("spoil", "message"), [(np.nan, "finite"), (np.inf, "finite"), (0.0, "zero")]
)
def test_unusable_features(spoil, message):
    features = normal(0, 24, 8)
    features[5] = spoil
    with pytest.raises(UserError, match=message):
        sample_embeddings(features, jax.random.key(0), SMALL)


def test_features_of_the_wrong_shape():
    for features in (normal(0, 24), np.zeros((0, 8), np.float32)):
        with pytest.raises(UserError, match="empty"):
            sample_embeddings(features, jax.random.key(0), SMALL)
    with pytest.raises(ValueError, match="rows is 23"):
        sample_embeddings(normal(0, 24, 8), jax.random.key(0), SMALL, rows=23)


PROGRAM = """
import sys
import jax, numpy as np
from dream_jax.sampling.rounds import SamplerSettings, sample_embeddings
assert jax.local_device_count() == 4
settings = SamplerSettings(
    k=6, boundary=10, per_round=4, candidates=30, scale=0.2, keep=2, rounds=5
)
np.save(sys.argv[2], sample_embeddings(np.load(sys.argv[1]), jax.random.key(0), settings))
"""


def test_four_devices_give_what_one_gives(tmp_path):
    features = normal(0, 24, 8)
    np.save(tmp_path / "features.npy", features)
    flags = "--xla_force_host_platform_device_count=4"
    files = [str(tmp_path / name) for name in ("features.npy", "embeddings.npy")]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *files],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        check=True,
    )
    here = sample_embeddings(features, jax.random.key(0), SMALL)
    np.testing.assert_array_equal(np.load(files[1]), here)
