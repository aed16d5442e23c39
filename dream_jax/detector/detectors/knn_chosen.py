"""KNN whose k ID training images alone choose.

The paper chooses k by images of noise. Here it is the one by which the KNN score best tells
training features from points half-way between training features of two classes, which belong to
neither: the largest AUROC, and of equal ones the smallest k. This way of choosing is ours.
"""

import jax
import numpy as np
from jaxtyping import Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.neighbours import bank
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options
from dream_jax.errors import UserError
from dream_jax.knn import knn_score
from dream_jax.vectors import unit, unit_on_host

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
QUERIES = 1000  # at most, of each kind
SIMILARITIES = 2**24  # at once, on the host


def nearest(
    queries: Float[np.ndarray, "q d"], points: Float[np.ndarray, "n d"], ranks: np.ndarray
) -> Float[np.ndarray, "q ranks"]:
    """Returns the similarities of each query to its nearest points, by their ranks from 1 on."""
    size = max(1, SIMILARITIES // len(points))
    parts = []
    for start in range(0, len(queries), size):
        opposition = -(queries[start : start + size] @ points.T)
        parts.append(-np.partition(opposition, ranks - 1, axis=1)[:, ranks - 1])
    return np.concatenate(parts)


def between(
    stored: Float[np.ndarray, "n d"], labels: np.ndarray, rows: np.ndarray
) -> Float[np.ndarray, "m d"]:
    """Returns unit vectors half-way between rows and others, drawn at random, of other classes."""
    rng = np.random.default_rng(0)
    others = rng.integers(0, len(labels), (8, len(rows)))
    pairs = [(rows[ok], own[ok]) for own in others if (ok := labels[rows] != labels[own]).any()]
    if not pairs:
        return stored[:0]
    a, b = (np.concatenate(side)[: len(rows)] for side in zip(*pairs, strict=True))
    return unit_on_host(stored[a] + stored[b])


def choose_k(stored: Float[np.ndarray, "n d"], labels: np.ndarray) -> int:
    """Returns the number of neighbours that the fitting data choose.

    Raises:
      UserError: there are not two classes of some images each.
    """
    n = len(labels)
    rows = np.unique(np.linspace(0, n - 1, min(QUERIES, n)).astype(np.int64))
    outside = between(stored, labels, rows)
    ranks = np.array([k for k in NEIGHBOURS if k < n], np.int64)
    if not len(outside) or not len(ranks):
        raise UserError(
            "detector knn_chosen: k is chosen by training images of at least two classes, and "
            "there is one class; use knn"
        )
    inside = nearest(stored[rows], stored, ranks + 1)  # the first is the row itself
    outside = nearest(outside, stored, ranks)

    def auroc(column: int) -> float:
        differences = inside[:, column, None] - outside[None, :, column]
        return float(np.mean(np.sign(differences)))

    return int(ranks[np.argmax([auroc(column) for column in range(len(ranks))])])


def fit_knn_chosen(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """Returns the features as unit vectors, and an array whose length is k.

    Lengths are known when programs are compiled, as k must be.
    """
    stored = bank(data)
    return {"features": stored, "k": np.zeros(choose_k(stored, np.asarray(data.labels)))}


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return knn_score(unit(inputs.features), state["features"], len(state["k"]))


KNN_CHOSEN = Detector(
    name="knn_chosen",
    title="KNN, k chosen",
    paper="Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022",
    needs=frozenset({"features", "labels"}),
    fit=fit_knn_chosen,
    score=_score,
)
