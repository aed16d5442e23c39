"""A round of the paper's sampler whose features share their noise, as in the published code.

Dream-OOD, section 3.1; with `largest=False` its inlier variant, Dream-ID. A candidate is
normalise(b + s n), for a boundary feature b and a normal vector n, so its similarity to a feature z
is (b·z + s n·z) / |b + s n|. All similarities of a round therefore follow from the products of the
noise and of the boundary features with the features. A candidate is built only once it is chosen,
and its norm, a positive factor, stays outside the order statistic.

The paper gives each feature candidates of its own (`own_noise`). Where all share one set, the few
vectors of it that lead furthest from the class win for most features, and the embeddings collapse
to these.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dream_jax.knn import kth_smallest
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.vectors import unit

# Features whose similarities are counted in one step: few on a CPU, whose cache holds the counts,
# and elsewhere as many as there usually are, by one kernel. On an H200 ten rounds of 75,000
# candidates among 500 features took 81 ms by 20 at once, 42 by 100 and 17 by all.
FEATURES_AT_ONCE, FEATURES_AT_ONCE_ON_ACCELERATORS = 20, 512
HALVINGS = 23  # of a range of cosines of length 2, which leaves 2.4e-7, a float32's rounding


def shared_round(
    features: Float[Array, "n d"],
    drawn: Float[Array, "p d"],
    noise: Float[Array, "L d"],
    settings: SamplerSettings,
    count: int | Int[Array, ""] | None = None,
) -> Float[Array, "p keep d"]:
    """Perturbs every drawn feature by every noise vector and keeps the extreme candidates.

    Exact up to rounding: of candidates whose k-th similarities differ by less than 3e-7, either
    may be kept. For each drawn feature a bisection searches the threshold that `keep` candidates
    beat, in a fixed number of passes, each of which counts the similarities of every candidate
    that lie below. Memory is that of the (n, L) products of features and noise, plus a few (p, L)
    arrays; time is proportional to p · L · n, whatever the data.

    Args:
      features: unit vectors of the class.
      drawn: the unit vectors to perturb: features that were drawn for this round.
      noise: normal vectors of unit variance.
      settings: of which `k`, `scale`, `keep` and `largest` are used; `keep` is at most L.
      count: if given, only the first `count` features are real; the others are infinitely far.

    Returns:
      The kept candidates, unit vectors, the best of each drawn feature first.
    """
    scale, p, length = settings.scale, len(drawn), len(noise)
    product = functools.partial(jnp.matmul, precision="highest")
    count = len(features) if count is None else count
    on_cpu = jax.default_backend() == "cpu"
    block = FEATURES_AT_ONCE if on_cpu else FEATURES_AT_ONCE_ON_ACCELERATORS
    block = min(block, len(features))
    features = jnp.pad(features, ((0, -len(features) % block), (0, 0)))
    # d_k grows with the k-th smallest of the negative similarities. For inliers the sign turns,
    # and with it the rank, so that in both cases the rank-th smallest has to be large.
    sign, rank = (-1.0, settings.k) if settings.largest else (1.0, count - settings.k + 1)
    from_noise = sign * scale * product(features, noise.T)  # (n, L)
    # Padding comes last in the order, with either sign, and so never counts.
    real = jnp.arange(len(features)) < count
    from_drawn = jnp.where(real[:, None], sign * product(features, drawn.T), jnp.inf)  # (n, p)
    norms = jnp.sqrt(  # |b + s n|, (p, L)
        jnp.sum(drawn**2, axis=1)[:, None]
        + 2.0 * scale * product(drawn, noise.T)
        + scale**2 * jnp.sum(noise**2, axis=1)
    )
    beat = functools.partial(
        _beat,
        norms=norms,
        from_drawn=from_drawn.reshape(-1, block, p),
        from_noise=from_noise.reshape(-1, block, length),
        rank=rank,
    )
    above_low, above_high = _bisect(beat, norms.shape, settings.keep)
    # Those above both are among the best; those between the two are equal but for rounding.
    sides = above_low.astype(jnp.float32) + above_high
    chosen = jax.lax.top_k(sides, settings.keep)[1]  # (p, keep)
    values = from_drawn.T[:, None] + jnp.moveaxis(from_noise[:, chosen], 0, -1)
    score = kth_smallest(values, rank) / jnp.take_along_axis(norms, chosen, axis=1)
    best_first = jnp.take_along_axis(chosen, jnp.argsort(-score, axis=1), axis=1)
    return unit(drawn[:, None] + scale * noise[best_first])


def _beat(
    threshold: Float[Array, " p"],
    norms: Float[Array, "p L"],
    from_drawn: Float[Array, "blocks block p"],
    from_noise: Float[Array, "blocks block L"],
    rank: int | Int[Array, ""],
) -> Bool[Array, "p L"]:
    """Returns whether a candidate's rank-th smallest value, over its norm, is above `threshold`.

    The values of candidate (i, j) are from_drawn[:, :, i] + from_noise[:, :, j], one for each
    feature; the features come in blocks, of which one is counted in a step.
    """
    limit = threshold[:, None] * norms

    def count(below, block):
        of_drawn, of_noise = block
        values = of_drawn[:, :, None] + of_noise[:, None, :]
        return below + jnp.sum(values <= limit, axis=0, dtype=jnp.int32), None

    none = jnp.zeros(norms.shape, jnp.int32)
    below, _ = jax.lax.scan(count, none, (from_drawn, from_noise))
    return below < rank


def _bisect(
    beat: Callable[[Float[Array, " p"]], Bool[Array, "p L"]], shape: tuple[int, ...], keep: int
) -> tuple[Bool[Array, "p L"], Bool[Array, "p L"]]:
    """Finds a low and a high threshold with the `keep`-th best candidate between them.

    Args:
      beat: tells which candidates are above a threshold for each drawn feature.
      shape: (p, L).
      keep: candidates to keep for each drawn feature.

    Returns:
      Which candidates are above the low threshold, at least `keep` for each drawn feature, and
      which are above the high one, fewer than `keep`.
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
    low, high = jnp.full(shape[0], -1.001), jnp.full(shape[0], 1.001)
    every = jnp.ones(shape, bool)
    *_, above_low, above_high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high, every, ~every))
    return above_low, above_high
