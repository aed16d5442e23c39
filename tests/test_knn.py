"""The k-th nearest neighbour distance against NumPy's sort and the golden file."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dream_jax import knn
from dream_jax.knn import (
    d_k,
    knn_score,
    kth_smallest,
    kth_sq_distance,
    mean_of_largest,
    nearest_cosines,
)

GOLDEN = Path(__file__).parent / "golden"


def unit_vectors(seed, *shape):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sorted_sq_distances(queries, points):
    difference = queries[:, None].astype(np.float64) - points[None]
    return np.sort(np.sum(difference**2, axis=-1), axis=1)


@pytest.mark.parametrize("shape", [(1,), (9,), (4, 33), (2, 3, 100)])
def test_kth_smallest_of_any_shape(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    traced = jax.jit(kth_smallest)
    for k in range(1, shape[-1] + 1):
        expected = np.partition(values, k - 1, axis=-1)[..., k - 1]
        np.testing.assert_array_equal(traced(values, k), expected)


def test_kth_smallest_of_every_kind_of_float():
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    row = [-np.inf, -huge, -2, -2, -1.5, -tiny, -0.0, 0.0, tiny, 1, 1, 1, 3, huge, np.inf, np.inf]
    values = np.random.default_rng(0).permuted(np.array([row] * 5, np.float32), axis=1)
    traced = jax.jit(kth_smallest)
    for k in range(1, len(row) + 1):
        expected = np.full(5, row[k - 1], np.float32)
        np.testing.assert_array_equal(traced(values, k), expected)
    np.testing.assert_array_equal(kth_smallest(values, 3), np.full(5, -2, np.float32))


@pytest.mark.parametrize("name", ["outlier_sampler", "inlier_sampler"])
def test_golden(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    unit = golden["id_features"] / np.linalg.norm(golden["id_features"], axis=1, keepdims=True)
    for queries, expected in [
        (unit, golden["kth_sq_distance_of_id"]),
        (golden["points"], golden["kth_sq_distance_of_points"]),
    ]:
        result = kth_sq_distance(queries, unit, int(golden["k"]))
        np.testing.assert_allclose(result, expected, rtol=0, atol=3e-6)


def test_distance_is_that_of_a_sort(monkeypatch):
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 7)  # chunks that do not divide the queries
    queries, points = unit_vectors(0, 30, 5), unit_vectors(1, 20, 5)
    points[5:8] = points[4]  # equal points each count
    expected, traced = sorted_sq_distances(queries, points), jax.jit(kth_sq_distance)
    for k in range(1, 21):
        np.testing.assert_allclose(traced(queries, points, k), expected[:, k - 1], atol=2e-6)


def test_a_member_counts_itself_first():
    points = unit_vectors(0, 12, 4)
    np.testing.assert_allclose(kth_sq_distance(points, points, 1), 0, atol=1e-6)
    second = sorted_sq_distances(points, points)[:, 1]
    np.testing.assert_allclose(kth_sq_distance(points, points, 2), second, atol=2e-6)


def test_padding_is_infinitely_far():
    queries, points = unit_vectors(0, 6, 4), unit_vectors(1, 12, 4)
    padded = np.concatenate([points, queries, np.zeros((3, 4), np.float32)])
    expected, traced = sorted_sq_distances(queries, points), jax.jit(kth_sq_distance)
    for k in range(1, 13):
        result = traced(queries, padded, k, count=12)
        np.testing.assert_allclose(result, expected[:, k - 1], atol=2e-6)
    assert np.all(np.isinf(traced(queries, padded, 13, count=12)))


@pytest.mark.parametrize("k", [1, 2, 7, 50])
@pytest.mark.parametrize("n", [50, 64, 97, 1600, 1633])  # with and without a rest of a group
def test_score_is_that_of_a_sort(n, k):
    queries, points = unit_vectors(0, 11, 6), unit_vectors(1, n, 6)
    expected = -np.sqrt(sorted_sq_distances(queries, points)[:, k - 1])
    np.testing.assert_allclose(knn_score(queries, points, k), expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 33, 64, 65, 200])
def test_score_among_duplicates(k):
    points = unit_vectors(1, 200, 6)
    points[1:65] = points[0]  # two groups' worth of the same point
    points[190:] = points[100]
    queries = np.concatenate([points[:2], points[100:101], unit_vectors(0, 4, 6)])
    expected = sorted_sq_distances(queries, points)[:, k - 1]
    np.testing.assert_allclose(knn_score(queries, points, k) ** 2, expected, atol=2e-6)


def test_score_of_few_queries_at_a_time(monkeypatch):
    queries, points = unit_vectors(0, 13, 6), unit_vectors(1, 100, 6)
    expected = -np.sqrt(sorted_sq_distances(queries, points)[:, 8])
    for at_once in (10, 500):  # one query, and five
        monkeypatch.setattr(knn, "SIMILARITIES_AT_ONCE", at_once)
        score = knn_score.__wrapped__(queries, points, 9)
        np.testing.assert_allclose(score, expected, atol=1e-5)


@pytest.mark.parametrize("k", [0, 21])
def test_score_of_a_rank_that_is_not_there(k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        knn_score(unit_vectors(0, 3, 4), unit_vectors(1, 20, 4), k)


@pytest.mark.parametrize("n", [1, 31, 32, 100, 333])
def test_mean_of_largest_is_that_of_a_sort(n):
    rng = np.random.default_rng(n)
    queries, points = rng.normal(size=(9, 6)), rng.normal(size=(n, 6))
    products = np.sort(queries @ points.T, axis=1)[:, ::-1]
    for k in {1, min(5, n), n}:
        found = mean_of_largest(queries.astype(np.float32), points.astype(np.float32), k)
        np.testing.assert_allclose(found, products[:, :k].mean(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [0, 4])
def test_mean_of_largest_of_no_rank(k):
    with pytest.raises(ValueError, match=f"k is {k}, not a rank among 3"):
        mean_of_largest(np.ones((1, 2)), np.ones((3, 2)), k)


def test_d_k_is_of_directions_and_squared():
    """Of vectors of any length; padding does not count, and a small class has no k-th."""
    queries, points = unit_vectors(0, 30, 6), unit_vectors(1, 40, 6)
    expected = sorted_sq_distances(queries, points)
    longer = queries * 7, points * np.linspace(0.1, 9, 40, dtype=np.float32)[:, None]
    np.testing.assert_allclose(d_k(*longer, 8), expected[:, 7], atol=2e-6)
    np.testing.assert_allclose(d_k(*longer, 99), expected[:, -1], atol=2e-6)
    padded = np.concatenate([longer[1], np.zeros((5, 6), np.float32)])
    for k, column in ((8, 7), (99, 39)):
        found = d_k(longer[0], padded, k, count=40)
        np.testing.assert_allclose(found, expected[:, column], atol=2e-6)


def test_nearest_cosines_of_ones_own_and_of_others(monkeypatch):
    monkeypatch.setattr("dream_jax.knn.QUERIES_AT_ONCE", 8)
    queries, points = unit_vectors(0, 30, 6), unit_vectors(1, 40, 6)
    own, cosines = np.arange(40) % 3 == 1, queries @ points.T
    found = nearest_cosines(queries, points, own)
    for got, members in zip(found, (own, ~own), strict=True):
        np.testing.assert_allclose(got, cosines[:, members].max(1), atol=1e-6)
    assert np.isneginf(nearest_cosines(queries, points, np.ones(40, bool))[1]).all()
