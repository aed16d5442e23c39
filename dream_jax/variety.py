"""How varied the embeddings of a class are, and where they lie among the features.

A sampler can choose the same few directions again and again: many embeddings, and few outliers.
Pure functions of arrays; `measure` puts their numbers together, class by class, so that memory is
bounded for any number of classes.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dream_jax.knn import d_k, nearest_cosines
from dream_jax.results import Features
from dream_jax.vectors import unit, unit_on_host

SAME = 0.9  # the cosine above which two embeddings count as the same
# The share of different embeddings below which a class has collapsed. Noise that the features of a
# round share left 3 to 20 %, nearly random choices 49 %, own noise 100 %.
COLLAPSED = 0.25
# Groups take time with the square of the number of embeddings, and the nearest features with its
# product with the number of all features.
MOST_GROUPED = 10_000
MOST_PLACED = 1_000
BLOCK = 512  # embeddings that are compared with as many others at once


def leaders(vectors: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Finds the different ones among embeddings: every other has a cosine above `SAME` with one.

    In the order given, an embedding is a leader unless its cosine with a leader before it is above
    `SAME` (the leader algorithm: Hartigan, "Clustering Algorithms", 1975, chapter 3). So no two
    leaders have a cosine above `SAME`, and the number of leaders is that of the groups. Time grows
    with n² d, at most n² d multiplications and additions; memory is that of the embeddings.

    Args:
      vectors: of any length above 0.

    Returns:
      Whether each is a leader.
    """
    count = len(vectors)
    size = min(BLOCK, count)
    padded = np.pad(np.asarray(vectors, np.float32), ((0, -count % size), (0, 0)))
    found = _leaders(unit(jnp.asarray(padded)).reshape(-1, size, padded.shape[1]), count)
    return np.asarray(found).ravel()[:count]


@jax.jit
def _leaders(
    blocks: Float[Array, "blocks block d"], count: Int[Array, ""]
) -> Bool[Array, "blocks block"]:
    """Returns which of the first `count` unit vectors, in their order, are leaders."""
    number, size, _ = blocks.shape
    real = (jnp.arange(number * size) < count).reshape(number, size)

    def same(some, others):
        return jnp.matmul(some, others.T, precision="highest") > SAME

    def next_block(i, leads):
        own = blocks[i]

        def earlier(j, follows):
            return follows | jnp.any(same(own, blocks[j]) & leads[j], axis=1)

        free = real[i] & ~jax.lax.fori_loop(0, i, earlier, jnp.zeros(size, bool))
        alike = same(own, own)

        def next_one(place, lead):
            return lead.at[place].set(free[place] & ~jnp.any(alike[place] & lead))

        return leads.at[i].set(jax.lax.fori_loop(0, size, next_one, jnp.zeros(size, bool)))

    return jax.lax.fori_loop(0, number, next_block, jnp.zeros((number, size), bool))


def effective_rank(vectors: Float[np.ndarray, "n d"]) -> float:
    """Computes in how many dimensions unit vectors spread.

    Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007:
    exp H(p), where p are the singular values of a matrix, divided by their sum, and H is the
    Shannon entropy in nats. The matrix is that of the second moments, UᵀU for unit vectors in the
    rows of U, with no mean taken off; its singular values are its eigenvalues, the squares of U's.

    Args:
      vectors: of any length.

    Returns:
      A number in [1, min(n, d)]; 0 if all vectors are zeros.
    """
    rows = unit_on_host(np.asarray(vectors, np.float64))
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    values = np.maximum(np.linalg.eigvalsh(gram), 0)
    if not values.any():
        return 0.0
    share = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def has_collapsed(distinct: int, count: int) -> bool:
    """Returns whether embeddings have collapsed: under a quarter are different, or they are one.

    Args:
      distinct: the number of leaders.
      count: the number of embeddings; one alone cannot collapse.
    """
    return count > 1 and (distinct == 1 or distinct < COLLAPSED * count)


def count_distinct(
    embeddings: Float[np.ndarray, "classes n d"],
) -> tuple[list[int], int]:
    """Counts the different embeddings of each class among its first `MOST_GROUPED`.

    The first ones, and no random choice: whole rounds of the sampler, in which repetition shows.

    Returns:
      The numbers of leaders, and of how many embeddings they are.
    """
    grouped = embeddings[:, :MOST_GROUPED]
    return [int(leaders(own).sum()) for own in grouped], grouped.shape[1]


def collapse_note(distinct: Mapping[str, int], count: int) -> str:
    """Returns a sentence about the classes whose embeddings have collapsed; "" if none has.

    Args:
      distinct: class name → the number of its different embeddings.
      count: of the embeddings of a class.
    """
    fallen = {name: own for name, own in distinct.items() if has_collapsed(own, count)}
    if not fallen:
        return ""
    worst = min(fallen, key=lambda name: fallen[name])
    return (
        f"the outlier embeddings of {len(fallen)} of {len(distinct)} classes have collapsed: of "
        f"the {count:,} of class {worst!r} only {fallen[worst]:,} are different, the others have a "
        f"cosine above {SAME} with one of these; docs/method.md says what helps"
    )


def measure(
    known: Features, embeddings: Float[np.ndarray, "classes n d"], k: int, boundary: int
) -> Iterator[dict[str, Any]]:
    """Measures the embeddings of each class, in the order of the labels.

    Args:
      known: the features of all classes.
      embeddings: sampled at the edge of each class.
      k: the neighbour whose distance is d_k; that of the farthest feature in a smaller class.
      boundary: m, the size of the boundary set.

    Yields:
      `distinct`, the number of different ones (see `leaders`); `effective_rank`; `collapsed`;
      `d_k` of the embeddings, the `boundary_set` and the whole `class`; and `nearest_cosine`, the
      cosine to the nearest feature of the `own_class` and of `other_classes`, where there are any.
      Of the last two the median, the least and the largest. Groups and rank are of the first
      `MOST_GROUPED` embeddings, d_k and cosines of `MOST_PLACED`, evenly chosen.
    """
    features = unit(jnp.asarray(known.features, jnp.float32))
    most = int(np.bincount(known.labels, minlength=len(embeddings)).max())
    for label, own in enumerate(embeddings):
        grouped, placed = own[:MOST_GROUPED], own[evenly(len(own), MOST_PLACED)]
        members = known.labels == label
        count = int(members.sum())
        padded = np.zeros((most, own.shape[1]), np.float32)
        padded[:count] = known.features[members]
        place = functools.partial(d_k, features=padded, k=k, count=count)
        of_class = place(padded)[:count]
        nearest, others = nearest_cosines(unit(jnp.asarray(placed)), features, members)
        cosines = {"own_class": nearest, "other_classes": others}
        distinct = int(leaders(grouped).sum())
        yield {
            "distinct": distinct,
            "effective_rank": effective_rank(grouped),
            "collapsed": has_collapsed(distinct, len(grouped)),
            "d_k": {
                "embeddings": _spread(place(placed)),
                "boundary_set": _spread(np.sort(of_class)[-boundary:]),
                "class": _spread(of_class),
            },
            "nearest_cosine": {
                name: _spread(np.asarray(found))
                for name, found in cosines.items()
                if np.isfinite(found).all()
            },
        }


def evenly(count: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Returns at most `most` of `count` indices, evenly spaced from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _spread(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
    }
