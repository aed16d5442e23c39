"""How varied embeddings are and where they lie: each number against NumPy in float64."""

import numpy as np
import pytest

from dream_jax import variety
from dream_jax.results import Features

RNG = np.random.default_rng(0)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def leaders_by_loop(vectors) -> list[int]:
    """The definition: in their order, those that are the same as no leader before them."""
    found: list[int] = []
    for place, vector in enumerate(unit(vectors.astype(np.float64))):
        if all(vector @ unit(vectors[leader].astype(np.float64)) <= 0.9 for leader in found):
            found.append(place)
    return found


def clouds(count: int, scale: float, dimension: int = 12, centres: int = 9):
    """Vectors of many lengths around a few directions, mixed."""
    middle = RNG.normal(size=(centres, dimension))[RNG.integers(0, centres, count)]
    spread = middle + scale * RNG.normal(size=(count, dimension))
    return (spread * RNG.uniform(0.1, 9, (count, 1))).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 0.3, 0.5, 3.0])
@pytest.mark.parametrize("count", [1, 7, 32, 33, 150])
def test_leaders_are_those_of_a_loop(monkeypatch, count, scale):
    monkeypatch.setattr(variety, "BLOCK", 32)
    vectors = clouds(count, scale)
    found = np.flatnonzero(variety.leaders(vectors))
    assert found.tolist() == leaders_by_loop(vectors)
    cosines = unit(vectors[found]) @ unit(vectors).T
    assert (cosines.max(0) > 0.9).all()  # every vector, also a leader, is the same as a leader
    assert (cosines[:, found] - np.eye(len(found)) <= 0.9).all()


def test_clouds_are_groups_and_what_is_spread_is_not():
    assert variety.leaders(clouds(150, 0.01)).sum() == 9
    assert variety.leaders(clouds(150, 3.0)).sum() > 140


def test_leaders_do_not_depend_on_the_block(monkeypatch):
    vectors, found = clouds(700, 0.4), []
    for block in (512, 1024, 50):
        monkeypatch.setattr(variety, "BLOCK", block)
        found.append(variety.leaders(vectors).tolist())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("shape", [(1, 5), (6, 20), (20, 6), (50, 50)])
def test_effective_rank_is_that_of_the_second_moments(shape):
    vectors = RNG.normal(size=shape).astype(np.float32) * RNG.uniform(0.1, 9, (shape[0], 1))
    values = np.linalg.svd(unit(vectors), compute_uv=False) ** 2
    share = values / values.sum()
    expected = np.exp(-np.sum(share * np.log(share)))
    assert variety.effective_rank(vectors) == pytest.approx(expected, rel=1e-6)


def test_effective_rank_at_its_ends():
    assert variety.effective_rank(3 * np.eye(8)) == pytest.approx(8)
    same = np.tile(RNG.normal(size=40), (300, 1)).astype(np.float32)
    assert variety.effective_rank(same) == pytest.approx(1, abs=1e-3)
    two = np.eye(40)[RNG.integers(0, 2, 300)]
    assert variety.effective_rank(two) == pytest.approx(2, abs=0.02)
    assert variety.effective_rank(np.zeros((3, 4))) == 0


@pytest.mark.parametrize(
    ("distinct", "count", "collapsed"),
    [
        (1, 1, False),
        (1, 2, True),
        (1, 4, True),
        (2, 5, False),
        (14, 400, True),
        (32, 1000, True),
        (99, 400, True),
        (100, 400, False),
        (492, 1000, False),
        (400, 400, False),
    ],
)
def test_what_counts_as_collapsed(distinct, count, collapsed):
    assert variety.has_collapsed(distinct, count) is collapsed


def test_the_note_names_the_worst_class():
    assert variety.collapse_note({"a": 390, "b": 100}, 400) == ""
    note = variety.collapse_note({"a": 390, "b": 14, "c": 7}, 400)
    assert note.startswith(
        "the outlier embeddings of 2 of 3 classes have collapsed: of the 400 of class 'c' only 7 "
        "are different"
    )
    assert "\n" not in note


def features_of(sizes, dimension=10) -> Features:
    """Classes of different sizes, their features mixed and of many lengths."""
    labels = RNG.permutation(np.repeat(np.arange(len(sizes)), sizes))
    anchors = RNG.normal(size=(len(sizes), dimension)).astype(np.float32)
    made = anchors[labels] + 0.7 * RNG.normal(size=(len(labels), dimension))
    return Features(
        (made * RNG.uniform(0.1, 9, (len(labels), 1))).astype(np.float32), labels, anchors
    )


def expected_spread(values) -> dict:
    return {"median": np.median(values), "min": values.min(), "max": values.max()}


def expected_entry(known, label, embeddings, k, boundary, placed) -> dict:
    own = unit(known.features[known.labels == label].astype(np.float64))
    others = unit(known.features[known.labels != label].astype(np.float64))
    vectors = unit(embeddings[placed].astype(np.float64))

    def d_k(some):
        squares = ((some[:, None] - own) ** 2).sum(-1)
        return np.sort(squares, axis=1)[:, min(k, len(own)) - 1]

    values = np.linalg.svd(unit(embeddings), compute_uv=False) ** 2
    share = values[values > 1e-9] / values.sum()
    return {
        "distinct": len(leaders_by_loop(embeddings)),
        "effective_rank": np.exp(-np.sum(share * np.log(share))),
        "d_k": {
            "embeddings": expected_spread(d_k(vectors)),
            "boundary_set": expected_spread(np.sort(d_k(own))[-boundary:]),
            "class": expected_spread(d_k(own)),
        },
        "nearest_cosine": {
            "own_class": expected_spread((vectors @ own.T).max(1)),
            "other_classes": expected_spread((vectors @ others.T).max(1)),
        },
    }


def assert_same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    else:
        assert found == pytest.approx(expected, abs=5e-6, rel=1e-5)


@pytest.mark.parametrize("most_placed", [1000, 7])
def test_every_measure_is_that_of_its_definition(monkeypatch, most_placed):
    monkeypatch.setattr(variety, "MOST_PLACED", most_placed)
    known = features_of([30, 8, 21])  # of which one has fewer than k features
    embeddings = np.stack([clouds(40, scale, 10) for scale in (0.02, 0.4, 2.0)])
    embeddings[0] = embeddings[0, :3].repeat(14, axis=0)[:40]
    found = list(variety.measure(known, embeddings, k=9, boundary=6))
    placed = np.arange(40) if most_placed > 40 else np.array([0, 6, 13, 20, 26, 32, 39])
    for label, entry in enumerate(found):
        assert entry.pop("collapsed") is (label == 0)
        assert_same(entry, expected_entry(known, label, embeddings[label], 9, 6, placed))


def test_groups_and_rank_are_of_the_first_embeddings(monkeypatch):
    monkeypatch.setattr(variety, "MOST_GROUPED", 20)
    known, spread = features_of([20, 20]), clouds(40, 3.0, 10)
    embeddings = np.stack([spread, spread])
    embeddings[1, :20] = spread[:1]
    first, second = variety.measure(known, embeddings, 5, 5)
    assert first["effective_rank"] == pytest.approx(variety.effective_rank(spread[:20]))
    assert first["distinct"] == len(leaders_by_loop(spread[:20]))
    assert second["distinct"] == 1 and second["collapsed"] and not first["collapsed"]
    assert variety.count_distinct(embeddings) == ([first["distinct"], 1], 20)


def test_one_class_has_no_others():
    (entry,) = variety.measure(features_of([20]), clouds(5, 3.0, 10)[None], 5, 5)
    assert entry["nearest_cosine"].keys() == {"own_class"}


@pytest.mark.parametrize(("count", "most"), [(5, 9), (9, 9), (100, 7), (1, 1)])
def test_indices_are_even(count, most):
    found = variety.evenly(count, most)
    assert len(found) == min(count, most) and found[0] == 0 and found[-1] == count - 1
    assert len(found) < 2 or np.ptp(np.diff(found)) <= 1
