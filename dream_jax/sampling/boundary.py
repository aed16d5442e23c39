"""Outlier (and inlier) embeddings: candidates around boundary features, kept by k-NN distance.

Stage ② of the method (Dream-OOD, section 3.1), and with `largest=False` its inlier variant
(Dream-ID). A candidate is normalise(b + s n), for a boundary feature b and a normal vector n, so
its similarity to a feature z is (b·z + s n·z) / |b + s n|. The products of a whole round are thus
those of the noise and of the boundary features with the features. No candidate is built before it
is chosen, and its norm, a positive factor, stays outside the order statistic.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dream_jax.knn import kth_smallest, kth_sq_distance
from dream_jax.vectors import unit

FEATURES_AT_ONCE = 20  # features whose similarities are counted in one step
HALVINGS = 23  # of a range of cosines of length 2, which leaves 2.4e-7, a float32's rounding


def boundary_set(
    features: Float[Array, "n d"], k: int, m: int, count: int | jax.Array | None = None
) -> Int[Array, " m"]:
    """Returns the features on the boundary of their class: those with the largest d_k.

    Args:
      features: (n, d) unit vectors.
      k: 1-based rank of the neighbour; every feature counts itself first.
      m: size of the boundary set, at most n.
      count: if given, only the first `count` features are real.

    Returns:
      (m,) int32 indices, largest d_k first.
    """
    distance = kth_sq_distance(features, features, k, count)
    real = jnp.arange(len(features)) < (len(features) if count is None else count)
    return jax.lax.top_k(jnp.where(real, distance, -jnp.inf), m)[1]


def _beat(
    threshold: Float[Array, " p"],
    norms: Float[Array, "p L"],
    of_boundary: Float[Array, "blocks block p"],
    of_noise: Float[Array, "blocks block L"],
    rank: int | jax.Array,
) -> Bool[Array, "p L"]:
    """Returns whether a candidate's rank-th smallest value, over its norm, is above `threshold`.

    The values of candidate (i, j) are of_boundary[:, :, i] + of_noise[:, :, j], with the features
    in blocks: (blocks, FEATURES_AT_ONCE, p) and (blocks, FEATURES_AT_ONCE, L).
    """
    limit = threshold[:, None] * norms

    def count(below, block):
        boundary, noise = block
        values = boundary[:, :, None] + noise[:, None, :]
        return below + jnp.sum(values <= limit, axis=0, dtype=jnp.int32), None

    none = jnp.zeros(norms.shape, jnp.int32)
    below, _ = jax.lax.scan(count, none, (of_boundary, of_noise))
    return below < rank


def _bisect(
    beat: Callable[[Float[Array, " p"]], Bool[Array, "p L"]], shape: tuple[int, int], keep: int
) -> tuple[Bool[Array, "p L"], Bool[Array, "p L"]]:
    """Finds thresholds, one low and one high, between which the best `keep` candidates end.

    Returns:
      Which candidates beat the low threshold, at least `keep` for each boundary feature, and which
      beat the high one, fewer.
    """

    def halve(_, state):
        low, high, above_low, above_high = state
        middle = (low + high) / 2
        above = beat(middle)
        raise_low = jnp.sum(above, axis=1) >= keep
        return (
            jnp.where(raise_low, middle, low),
            jnp.where(raise_low, high, middle),
            jnp.where(raise_low[:, None], above, above_low),
            jnp.where(raise_low[:, None], above_high, above),
        )

    # Cosines, with room for their rounding.
    all_of_them = jnp.ones(shape, bool)
    p = shape[0]
    state = (jnp.full(p, -1.001), jnp.full(p, 1.001), all_of_them, ~all_of_them)
    *_, above_low, above_high = jax.lax.fori_loop(0, HALVINGS, halve, state)
    return above_low, above_high


def sample_round(
    features: Float[Array, "n d"],
    boundary_features: Float[Array, "p d"],
    noise: Float[Array, "L d"],
    k: int,
    scale: float,
    keep: int,
    largest: bool = True,
    count: int | jax.Array | None = None,
) -> Float[Array, "p keep d"]:
    """Perturbs every boundary feature by every noise vector and keeps the extremes: one round.

    Exact up to rounding: of candidates whose k-th similarities differ by less than 3e-7, either
    may be kept. The search is for each boundary feature's threshold that `keep` candidates beat,
    by bisection: a fixed number of passes, each of which counts the similarities of every
    candidate that lie below. Memory is that of the (n, L) products of features and noise, plus a
    few (p, L) arrays; time is proportional to p · L · n, whatever the data.

    Args:
      features: (n, d) unit vectors of the class.
      boundary_features: (p, d) unit vectors to perturb.
      noise: (L, d) normal vectors of unit variance.
      k: 1-based rank of the neighbour among `features`.
      scale: s, which multiplies the noise.
      keep: candidates kept for each boundary feature, at most L.
      largest: keep the largest d_k (outliers) or the smallest (inliers).
      count: if given, only the first `count` features are real; the others are infinitely far.

    Returns:
      (p, keep, d) unit vectors, the best first.
    """
    product = functools.partial(jnp.matmul, precision="highest")
    p, length = len(boundary_features), len(noise)
    count = len(features) if count is None else count
    features = jnp.pad(features, ((0, -len(features) % FEATURES_AT_ONCE), (0, 0)))
    # d_k grows with the k-th smallest of the negative similarities. For inliers the sign turns,
    # and with it the rank, so that in both cases the rank-th smallest is to be large.
    sign, rank = (-1.0, k) if largest else (1.0, count - k + 1)
    from_noise = sign * scale * product(features, noise.T)  # (n, L)
    # Padding is last in order whichever the sign, and so never counts.
    real = jnp.arange(len(features)) < count
    from_boundary = jnp.where(
        real[:, None], sign * product(features, boundary_features.T), jnp.inf
    )  # (n, p)
    norms = jnp.sqrt(  # |b + s n|, (p, L)
        jnp.sum(boundary_features**2, axis=1)[:, None]
        + 2.0 * scale * product(boundary_features, noise.T)
        + scale**2 * jnp.sum(noise**2, axis=1)
    )
    beat = functools.partial(
        _beat,
        norms=norms,
        of_boundary=from_boundary.reshape(-1, FEATURES_AT_ONCE, p),
        of_noise=from_noise.reshape(-1, FEATURES_AT_ONCE, length),
        rank=rank,
    )

    above_low, above_high = _bisect(beat, norms.shape, keep)
    # Those above both are among the best; those between the two are equal but for rounding.
    sides = above_low.astype(jnp.float32) + above_high
    chosen = jax.lax.top_k(sides, keep)[1]  # (p, keep)
    values = from_boundary.T[:, None] + jnp.moveaxis(from_noise[:, chosen], 0, -1)
    score = kth_smallest(values, rank) / jnp.take_along_axis(norms, chosen, axis=1)
    best_first = jnp.take_along_axis(chosen, jnp.argsort(-score, axis=1), axis=1)
    return unit(boundary_features[:, None] + scale * noise[best_first])
