"""NPOS: its outliers, prototypes and losses against brute force in NumPy."""

import jax
import numpy as np
import optax
import pytest

from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Own
from dream_jax.detector.methods.npos import (
    cosine_logits,
    dispersion,
    init_mlp,
    move_prototypes,
    open_loss,
    synthesise,
    unit,
)
from dream_jax.detector.options import resolve
from dream_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGE = (32, 32, 1)
TRAINING = TRAININGS["npos"]


def unit_rows(*shape: int) -> np.ndarray:
    rows = RNG.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def kth_distance(queries, points, k: int) -> np.ndarray:
    """The distance of each query to its k-th nearest point, from all distances."""
    return np.sort(np.linalg.norm(queries[:, None] - points[None], axis=-1), axis=1)[:, k - 1]


CLUSTER = np.float32(np.array([3.0, 0, 0, 0, 0]) + RNG.normal(size=(80, 5)) * 0.3)
CLUSTER /= np.linalg.norm(CLUSTER, axis=1, keepdims=True)
SMALL = {"k": 7, "boundary": 10, "picks": 3, "candidates": 50, "keep": 4, "scale": 0.2}


def test_outliers_are_the_farthest_candidates_around_the_edge_of_the_class():
    key = jax.random.key(3)

    def run(keep: int):
        return jax.jit(lambda rows: synthesise(key, rows, SMALL | {"keep": keep}))(CLUSTER)

    # All candidates of each pick, which are kept when as many are asked for.
    everything = np.asarray(run(50)).reshape(3, 50, 5)
    outliers = np.asarray(run(4)).reshape(3, 4, 5)
    of_class = kth_distance(CLUSTER, CLUSTER, 7)
    edge = CLUSTER[np.argsort(-of_class)[:10]]
    picks = []
    for candidates, kept in zip(everything, outliers, strict=True):
        distance = kth_distance(candidates, CLUSTER, 7)
        best = candidates[np.argsort(-distance)[:4]]
        np.testing.assert_allclose(kept, best, atol=1e-5)
        # Candidates are all around their pick, which is on the edge; their mean is its direction.
        mean = candidates.mean(0) / np.linalg.norm(candidates.mean(0))
        picks.append(int(np.argmax(edge @ mean)))
        assert edge[picks[-1]] @ mean > 0.98
    assert len(set(picks)) == 3
    np.testing.assert_allclose(np.linalg.norm(outliers, axis=-1), 1, rtol=1e-5)
    # Farther from the data than the data, its edge included, is from itself.
    assert kth_distance(outliers.reshape(-1, 5), CLUSTER, 7).min() > of_class.max()


def test_prototypes_move_row_by_row():
    start, rows = unit_rows(4, 6), unit_rows(25, 6)
    labels, mask = RNG.integers(3, size=25), np.float32(RNG.random(25) < 0.7)  # class 3 is absent
    expected = start.astype(np.float64)
    for row, label in zip(rows[mask > 0], labels[mask > 0], strict=True):
        expected[label] = 0.8 * expected[label] + 0.2 * row
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    moved = jax.jit(move_prototypes)(start, rows, labels, mask, 0.8)
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    # The original brings the prototype to length 1 after each row, which changes little.
    normalised = start.astype(np.float64)
    for row, label in zip(rows[mask > 0], labels[mask > 0], strict=True):
        step = 0.95 * normalised[label] + 0.05 * row
        normalised[label] = step / np.linalg.norm(step)
    moved = move_prototypes(start, rows, labels, mask, 0.95)
    assert np.sum(moved * normalised, axis=1).min() > 0.995
    first = move_prototypes(np.zeros((4, 6), np.float32), rows, labels, mask, 0.8)
    assert np.allclose(np.linalg.norm(first, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_losses():
    z, prototypes = unit_rows(9, 6), unit_rows(4, 6)
    cosines = z.astype(np.float64) @ prototypes.T
    np.testing.assert_allclose(cosine_logits(z, prototypes, 0.1), cosines / 0.1, rtol=1e-4)
    between = np.exp(prototypes.astype(np.float64) @ prototypes.T / 0.1)
    expected = np.log((between.sum(1) - np.diag(between)) / 3)
    np.testing.assert_allclose(dispersion(prototypes, 0.1), expected, rtol=1e-4)
    phi, is_id = np.float32([-40, -1, 0, 2, 40, 3]), np.float32([1, 1, 0, 0, 0, 1])
    sigmoid = 1 / (1 + np.exp(-phi[[1, 2, 3, 5]].astype(np.float64)))
    loss = open_loss(phi, is_id)
    np.testing.assert_allclose(
        loss[np.array([1, 2, 3, 5])],
        -np.log([sigmoid[0], 1 - sigmoid[1], 1 - sigmoid[2], sigmoid[3]]),
        rtol=1e-5,
    )
    np.testing.assert_allclose(loss[np.array([0, 4])], 40, rtol=1e-5)


def test_classifies_by_the_nearest_prototype_and_gives_unit_features():
    layers = init_mlp(jax.random.key(0), (6, 5, 4))
    features, prototypes = RNG.normal(size=(7, 6)).astype(np.float32), unit_rows(3, 4)
    own = Own({"projection": layers}, {"prototypes": prototypes})
    logits, z, *_ = TRAINING.outputs(own, Outputs(features, features), {})
    hidden = np.maximum(features @ layers["layer0"]["kernel"] + layers["layer0"]["bias"], 0)
    projected = hidden @ layers["layer1"]["kernel"] + layers["layer1"]["bias"]
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    nearest = np.linalg.norm(projected[:, None] - prototypes, axis=-1).argmin(1)
    np.testing.assert_array_equal(np.argmax(logits, 1), nearest)
    np.testing.assert_allclose(logits, projected @ prototypes.T, atol=1e-5)
    np.testing.assert_allclose(z, unit(features), rtol=1e-5)


def test_phi_learns_slower():
    params = {
        "network": {"phi": np.ones(2, np.float32)},
        "method": {"phi": np.ones(2, np.float32), "projection": np.ones(2, np.float32)},
    }
    optimizer = TRAINING.optimizer(optax.sgd(0.5, momentum=0.9), None, 1, {"phi_rate": 0.1})
    state = optimizer.init(params)
    for gradient_sum in (1.0, 1.9):  # what momentum makes of two gradients of 1
        updates, state = optimizer.update(jax.tree.map(np.ones_like, params), state, params)
        np.testing.assert_allclose(updates["network"]["phi"], -0.5 * gradient_sum, rtol=1e-6)
        np.testing.assert_allclose(updates["method"]["projection"], -0.5 * gradient_sum, rtol=1e-6)
        np.testing.assert_allclose(updates["method"]["phi"], -0.05 * gradient_sum, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 31}, "k is 31; it must be at most queue = 30"),
        ({"boundary": 40}, "boundary is 40; it must be at most queue = 30"),
        ({"boundary": 1}, "picks is 2; it must be at most boundary = 1"),
        ({"candidates": 9}, "keep is 20; it must be at most candidates = 9"),
        ({"queue": 40}, "queue is 40; it must be below 40, the images of the rarest class"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, message):
    fitting = {"queue": 30, "k": 5, "boundary": 10, "keep": 20}
    labels = np.repeat(np.arange(3), 40)
    TRAINING.check(resolve("npos", TRAINING.options, fitting), IMAGE, labels, 1)
    with pytest.raises(UserError, match=f"^method npos: {message}"):
        TRAINING.check(resolve("npos", TRAINING.options, fitting | given), IMAGE, labels, 1)
