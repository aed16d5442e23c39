"""A round of the paper's sampler: every drawn feature has a set of candidates of its own.

Dream-OOD, section 3.1; with `largest=False` its inlier variant, Dream-ID. A candidate is
normalise(y), y = b + s n, for a boundary feature b and a normal vector n, and those with the
extreme k-th largest similarity to the features of the class are kept. Most candidates are ruled out
without being drawn. With r the number of features that are at most as similar as the k-th, and
v = Z y the products with all n features,

    v_(k) ≥ mean of the r smallest ≥ mean(v) - √(1/r - 1/n) |v - mean(v)|

by the inequality of Cauchy and Schwarz; for inliers, v_(k) is at most the mean of the k largest,
and so on with the signs turned. The mean of v is μ·y for the mean feature μ. So three numbers of n
tell how good a candidate can be: its components along b and μ, and the length of the rest, whose
square is χ² distributed. Of |v - mean(v)|² = yᵀ C y, a sum of squares of normal variables, only an
upper bound is known, which it exceeds with a probability of e^-`CERTAINTY` at most. The rest of n
is drawn for the candidates that can still win: a uniform direction at right angles to b and μ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from dream_jax.knn import kth_smallest
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.training.devices import fold_keys
from dream_jax.vectors import unit

# A bound fails with a probability of at most e^-30 = 1e-13; in a whole run at the paper's sizes,
# 75,000 candidates in 100 rounds for 100 classes, one does with a probability below 1e-4.
CERTAINTY = 30.0
ROUNDING = 1e-5  # of a similarity, added to the bounds
FIRST = 32  # candidates of each drawn feature that are measured before any is ruled out
# Candidates that are measured in one step: few on a CPU, whose cache holds their similarities, and
# more elsewhere, where a step starts some forty kernels. On an H200 ten rounds of 75,000 candidates
# took 83 ms by 512 at once, 28 by 2,048, 21 by 8,192 and 44 by 32,768.
AT_ONCE, AT_ONCE_ON_ACCELERATORS = 512, 8192
PARALLEL = 1e-5  # if less of μ is at a right angle to b, any direction at a right angle will do


class Class(NamedTuple):
    """What a round needs to know about the features of a class.

    C is the sum of the outer products of the centred features.

    Attributes:
      features: (n, d) unit vectors; those of padding are zeros.
      number: how many of them are real.
      mean: μ, (d,).
      trace: of C.
      squares: the sum of the squares of C's eigenvalues.
      largest: a number that no eigenvalue exceeds.
    """

    features: Float[Array, "n d"]
    number: int | Int[Array, ""]
    mean: Float[Array, " d"]
    trace: Float[Array, ""]
    squares: Float[Array, ""]
    largest: Float[Array, ""]

    def centred(self) -> Float[Array, "n d"]:
        """Returns the features less their mean; zeros for padding."""
        real = jnp.arange(len(self.features)) < self.number
        return jnp.where(real[:, None], self.features - self.mean, 0.0)


class Pilots(NamedTuple):
    """What is drawn of every candidate's noise.

    Attributes:
      along: (p, L, 2) components along the two directions of the drawn feature.
      rest: (p, L) length of what is at a right angle to both.
      keys: (p, L) keys of that rest's direction.
    """

    along: Float[Array, "p L 2"]
    rest: Float[Array, "p L"]
    keys: Key[Array, "p L"]


def describe(features: Float[Array, "n d"], count: int | Int[Array, ""]) -> Class:
    """Computes what the rounds of a class share.

    Args:
      features: unit vectors of the class.
      count: only the first `count` features are real.
    """
    real = jnp.arange(len(features))[:, None] < count
    features = jnp.where(real, features, 0.0)
    mean = jnp.sum(features, axis=0) / count
    known = Class(features, count, mean, *3 * (jnp.float32(0),))
    centred = known.centred()
    # Of C and the matrix of the centred features' products, which has the same eigenvalues but for
    # zeros, the smaller one.
    n, dimension = features.shape
    products = _matmul(centred, centred.T) if n < dimension else _matmul(centred.T, centred)
    squared = _matmul(products, products)
    # The sum of the fourth powers of the eigenvalues is that of the squares of its entries.
    largest = jnp.sum(squared**2) ** 0.25
    return known._replace(
        trace=jnp.trace(products), squares=jnp.trace(squared), largest=1.0001 * largest
    )


def own_round(
    known: Class, drawn: Float[Array, "p d"], key: Key[Array, ""], settings: SamplerSettings
) -> Float[Array, "p keep d"]:
    """Perturbs each drawn feature by noise of its own and keeps its extreme candidates.

    The candidates kept are those that `all_noise` of the same arguments gives by definition, unless
    a bound fails, which `CERTAINTY` makes improbable; of candidates whose similarities differ by
    less than rounding, either may be kept.

    Time depends on how many candidates the bounds rule out: nine of ten where the features point
    in all directions from their mean, more where they are crowded. Memory is that of a few
    arrays (p, L) and (candidates measured at once, n).

    Args:
      known: of the class.
      drawn: the unit vectors to perturb: features that were drawn for this round.
      key: of the noise of this round.
      settings: of which `k`, `scale`, `keep`, `candidates` and `largest` are used.

    Returns:
      The kept candidates, unit vectors, the best of each drawn feature first.
    """
    drawn = jnp.asarray(drawn)
    directions = _directions(known.mean, drawn)
    pilots = _pilots(key, len(drawn), known.features.shape[1], settings)
    potential = _potential(known, directions, pilots, settings)
    p, length = potential.shape

    def noise_of(chosen: Int[Array, " some"]) -> Float[Array, "some d"]:
        return _noise(directions, pilots, chosen)

    def measured(table: Float[Array, " p*L"], chosen: Int[Array, " some"]) -> Float[Array, " p*L"]:
        scores = _scores(known, drawn[chosen // length], noise_of(chosen), settings)
        return table.at[chosen].set(scores, mode="drop")

    numbers = jnp.arange(p * length).reshape(p, length)
    promising = jax.lax.top_k(potential, min(max(FIRST, settings.keep), length))[1]
    first = jnp.take_along_axis(numbers, promising, axis=1).ravel()
    table = _in_steps(measured, jnp.full(p * length, -jnp.inf), first, first.size)
    to_beat = jax.lax.top_k(table.reshape(p, length), settings.keep)[0][:, -1:]
    # Written so that what is not a number, of noise beyond float32, is measured.
    possible = ~(potential < to_beat).ravel() & jnp.isneginf(table)
    left = jnp.nonzero(possible, size=p * length, fill_value=p * length)[0]
    table = _in_steps(measured, table, left, jnp.sum(possible))
    best = jax.lax.top_k(table.reshape(p, length), settings.keep)[1]
    chosen = jnp.take_along_axis(numbers, best, axis=1)
    noise = noise_of(chosen.ravel()).reshape(*chosen.shape, -1)
    return unit(drawn[:, None] + settings.scale * noise)


def all_noise(
    known: Class, drawn: Float[Array, "p d"], key: Key[Array, ""], settings: SamplerSettings
) -> Float[Array, "p L d"]:
    """Draws the noise n of every candidate of a round, of most of which a round draws but a part.

    Args:
      known, drawn, key, settings: as for `own_round`.
    """
    directions = _directions(known.mean, drawn)
    pilots = _pilots(key, len(drawn), known.features.shape[1], settings)
    noise = _noise(directions, pilots, jnp.arange(pilots.rest.size))
    return noise.reshape(*pilots.rest.shape, -1)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _directions(mean: Float[Array, " d"], drawn: Float[Array, "p d"]) -> Float[Array, "p 2 d"]:
    """Returns two unit vectors of each drawn feature b at a right angle: b, and one towards μ.

    In one dimension there is no second direction, and it is zero.
    """
    rest = _without(mean, drawn)
    # Instead of μ, if it lies along b: the axis to which b is nearest to a right angle.
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(drawn), axis=1), drawn.shape[1])
    parallel = jnp.linalg.norm(rest, axis=1, keepdims=True) < PARALLEL
    rest = unit(jnp.where(parallel, _without(axis, drawn), rest))
    second = _without(rest, drawn)  # again: subtraction has left the rounding of a short vector
    length = jnp.linalg.norm(second, axis=1, keepdims=True)
    return jnp.stack([drawn, jnp.where(length > 0.5, second / length, 0.0)], axis=1)


def _without(vectors: Float[Array, "*p d"], other: Float[Array, "p d"]) -> Float[Array, "p d"]:
    """Returns vectors less their components along other unit vectors."""
    return vectors - jnp.sum(vectors * other, axis=-1, keepdims=True) * other


def _pilots(key: Key[Array, ""], p: int, dimension: int, settings: SamplerSettings) -> Pilots:
    along_key, rest_key, direction_key = jax.random.split(key, 3)
    shape = p, settings.candidates
    freedom = dimension - 2
    squares = jax.random.chisquare(rest_key, freedom, shape) if freedom > 0 else jnp.zeros(shape)
    keys = fold_keys(direction_key, jnp.arange(p * settings.candidates)).reshape(shape)
    return Pilots(jax.random.normal(along_key, (*shape, 2)), jnp.sqrt(squares), keys)


def _noise(
    directions: Float[Array, "p 2 d"], pilots: Pilots, chosen: Int[Array, " some"]
) -> Float[Array, "some d"]:
    """Draws the rest of the chosen candidates' noise; their numbers run over p, then over L."""
    own = directions[chosen // pilots.rest.shape[1]]
    dimension = own.shape[-1]
    keys = pilots.keys.ravel()[chosen]
    rest = jax.vmap(lambda key: jax.random.normal(key, (dimension,)))(keys)
    rest = unit(_without(_without(rest, own[:, 0]), own[:, 1]))
    along = pilots.along.reshape(-1, 2)[chosen]
    return (
        along[:, :1] * own[:, 0] + along[:, 1:] * own[:, 1]
        + pilots.rest.ravel()[chosen][:, None] * rest
    )  # fmt: skip


def _potential(
    known: Class, directions: Float[Array, "p 2 d"], pilots: Pilots, settings: SamplerSettings
) -> Float[Array, "p L"]:
    """Bounds the score of each candidate, see `_scores`, from above."""
    scale, dimension = settings.scale, known.mean.shape[0]
    centred = known.centred()
    spread = _matmul(directions, centred.T)  # (p, 2, n)
    turned = _matmul(spread, centred)  # C e for both directions e
    within = _matmul(spread, jnp.swapaxes(spread, 1, 2))  # (p, 2, 2), eᵀ C e'
    across = _matmul(turned, jnp.swapaxes(turned, 1, 2)) - _matmul(within, within)
    fixed = scale * pilots.along + jnp.array([1.0, 0.0])  # y along both directions, (p, L, 2)
    length = jnp.sqrt(jnp.sum(fixed**2, axis=-1) + (scale * pilots.rest) ** 2)
    mean = jnp.sum(fixed * _matmul(directions, known.mean)[:, None], axis=-1)

    def form(matrix: Float[Array, "p 2 2"]) -> Float[Array, "p L"]:
        return jnp.maximum(jnp.sum(_matmul(fixed, matrix) * fixed, axis=-1), 0.0)

    # yᵀ C y is a sum of squares (σ ε + m)² of independent normal ε: Laurent, Loubes and Marteau,
    # "Non asymptotic minimax rates of testing in signal detection with heterogeneous variances",
    # 2012, lemma 2.
    rest = jnp.maximum(known.trace - jnp.trace(within, axis1=1, axis2=2), 0.0)[:, None]
    if dimension <= 2:
        rest = jnp.zeros_like(rest)
    expected = form(within) + scale**2 * rest
    variance = scale**4 * known.squares + 2 * scale**2 * form(across)
    tail = 2 * jnp.sqrt(CERTAINTY * variance) + 2 * CERTAINTY * scale**2 * known.largest
    rank = known.number - settings.k + 1 if settings.largest else settings.k
    share = jnp.sqrt(jnp.maximum(1 / rank - 1 / known.number, 0.0))
    sign = -1.0 if settings.largest else 1.0
    return (sign * mean + share * jnp.sqrt(expected + tail)) / length + ROUNDING


def _scores(
    known: Class,
    drawn: Float[Array, "some d"],
    noise: Float[Array, "some d"],
    settings: SamplerSettings,
) -> Float[Array, " some"]:
    """Returns the k-th largest similarity of candidates, negative where a small one is better."""
    similarity = _matmul(unit(drawn + settings.scale * noise), known.features.T)
    padding = jnp.arange(len(known.features)) >= known.number
    opposition = kth_smallest(jnp.where(padding, jnp.inf, -similarity), settings.k)
    return opposition if settings.largest else -opposition


def _in_steps(measured, table: Float[Array, " all"], chosen: Int[Array, " some"], count):
    """Measures the first `count` of the chosen candidates, in steps whose size suits the device."""
    size = AT_ONCE if jax.default_backend() == "cpu" else AT_ONCE_ON_ACCELERATORS
    nobody = table.size  # a number that no candidate has: its score is dropped
    chosen = jnp.pad(chosen, (0, -chosen.size % size), constant_values=nobody)

    def step(state):
        start, table = state
        return start + size, measured(table, jax.lax.dynamic_slice(chosen, (start,), (size,)))

    return jax.lax.while_loop(lambda state: state[0] < count, step, (0, table))[1]
