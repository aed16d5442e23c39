"""Outlier (and inlier) embeddings: candidates around boundary features, kept by k-NN distance.

Stage ② of the method (Dream-OOD, section 3.1), and with `largest=False` its inlier variant
(Dream-ID). A candidate is normalise(b + s n), for a boundary feature b and a normal vector n, so
its similarity to a feature z is (b·z + s n·z) / |b + s n|. The products of a whole round are thus
those of the noise and of the boundary features with the features. No candidate is built before it
is chosen, and its norm, a positive factor, stays outside the order statistic.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.errors import UserError
from dream_jax.knn import kth_smallest, kth_sq_distance
from dream_jax.training.devices import fold_keys, pmap, shard, unshard

FEATURES_AT_ONCE = 20  # features whose similarities are counted in one step
SELECTIONS = ("paper", "published")
HALVINGS = 23  # of a range of cosines of length 2, which leaves 2.4e-7, a float32's rounding


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler, checked when made.

    Attributes:
      k: the neighbour whose distance is d_k; a feature of the class counts itself first.
      boundary: size m of the boundary set, the features with the largest d_k; unused for inliers.
      per_round: features drawn in a round; all that are eligible, if they are fewer.
      candidates: noise vectors L in a round, shared by its features.
      scale: s, the standard deviation of the noise in each dimension (features are unit vectors).
      keep: candidates kept for each drawn feature.
      rounds: number of rounds.
      largest: True for outliers, which keep the largest d_k around the boundary set; False for
        inliers, which keep the smallest around any feature.
      selection: "paper" keeps for each drawn feature its own best candidates; "published" is the
        choice of the published code, see `published_round`.

    Raises:
      UserError: if a value is out of range; the message names it as `sampling.<attribute>`.
    """

    k: int = 300
    boundary: int = 50
    per_round: int = 50
    candidates: int = 1500
    scale: float = 0.07
    keep: int = 2
    rounds: int = 100
    largest: bool = True
    selection: str = "paper"

    def __post_init__(self):
        for name in ("k", "boundary", "per_round", "candidates", "keep", "rounds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(
                    f"sampling.{name} must be a whole number of at least 1, not {value}"
                )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"sampling.scale must be positive and finite, not {self.scale}")
        if self.selection not in SELECTIONS:
            raise UserError(
                f"sampling.selection is {self.selection!r}; allowed: {', '.join(SELECTIONS)}"
            )
        if self.keep > self.candidates:
            raise UserError(
                f"sampling.keep is {self.keep}, more than the {self.candidates} of "
                "sampling.candidates that it chooses from"
            )


def boundary_set(
    features: jax.Array, k: int, m: int, count: int | jax.Array | None = None
) -> jax.Array:
    """The features on the boundary of their class: those with the largest d_k.

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


def _normalise(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def _beat(
    threshold: jax.Array, norms: jax.Array, of_boundary: jax.Array, of_noise: jax.Array, rank
) -> jax.Array:
    """(p, L) whether the rank-th smallest value of a candidate, over its norm, is above (p,).

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


def sample_round(
    features: jax.Array,
    boundary_features: jax.Array,
    noise: jax.Array,
    k: int,
    scale: float,
    keep: int,
    largest: bool = True,
    count: int | jax.Array | None = None,
) -> jax.Array:
    """One round: perturbs every boundary feature by every noise vector and keeps the extremes.

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

    def halve(_, state):
        low, high, above_low, above_high = state  # at least `keep` beat low, fewer beat high
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
    all_of_them = jnp.ones((p, length), bool)
    state = (jnp.full(p, -1.001), jnp.full(p, 1.001), all_of_them, ~all_of_them)
    *_, above_low, above_high = jax.lax.fori_loop(0, HALVINGS, halve, state)
    # Those above both are among the best; those between the two are equal but for rounding.
    sides = above_low.astype(jnp.float32) + above_high
    chosen = jax.lax.top_k(sides, keep)[1]  # (p, keep)
    values = from_boundary.T[:, None] + jnp.moveaxis(from_noise[:, chosen], 0, -1)
    score = kth_smallest(values, rank) / jnp.take_along_axis(norms, chosen, axis=1)
    best_first = jnp.take_along_axis(chosen, jnp.argsort(-score, axis=1), axis=1)
    return _normalise(boundary_features[:, None] + scale * noise[best_first])


def published_round(
    features: jax.Array,
    boundary_features: jax.Array,
    noise: jax.Array,
    k: int,
    scale: float,
    keep: int,
    largest: bool = True,
    count: int | jax.Array | None = None,
) -> jax.Array:
    """One round with the choice of the published code, to repeat its numbers.

    That code computes d_k of the candidates as a table (p, L), reads it as (L, p), and gives the
    i-th feature the noise vectors with the best entries in column i: of other features' distances,
    for the most part, so that the choice is close to a random one. For one point per feature it
    also takes all of them around the first feature.

    Arguments and result are those of `sample_round`; the order within a feature is by the misread
    distances.
    """
    padding = jnp.arange(len(features)) >= (len(features) if count is None else count)

    def distances(boundary_feature):
        candidates = _normalise(boundary_feature + scale * noise)
        opposition = -jnp.matmul(candidates, features.T, precision="highest")
        return kth_smallest(jnp.where(padding, jnp.inf, opposition), k)  # increases with d_k

    misread = jax.lax.map(distances, boundary_features).reshape(len(noise), -1)
    chosen = jax.lax.top_k(misread.T if largest else -misread.T, keep)[1]  # (p, keep)
    around = boundary_features if keep > 1 else boundary_features[jnp.zeros_like(chosen[:, 0])]
    return _normalise(around[:, None] + scale * noise[chosen])


@functools.lru_cache
def _mapped_rounds(settings: SamplerSettings) -> Callable:
    """The compiled rounds of one class, kept so that classes of the same size share them."""
    one_round = sample_round if settings.selection == "paper" else published_round

    def draw(keys, eligible):
        # A number per feature from its own key, the largest win: equal whatever the padding.
        lots = jnp.where(eligible, jax.vmap(jax.random.uniform)(keys), -1.0)
        return jax.lax.top_k(lots, settings.per_round)[1]

    def rounds(features, count, key, batch):
        index = jnp.arange(len(features))
        if settings.largest:
            chosen = boundary_set(features, settings.k, settings.boundary, count)
            eligible = jnp.zeros(len(features), bool).at[chosen].set(True)
        else:
            eligible = index < count

        def one(number):
            draw_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            drawn = features[draw(fold_keys(draw_key, index), eligible)]
            noise = jax.random.normal(noise_key, (settings.candidates, features.shape[1]))
            return one_round(
                features,
                drawn,
                noise,
                settings.k,
                settings.scale,
                settings.keep,
                settings.largest,
                count,
            )

        return jax.lax.map(one, batch["position"])

    return pmap(rounds, in_axes=(None, None, None, 0))


def _checked_features(features: np.ndarray, settings: SamplerSettings) -> np.ndarray:
    """(n, d) features as float32 unit vectors, or the reason why they cannot be sampled from."""
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise UserError(f"features of a class must be (n, d) and not empty, not {features.shape}")
    n = len(features)
    if not np.isfinite(features).all():
        raise UserError("features of a class must be finite: found NaN or infinity among them")
    # Scaled by the largest entry first, lest the squares overflow or vanish.
    largest = np.abs(features).max(axis=1, keepdims=True)
    if not largest.all():
        raise UserError("features of a class must not be zero: they have no direction to sample")
    if settings.k > n:
        raise UserError(f"sampling.k is {settings.k}, more than the {n} features of a class")
    if settings.largest and settings.boundary > n:
        raise UserError(
            f"sampling.boundary is {settings.boundary}, more than the {n} features of a class"
        )
    scaled = features / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def sample_embeddings(
    features: np.ndarray, key: jax.Array, settings: SamplerSettings, rows: int | None = None
) -> np.ndarray:
    """All embeddings of one class: stage ② without its last step, the rescaling to |T(y)|.

    The rounds are shared out among the local devices. Random numbers are folded from the index of
    the round, so the result does not depend on how many devices there are.

    Args:
      features: (n, d) features of the class, of any length.
      key: random key of the class.
      settings: see `SamplerSettings`.
      rows: pad the features up to this many rows, at least n, with rows that are infinitely far
        and never drawn. Classes of different sizes then share one compiled program; for inliers
        only if each has at least `per_round` features.

    Returns:
      (rounds · p · keep, d) float32 unit vectors by round, then drawn feature, then best first;
      p = min(`per_round`, number of eligible features).

    Raises:
      UserError: if the features are not finite or zero, or `k` or `boundary` exceed their number.
      ValueError: if `rows` is less than n.
    """
    features = _checked_features(features, settings)
    n, dimension = features.shape
    rows = n if rows is None else rows
    if rows < n:
        raise ValueError(f"rows is {rows}, less than the {n} features to be padded")
    per_round = min(settings.per_round, settings.boundary if settings.largest else n)
    run = _mapped_rounds(dataclasses.replace(settings, per_round=per_round))
    padded = np.pad(features, ((0, rows - n), (0, 0)))
    # The position of a row, which `shard` adds, is here the number of a round.
    batch = shard({"round": np.arange(settings.rounds)})
    points = unshard(run(padded, np.int32(n), key, batch), settings.rounds)
    return points.reshape(-1, dimension)
