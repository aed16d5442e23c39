"""BOOD's sampler against a plain loop in float64: who is chosen, where they end, and refusals."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.files import write_npz
from dream_jax.sampling import bood
from dream_jax.sampling.bood import NEVER, choose, cross_boundary, embeddings_per_class, walk
from dream_jax.sampling.classes import sample_classes
from dream_jax.sampling.settings import BoodSampler

SMALL = BoodSampler(step=0.02, share=0.1, beyond=2, most_steps=40, temperature=0.1)
LABEL = 3


def anchors() -> np.ndarray:
    """Five anchors of unequal length."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(5, 12)) * [[1], [2], [0.3], [1], [5]]).astype(np.float32)


def features(n: int = 90, label: int = LABEL, seed: int = 0) -> np.ndarray:
    """Features around the anchor of a class, of any length; a few lie in other classes."""
    rng = np.random.default_rng(seed)
    around = anchors()[label] / np.linalg.norm(anchors()[label])
    vectors = around + 0.3 * rng.normal(size=(n, 12))
    return (vectors * rng.uniform(0.1, 9, size=(n, 1))).astype(np.float32)


def cosines(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return centres @ z / np.linalg.norm(centres, axis=1) / np.linalg.norm(z)


def gradient(z: np.ndarray, label: int, centres: np.ndarray, temperature: float) -> np.ndarray:
    """The gradient of -log softmax(cosines / t)[label] by z, term by term in long floats."""
    z, centres = z.astype(np.longdouble), centres.astype(np.longdouble)
    own = cosines(z, centres)
    p = np.exp((own - own.max()) / temperature)
    p /= p.sum()
    length = np.linalg.norm(z)
    of_cosine = (centres / np.linalg.norm(centres, axis=1)[:, None] - np.outer(own, z / length)) / (
        length * temperature
    )
    weights = p.copy()
    weights[label] = -np.delete(p, label).sum()
    return (weights @ of_cosine).astype(float)


def plain_walk(feature, label, centres, settings) -> list[np.ndarray]:
    """The points of a walk: the unit feature, and after each step, in float64."""
    centres = centres.astype(float)
    z = feature.astype(float) / np.linalg.norm(feature.astype(float))
    points = [z]
    for _ in range(settings.most_steps + settings.beyond):
        z = z + settings.step * np.sign(gradient(z, label, centres, settings.temperature))
        points.append(z)
    return points


def plain_steps(points, label, centres, settings) -> int:
    """Steps to the first point of a walk that is given to another class."""
    for number in range(settings.most_steps + 1):
        if cosines(points[number], centres.astype(float)).argmax() != label:
            return number
    return NEVER


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        dataclasses.replace(SMALL, beyond=0),
        dataclasses.replace(SMALL, most_steps=12),  # some never leave
        dataclasses.replace(SMALL, temperature=0.01),  # p of the class rounds to 1 in float32
    ],
)
def test_walks_are_those_of_a_plain_loop(settings):
    given, centres = features(), anchors()
    walks = walk(given, LABEL, centres, settings)
    seen = set()
    for row, feature in enumerate(given):
        points = plain_walk(feature, LABEL, centres, settings)
        steps = plain_steps(points, LABEL, centres, settings)
        assert walks.steps[row] == steps, row
        own = cosines(points[0], centres)
        margin = own[LABEL] - np.delete(own, LABEL).max()
        np.testing.assert_allclose(walks.margins[row], margin, atol=1e-6)
        end = np.zeros(12)
        if steps != NEVER:
            end = points[steps + settings.beyond]
            end = end / np.linalg.norm(end)
        np.testing.assert_allclose(walks.ends[row], end, atol=1e-5)
        seen.add("behind" if steps == 0 else "never" if steps == NEVER else "crosses")
    assert {"behind", "crosses"} <= seen and ("never" in seen) == (settings.most_steps == 12)


def test_embeddings_lie_just_behind_the_boundary_and_needed_the_fewest_steps():
    given, centres, count = features(), anchors(), 20
    embeddings = cross_boundary(given, LABEL, centres, SMALL, count)
    assert embeddings.shape == (count, 12) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    walks = [plain_walk(feature, LABEL, centres, SMALL) for feature in given]
    steps = np.array([plain_steps(points, LABEL, centres, SMALL) for points in walks])
    ends = np.array([p[s + SMALL.beyond] for p, s in zip(walks, steps, strict=True)])
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    chosen = (embeddings @ ends.T).argmax(axis=1)
    np.testing.assert_allclose(embeddings, ends[chosen], atol=1e-5)
    assert len(set(chosen)) == count
    for row in chosen:
        read = [cosines(point, centres).argmax() for point in walks[row]]
        boundary = int(steps[row])
        assert read[boundary - 1] == LABEL
        assert LABEL not in read[boundary : boundary + SMALL.beyond + 1]
    crossing = np.flatnonzero(steps > 0)
    left_out = np.setdiff1d(crossing, chosen)
    assert len(left_out) and set(chosen) <= set(crossing)
    assert steps[chosen].max() <= steps[left_out].min() and steps[chosen].min() > 0
    # Of those that need as many steps, the nearest to the boundary are kept.
    own = np.array([cosines(points[0], centres) for points in walks])
    margins = own[:, LABEL] - np.delete(own, LABEL, axis=1).max(axis=1)
    last = steps[chosen].max()
    assert margins[chosen][steps[chosen] == last].max() <= margins[left_out][
        steps[left_out] == last
    ].min(initial=np.inf)


def test_what_begins_behind_the_boundary_comes_last_and_what_never_crosses_is_left_out():
    steps = np.array([3, 0, NEVER, 2, 3, 0])
    margins = np.array([0.2, -0.5, 0.9, 0.3, 0.1, -0.01])
    walks = bood.Walks(steps, margins, np.zeros((6, 2)))
    assert choose(walks, 9).tolist() == [3, 4, 0, 5, 1]
    assert choose(walks, 2).tolist() == [3, 4]


def test_too_few_that_cross(capsys):
    given, centres = features(), anchors()
    walks = walk(given, LABEL, centres, SMALL)
    inside = np.flatnonzero(walks.steps > 0)[:2]
    behind = np.flatnonzero(walks.steps == 0)[:1]
    few = given[[*behind, *inside]]
    embeddings = cross_boundary(few, LABEL, centres, SMALL, 5, pad_to=90)
    line = "class number 3: for lack of features that cross its boundary, 3 of 5 embeddings"
    assert line in capsys.readouterr().out
    order = [*inside[np.argsort(walks.steps[inside], kind="stable")], *behind]
    np.testing.assert_array_equal(embeddings, walks.ends[np.resize(order, 5)])
    cross_boundary(given[inside], LABEL, centres, SMALL, 2, pad_to=90)
    assert not capsys.readouterr().out
    short = dataclasses.replace(SMALL, most_steps=1)
    stays = given[walks.steps > 3]
    with pytest.raises(UserError, match=r"^config\.bood\.most_steps is 1; [^\n]*number 3 [^\n]*$"):
        cross_boundary(stays, LABEL, centres, short, 2, pad_to=90)


def test_padding_and_the_other_features_change_nothing():
    given, centres = features(70), anchors()
    plain = walk(given, LABEL, centres, SMALL)
    for other in (
        walk(given, LABEL, centres, SMALL, pad_to=200),
        walk(features(90), LABEL, centres, SMALL),
    ):
        for found, expected in zip(other, plain, strict=True):
            if len(found) == 70:
                np.testing.assert_array_equal(found, expected)
    scaled = walk(given * 2.0**60, LABEL, centres * 2.0**-30, SMALL)
    np.testing.assert_array_equal(scaled.ends, plain.ends)


def walked() -> dict[str, np.ndarray]:
    return walk(features(330), LABEL, anchors(), SMALL)._asdict()  # six groups


def test_four_devices_give_what_one_gives(on_devices):
    four = on_devices(4, walked)
    for name, expected in walked().items():
        np.testing.assert_array_equal(four[name], expected)


def test_number_of_embeddings():
    assert embeddings_per_class(np.repeat(range(100), 500), 100, 0.05) == 25
    assert embeddings_per_class(np.repeat([0, 1], [30, 10]), 2, 0.5) == 10
    assert embeddings_per_class(np.repeat([0, 1], [3, 1]), 2, 0.05) == 1


@pytest.fixture
def known():
    """Features of the five classes, unequally many."""
    sizes = (30, 44, 25, 90, 61)
    own = [features(size, label, seed=label) for label, size in enumerate(sizes)]
    labels = np.repeat(range(5), sizes)
    return SimpleNamespace(features=np.concatenate(own), labels=labels, anchors=anchors())


def test_classes_give_equally_many_embeddings_of_the_length_of_their_anchors(known, tmp_path):
    embeddings = sample_classes(3, SMALL, known, tmp_path, "bood")
    assert embeddings.shape == (5, 5, 12) and embeddings.dtype == np.float32
    for label, found in enumerate(embeddings):
        own = known.features[known.labels == label]
        alone = cross_boundary(own, label, known.anchors, SMALL, 5, pad_to=90)
        np.testing.assert_array_equal(found, alone * np.linalg.norm(known.anchors[label]))
    assert not list(tmp_path.iterdir())
    # Nothing is drawn: the seed and the kind make no difference.
    np.testing.assert_array_equal(embeddings, sample_classes(4, SMALL, known, tmp_path))


def test_a_class_that_is_done_is_not_sampled_again(known, tmp_path):
    mark = np.full((5, 12), 0.5, np.float32)
    (tmp_path / "classes").mkdir()
    write_npz(tmp_path / "classes" / "1.npz", unit=mark)
    embeddings = sample_classes(3, SMALL, known, tmp_path)
    np.testing.assert_allclose(embeddings[1], mark * np.linalg.norm(known.anchors[1]), rtol=1e-6)
    assert np.abs(embeddings[0] - embeddings[0][0]).max() > 0
